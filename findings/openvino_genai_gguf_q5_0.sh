#!/usr/bin/env bash
# openvino-genai 2026.4.1.0, gguf 0.19.0: a Q4_K_M file of a small model cannot be opened.
#
# OpenVINO GenAI names Q4_K_M among the kinds of GGUF files that it opens. Blocks of Q4_K have 256
# weights; where the rows of a matrix are no multiple of that, llama.cpp's quantiser takes Q5_0 in
# its place. So the Q4_K_M files of Qwen2.5-0.5B (rows of 896: 133 matrices in Q5_0) and of
# Gemma 3 270M (rows of 640: 81) hold Q5_0, and opening the former ends in an internal check,
# "gguf_tensor_to_f16 failed", which names neither the matrix nor its format. The same happens to a
# tiny Llama file whose layers are Q5_0; in Q8_0, Q4_0 and Q4_1 the same file opens.
#
# Seen: Q8_0 opens
#       Q4_0 opens
#       Q4_1 opens
#       Q5_0 [load_gguf] gguf_tensor_to_f16 failed
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino-genai==2026.4.1.0 gguf==0.19.0
cd "$folder"
venv/bin/python - <<'PY'
import gguf
import numpy as np
import openvino_genai

WIDTH, LAYERS = 128, 2
KINDS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0")


def byte_names():
    """The characters that GPT-2's byte-level tokenizers write bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(others))]


def write(path, kind):
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokens = [*byte_names(), "<|end|>", "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    norm, matrix = np.ones(WIDTH, np.float32), (WIDTH, WIDTH)
    table = rng.normal(0, 0.1, (len(tokens), WIDTH)).astype(np.float32)
    for name in ("token_embd.weight", "output.weight"):
        packed = gguf.quants.quantize(table, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", norm)
    format = gguf.GGMLQuantizationType[kind]
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", norm)
        for name in "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split():
            weights = rng.normal(0, 0.1, matrix).astype(np.float32)
            packed = gguf.quants.quantize(weights, format)
            writer.add_tensor(f"blk.{layer}.{name}.weight", packed, raw_dtype=format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


seen = {}
for kind in KINDS:
    write(f"{kind}.gguf", kind)
    try:
        openvino_genai.LLMPipeline(f"{kind}.gguf", "CPU")
        seen[kind] = "opens"
    except RuntimeError as error:
        seen[kind] = str(error).strip().splitlines()[-1]
    print(kind, seen[kind])

assert all(seen[kind] == "opens" for kind in KINDS[:3]), "the check is broken"
assert "failed" in seen["Q5_0"], "the behaviour changed: Q5_0 is read"
PY
