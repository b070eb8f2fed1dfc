"""What is in a message: header fields, addresses, MIME parts."""
