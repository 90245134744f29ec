"""Plain, blocking-looking code on proact's loop, switched by greenlets."""
