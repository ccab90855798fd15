"""Speed and memory, measured side by side on this machine. Imports only what `namm_llm` exports."""
