"""Other formats of a trace."""
