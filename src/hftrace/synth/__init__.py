"""Real checkpoints with random weights, in the shape of known architectures."""
