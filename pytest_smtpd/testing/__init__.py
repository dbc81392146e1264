"""What a test sees: messages, the outbox, criteria, and the server that records."""
