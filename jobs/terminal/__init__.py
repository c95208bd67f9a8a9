"""What a user at the terminal sees: messages, progress, tables."""
