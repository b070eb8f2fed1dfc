"""How a message leaves: routing, DNS, SMTP out, local mailboxes, reports."""
