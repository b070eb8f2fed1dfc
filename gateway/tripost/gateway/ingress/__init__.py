"""Mail coming in: SMTP."""
