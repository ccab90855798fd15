#!/usr/bin/env bash
# transformers 5.23.0: the cache of a sliding window holds the whole prompt's memory until the
# next step.
#
# After a chunk of keys DynamicSlidingWindowLayer keeps the last window - 1 of them as a view. The
# view keeps the whole chunk's storage alive, in every layer at once, so that a long prompt needs
# the memory of full attention at its peak. The next update copies the window and frees the chunk.
#
# Seen: window 16, a chunk of 4 096 tokens, 2 heads of 8 numbers in float32:
#       960 bytes of keys in use, 262 144 held; after one more token 1 024 held
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
import torch
from transformers.cache_utils import DynamicSlidingWindowLayer

layer = DynamicSlidingWindowLayer(sliding_window=16)
chunk, token = torch.randn(1, 2, 4096, 8), torch.randn(1, 2, 1, 8)
layer.update(chunk, chunk)
used, held = layer.keys.numel() * 4, layer.keys.untyped_storage().nbytes()
layer.update(token, token)
later = layer.keys.untyped_storage().nbytes()
print(used, "bytes of keys in use,", held, "held; after one more token", later, "held")

assert used == 15 * 2 * 8 * 4 and later < 2 * used, "the check is broken"
assert held == chunk.numel() * 4, "the behaviour changed: the window is copied"
PY
