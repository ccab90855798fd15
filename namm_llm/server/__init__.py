"""An HTTP server with OpenAI's interface, and memories of documents behind it (extra `serve`)."""
