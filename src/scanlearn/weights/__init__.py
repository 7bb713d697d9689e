"""Writing and reading trained networks, with an account of every tensor."""
