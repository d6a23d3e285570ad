"""What is made of a run that has ended: evidence, explanation, recovery."""
