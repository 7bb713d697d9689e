"""What an objective gets to see: batched, N-dimensional operations split in draw (all randomness) and apply (pure)."""
