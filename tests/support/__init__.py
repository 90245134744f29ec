"""What the behaviour tests share: which loops to test, the leak watch, peers, protocols and child processes."""
