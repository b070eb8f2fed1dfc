"""What an operator sees: the live websocket."""
