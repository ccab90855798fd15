"""Models: where they are, how they are loaded, and the text that they take."""
