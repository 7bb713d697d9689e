"""Self-discovery: places that recur in similar patients, as a table of words (Semantic Genesis, MICCAI 2020)."""
