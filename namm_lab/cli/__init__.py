"""Commands that the lab adds to `namm-llm`: eval, bench and train."""
