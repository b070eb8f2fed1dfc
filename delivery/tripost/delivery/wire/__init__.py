"""SMTP's grammar, shared by both ends. Pure."""
