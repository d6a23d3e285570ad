"""Two or more groups of runs side by side."""
