#!/usr/bin/env bash
# transformers 5.23.0, gguf 0.19.0: one end token of a GGUF file is kept, so that a chat runs on.
#
# A GGUF file names the end of a text (eos_token_id), of a turn (eot_token_id) and of a message
# (eom_token_id), and llama.cpp stops at any of them. transformers reads the first alone:
# generate() goes past the end of the turn. The model here is made by hand: after token n it says
# n + 1.
#
# Seen: the file says eos 20, eot 8; the loaded generation_config says eos 20;
#       generate() from token 5: [6, 7, 8, 9, 10, ..., 20]
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
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

EOS, EOT, SIZE = 20, 8, 32

heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
config = LlamaConfig(vocab_size=SIZE, hidden_size=SIZE, intermediate_size=SIZE, **heads)
model = LlamaForCausalLM(config)
with torch.no_grad():
    for weight in model.model.layers.parameters():
        weight.zero_()  # the layer adds nothing: what comes out is the last token's embedding
    model.model.embed_tokens.weight.copy_(torch.eye(SIZE))
    model.lm_head.weight.copy_(torch.eye(SIZE).roll(1, dims=0))

writer = gguf.GGUFWriter("model.gguf", "llama")
for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
    add(SIZE)
for add in (writer.add_block_count, writer.add_head_count, writer.add_head_count_kv):
    add(1)
writer.add_rope_dimension_count(SIZE)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_vocab_size(SIZE)
writer.add_eos_token_id(EOS)
writer.add_eot_token_id(EOT)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
for name, tensor in model.state_dict().items():
    writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

loaded = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf", dtype=torch.float32)
prompt = torch.tensor([[5]])
mask = torch.ones_like(prompt)
options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
answer = loaded.generate(prompt, attention_mask=mask, **options)[0, 1:].tolist()
print("file: eos", EOS, "eot", EOT, "loaded:", loaded.generation_config.eos_token_id)
print("answer", answer)

assert answer[:3] == [6, 7, 8], "the model does not count: the check is broken"
assert answer[-1] == EOS, "the behaviour changed: the answer ends at the end of the turn"
PY
