"""The command line: one module per command, and one place for options, output and exit codes."""
