#!/usr/bin/env bash
# transformers 5.23.0, gguf 0.19.0: a Llama file loses its RoPE scaling.
#
# A GGUF file states the scaling of a Llama 3.1 model as the tensor rope_freqs.weight (one factor
# for each frequency), and linear scaling as the keys llama.rope.scaling.*. The loader of
# transformers reads neither for the architecture llama: the model comes back with rope_type
# "default", without a warning, and its logits are those of another model. The file without
# scaling shows that the rest of the file is right.
#
# Seen: file      rope_type read  largest difference of the logits, positions 0-3 and 200-255
#       default   default         0.00   0.00
#       llama3    default         0.21   7.45   (the logits' standard deviation is 1.57)
#       linear    default         2.97   6.66
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

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS = {
    "default": {},
    "llama3": {**LLAMA3, "original_max_position_embeddings": 64},
    "linear": {"factor": 4.0},
}


def build(rope_type):
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, **SCALINGS[rope_type]}
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = LlamaConfig(**shape, **heads, rope_parameters=rope, initializer_range=0.2)
    return LlamaForCausalLM(config).eval()


def write(path, model, rope_type):
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(64)
    if rope_type == "llama3":
        plain = build("default").model.rotary_emb.inv_freq
        factors = plain / model.model.rotary_emb.inv_freq
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    if rope_type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        if "q_proj" in name or "k_proj" in name:  # the file pairs neighbouring rows of a head
            tensor = tensor.unflatten(0, (-1, 2, 8)).transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ids = torch.randint(64, (1, 256), generator=torch.Generator().manual_seed(1))
seen = {}
for rope_type in SCALINGS:
    twin = build(rope_type)
    write(f"{rope_type}.gguf", twin, rope_type)
    file = {"gguf_file": f"{rope_type}.gguf", "dtype": torch.float32}
    loaded = AutoModelForCausalLM.from_pretrained(".", **file)
    with torch.no_grad():
        far = (loaded(ids).logits - twin(ids).logits).abs().amax(-1)[0]
    read = loaded.config.rope_parameters["rope_type"]
    seen[rope_type] = (read, far[200:].max().item())
    print(f"{rope_type:8} {read:8} {far[:4].max():.2f} {far[200:].max():.2f}")

assert seen["default"][1] < 1e-3, "the file without scaling is read wrongly: the check is broken"
for rope_type in ("llama3", "linear"):
    read, far = seen[rope_type]
    assert read == "default" and far > 1, f"the behaviour changed: {rope_type} is read"
PY
