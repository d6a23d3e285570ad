"""Arithmetic of plans: what a load will take, whether it fits, and what to change."""
