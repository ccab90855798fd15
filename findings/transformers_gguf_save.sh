#!/usr/bin/env bash
# transformers 5.23.0, gguf 0.19.0: a model from a GGUF file cannot be saved, though its weights
# are plain.
#
# The weights of a Llama are expanded while they are read: every parameter is a plain float32
# tensor. save_pretrained still refuses the model as quantized. A copy of its state in a model
# made from the same config is saved.
#
# Seen: dtypes {torch.float32}; ValueError: The model is quantized with gguf and is not serializable
#       [...]; the copy writes model.safetensors
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PY'
import os

import gguf
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2))
writer = gguf.GGUFWriter("model.gguf", "llama")
for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
    add(64)
writer.add_block_count(1)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_rope_dimension_count(32)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_vocab_size(64)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
for name, tensor in model.state_dict().items():
    writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

loaded = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf", dtype=torch.float32)
dtypes = {parameter.dtype for parameter in loaded.parameters()}
print("dtypes", dtypes)
assert dtypes == {torch.float32}, "the behaviour changed: the weights are not expanded"
try:
    loaded.save_pretrained("saved")
except ValueError as error:
    print("ValueError:", error)
else:
    raise SystemExit("the behaviour changed: the model is saved")
copy = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2))
copy.load_state_dict(loaded.state_dict())
copy.save_pretrained("copied")
print("the copy:", sorted(os.listdir("copied")))
assert "model.safetensors" in os.listdir("copied")
PY
