"""The command line: its options, its output, and whose rights it has."""
