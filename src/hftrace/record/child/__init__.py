"""The process that ``hftrace load`` starts: from its first line to a model that is ready."""
