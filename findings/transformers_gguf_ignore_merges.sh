#!/usr/bin/env bash
# transformers 5.23.0, gguf 0.19.0: the tokenizer of a Llama 3 GGUF file does not ignore merges.
#
# tokenizer.ggml.pre = "llama-bpe" stands for a vocabulary made from tiktoken: a word that is a
# token as a whole is that token, even where no chain of merges leads to it (`ignore_merges` of a
# tokenizer.json). transformers takes the split of that name, but leaves ignore_merges off, so
# that such a word falls into pieces.
#
# Seen: 'abcd' is ['a', 'bc', 'd']; with ignore_merges ['abcd']
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
import gguf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "bc", "abcd", "<|end_of_text|>"]
writer = gguf.GGUFWriter("model.gguf", "llama")
for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
    add(64)
for add in (writer.add_block_count, writer.add_head_count, writer.add_head_count_kv):
    add(1)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("llama-bpe")
writer.add_token_list(tokens)
writer.add_token_merges(["b c"])
writer.add_token_types([gguf.TokenType.NORMAL] * 258 + [gguf.TokenType.CONTROL])
writer.add_eos_token_id(258)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

vocabulary = {token: id for id, token in enumerate(tokens)}
wanted = Tokenizer(models.BPE(vocabulary, [("b", "c")], ignore_merges=True))
wanted.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
loaded = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")
print("ignore_merges", loaded.backend_tokenizer.model.ignore_merges)
print("loaded", loaded.tokenize("abcd"), "with ignore_merges", wanted.encode("abcd").tokens)

assert wanted.encode("abcd").tokens == ["abcd"], "the check is broken"
assert loaded.tokenize("abcd") == ["a", "bc", "d"], "the behaviour changed: merges are ignored"
PY
