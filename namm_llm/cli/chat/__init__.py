"""`namm-llm chat`: a conversation in the terminal."""
