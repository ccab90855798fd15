"""Films of digits in scenes, the tiny LLaVA that is trained on them, and what policies keep."""
