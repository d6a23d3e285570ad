"""Findings: a diagnosis with its evidence, what it costs, and what to change."""
