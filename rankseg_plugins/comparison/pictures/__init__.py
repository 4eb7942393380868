"""Images that are kept to be drawn, and the colours of all pictures."""
