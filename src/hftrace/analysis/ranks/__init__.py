"""What a trace of several ranks says of each of them, and of the job."""
