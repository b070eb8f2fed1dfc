"""`tripost top`: the live monitor in a terminal, over the same websocket as the page."""
