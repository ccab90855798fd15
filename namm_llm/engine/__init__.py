"""The engine: prompts in, tokens out, with one model and one cache configuration."""
