#!/usr/bin/env bash
# transformers 5.23.0, gguf 0.19.0: the head size of a Qwen3 GGUF file is not read.
#
# Qwen3 states its head size apart (qwen3.attention.key_length), as it is not hidden_size / heads.
# The loader maps the key for qwen3moe, but not for qwen3, and takes the config's default of 128:
# right for a model with that size, an error for every other one.
#
# Seen: the file says 32, the config 128; loading ends in
#       RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising an error. [...]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
config = Qwen3Config(**shape, num_attention_heads=4, num_key_value_heads=2, head_dim=32)
model = Qwen3ForCausalLM(config)
writer = gguf.GGUFWriter("model.gguf", "qwen3")
for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
    add(64)
writer.add_block_count(2)
writer.add_head_count(4)
writer.add_head_count_kv(2)
writer.add_key_length(32)
writer.add_value_length(32)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_vocab_size(64)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 2)
for name, tensor in model.state_dict().items():
    writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = AutoConfig.from_pretrained(".", gguf_file="model.gguf").head_dim
print("head size: file 32, config", read)
assert read == 128, "the behaviour changed: the head size is read"
try:
    AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf", dtype=torch.float32)
except RuntimeError as error:
    print("RuntimeError:", error)
else:
    raise SystemExit("the behaviour changed: the file is opened")
PY
