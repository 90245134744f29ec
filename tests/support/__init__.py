"""What the behaviour tests share: the loops to test, the leak watch, peers, protocols and child processes."""
