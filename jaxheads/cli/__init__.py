"""The command line: options, what the commands do, and what they print."""
