"""The local destination: Maildir."""
