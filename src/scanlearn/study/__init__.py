"""Reports one can look at."""
