#!/usr/bin/env bash
# transformers 5.23.0, gguf 0.19.0: control tokens outside the byte alphabet get ids that the
# model does not have.
#
# DeepSeek's tokenizers mark ends and turns with control tokens such as "<｜end▁of▁sentence｜>",
# whose bars and blocks are not letters of the byte-level alphabet. The file here has these
# tokens. The tokenizer of transformers does not take these for control tokens. The two that the
# file names as first and last token are added once more, after the end of the vocabulary: an id
# past the embedding table. The others are cut into bytes. "<|im_end|>", plain ASCII, is read
# well.
#
# Seen: file: 261 tokens, bos 257, eos 258; loaded: 264 tokens, bos 262, eos 263.
#       "<｜User｜>" is 12 tokens; "<|im_end|>" is [260], its id in the file
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
import gguf
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

BEGIN, END, USER = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"

tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", BEGIN, END, USER, "<|im_end|>"]
writer = gguf.GGUFWriter("model.gguf", "qwen2")
for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
    add(64)
for add in (writer.add_block_count, writer.add_head_count, writer.add_head_count_kv):
    add(1)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("deepseek-r1-qwen")
writer.add_token_list(tokens)
writer.add_token_merges(["a b"])
writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 4)
writer.add_bos_token_id(tokens.index(BEGIN))
writer.add_eos_token_id(tokens.index(END))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

loaded = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")
user = loaded(USER, add_special_tokens=False)["input_ids"]
plain = loaded("<|im_end|>", add_special_tokens=False)["input_ids"]
print("file  ", len(tokens), "tokens, bos", tokens.index(BEGIN), "eos", tokens.index(END))
print("loaded", len(loaded), "tokens, bos", loaded.bos_token_id, "eos", loaded.eos_token_id)
print(USER, user, "<|im_end|>", plain)

assert plain == [260], "plain control tokens are read otherwise too: the check is broken"
assert loaded.eos_token_id >= len(tokens), "the behaviour changed: the end token has its own id"
assert len(user) > 1, "the behaviour changed: the user's token is whole"
PY
