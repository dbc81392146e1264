"""SMTP without I/O: no socket, no threading, no time."""
