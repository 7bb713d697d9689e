"""Few-shot diagnosis: how well a handful of labelled patients, seen through frozen features, tells classes apart."""
