"""Which scans exist, whose they are, and who may train on them."""
