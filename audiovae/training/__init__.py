"""Training: the data, one loop, and one task a network family."""
