"""The NAMMs of the family `universal` that are part of the lab, 1.8 kB each."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
SHIPPED = {
    # namm-llm train distil --family universal --model namm-tiny --length 2048 --documents 8
    #   --rounds 2 --steps 500 --budget 0.25
    "zero-shot": _HERE / "zero-shot.safetensors",
    # python -m namm_lab.universal
    "universal": _HERE / "universal.safetensors",
}
"""zero-shot: learnt on text alone. universal: on text, the T-maze and CartPole."""
