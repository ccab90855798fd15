#!/usr/bin/env bash
# transformers 5.23.0: AutoTokenizer opens a folder of model_type qwen2 with a pre-tokenizer of
# its own.
#
# Whatever tokenizer.json and tokenizer_class say, a qwen2 folder becomes a Qwen2Tokenizer, which
# keeps the vocabulary and merges but puts its own split in the place of the stored one. A folder
# with another split (here digits in groups of three) is opened without a warning and gives other
# ids than it was saved with. The same files with a config of qwen3 or llama are opened as they
# are. PreTrainedTokenizerFast.from_pretrained reads what is stored.
#
# Seen: '123' is ['123'] as saved; opened: llama ['123'], qwen3 ['123'], qwen2 ['1', '2', '3']
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast
from transformers import Qwen2Config, Qwen3Config

tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "123", "<|end|>"]
vocabulary = {token: id for id, token in enumerate(tokens)}
built = Tokenizer(models.BPE(vocabulary, [("1", "2"), ("12", "3")]))
built.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
saved = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<|end|>")
seen = {}
for config in (LlamaConfig(), Qwen3Config(), Qwen2Config()):
    config.save_pretrained(config.model_type)
    saved.save_pretrained(config.model_type)
    opened = AutoTokenizer.from_pretrained(config.model_type)
    seen[config.model_type] = opened.tokenize("123")
    print(config.model_type, type(opened).__name__, seen[config.model_type])
fast = PreTrainedTokenizerFast.from_pretrained("qwen2").tokenize("123")
print("saved", saved.tokenize("123"), "PreTrainedTokenizerFast", fast)

assert saved.tokenize("123") == fast == seen["llama"] == seen["qwen3"] == ["123"], "check broken"
assert seen["qwen2"] == ["1", "2", "3"], "the behaviour changed: qwen2 is opened as saved"
PY
