"""Public data sets by name: their files, labels, patients and published splits, one small module for each."""
