"""Who reads the events of a gateway: the log, the history."""
