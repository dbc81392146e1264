"""The server's thread: sockets and timers; knows no SMTP."""
