"""What this machine can do for the bytes of a model: measured when asked, and kept."""
