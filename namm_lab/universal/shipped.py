"""The NAMM of the family `universal` that is part of the lab, 1.8 kB."""

from pathlib import Path

SHIPPED = {
    # namm-llm train distil --family universal --model namm-tiny --length 2048 --documents 8
    #   --rounds 2 --steps 500 --budget 0.25
    "zero-shot": Path(__file__).resolve().parent / "zero-shot.safetensors"
}
"""zero-shot: learnt on text alone."""
