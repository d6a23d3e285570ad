"""The best call for one model on one machine: what can be set, and the search among it."""
