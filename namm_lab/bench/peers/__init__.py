"""Other programs that open the same GGUF file, each in a process and an environment of its own:
llama.cpp, OpenVINO GenAI, and transformers on the expanded weights.

`worker.py` is what runs there and imports nothing of this project; `process` talks to it,
`contender` is a peer as `run_benchmark` measures it, `opening` starts them.
"""
