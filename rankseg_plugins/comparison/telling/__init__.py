"""What a comparison says: rows of figures, sentences, and a summary for a prompt or a notebook."""
