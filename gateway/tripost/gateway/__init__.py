"""The faces of tripost (SMTP, POP3, monitor, command line) and the whole."""
