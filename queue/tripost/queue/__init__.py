"""What a message is, how it is kept, when it is due."""
