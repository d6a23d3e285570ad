"""The views of one trace."""
