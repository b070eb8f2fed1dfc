"""Mail being fetched: POP3."""
