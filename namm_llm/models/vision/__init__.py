"""Pictures as a model reads them: pixels, parts of messages, and the tokens that stand for them."""
