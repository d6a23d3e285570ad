"""Which version of transformers brought a difference: where versions come from, and the steps."""
