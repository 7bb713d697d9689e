"""One file for each learning signal; the equation is a pure function at the top of the file."""
