"""The command line: every command parses, calls the library and prints; nothing is decided here."""
