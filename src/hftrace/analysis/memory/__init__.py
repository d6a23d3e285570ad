"""Where the memory went: peaks, series, and what a peak was made of."""
