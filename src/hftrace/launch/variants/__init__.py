"""What to compare: variants of one load, and the rounds that measure them."""
