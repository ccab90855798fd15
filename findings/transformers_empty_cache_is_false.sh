#!/usr/bin/env bash
# transformers 5.23.0: a new DynamicCache() is false, and its truth says nothing about tokens.
#
# len(cache) counts layers. DynamicCache() makes its layers at the first update, so that the new
# cache is false and `cache or DynamicCache()` throws the caller's cache away; the caller then
# waits for tokens that another cache got. DynamicCache(config=...) makes its layers at once and
# is true while empty.
#
# Seen: DynamicCache() False, with a config True (0 tokens each), after an update True;
#       `cache or DynamicCache()` is another cache
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
import torch
from transformers import DynamicCache, LlamaConfig

new, configured = DynamicCache(), DynamicCache(config=LlamaConfig(num_hidden_layers=2))
truth = (bool(new), bool(configured))
print("DynamicCache()", truth[0], "with a config", truth[1])
print("tokens", new.get_seq_length(), configured.get_seq_length())
replaced = (new or DynamicCache()) is not new
new.update(torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4), 0)
print("`cache or DynamicCache()` is another cache:", replaced, "after an update:", bool(new))

assert new.get_seq_length() == 3 and bool(new), "the check is broken"
assert truth == (False, True) and replaced, "the behaviour changed: an empty cache's truth"
PY
