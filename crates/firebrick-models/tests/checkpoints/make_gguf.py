"""The Llama checkpoint beside this file as GGUF, and blocks of every number format with what they hold.

    pip install gguf==0.19.0 torch==2.15.0 safetensors numpy
    python make.py && python make_gguf.py
"""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent
CONFIG = json.loads((HERE / "llama/config.json").read_text())
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permuted(weights, heads):
    """Rows of a head with the two halves of every turned pair beside each other, as llama.cpp turns them."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


writer = gguf.GGUFWriter(HERE / "llama.gguf", "llama")
writer.add_context_length(CONFIG["max_position_embeddings"])
writer.add_embedding_length(CONFIG["hidden_size"])
writer.add_block_count(CONFIG["num_hidden_layers"])
writer.add_feed_forward_length(CONFIG["intermediate_size"])
writer.add_head_count(CONFIG["num_attention_heads"])
writer.add_head_count_kv(CONFIG["num_key_value_heads"])
writer.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])
writer.add_rope_freq_base(CONFIG["rope_parameters"]["rope_theta"])
writer.add_token_list(["a", "b", "c"])  # a list, to be passed over
for name, weights in sorted(load_file(HERE / "llama/model.safetensors").items()):
    renamed = name.replace("model.layers.", "blk.")
    for theirs, ours in NAMES.items():
        renamed = renamed.replace(theirs, ours)
    if "q_proj" in name:
        weights = permuted(weights, CONFIG["num_attention_heads"])
    if "k_proj" in name:
        weights = permuted(weights, CONFIG["num_key_value_heads"])
    writer.add_tensor(renamed, weights)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

random = np.random.default_rng(17)
# Where scales of 16 bits stand in a block: random bytes there would be infinite now and then.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q6_K": [208], "F16": [0], "BF16": [], "F32": []}
blocks = {}
for name, scales in SCALES.items():
    kind = gguf.GGMLQuantizationType[name]
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    block = random.integers(0, 256, size=(1, size), dtype=np.uint8)
    for place in scales:
        block[0, place : place + 2] = np.frombuffer(np.float16(random.normal()).tobytes(), dtype=np.uint8)
    if name in ("BF16", "F32"):
        block[0] = np.frombuffer(np.float32(random.normal()).tobytes(), dtype=np.uint8)[-size:]
    values = gguf.quants.dequantize(block, kind) if name != "F32" else block.view(np.float32)
    blocks[name] = {"kind": int(kind), "bytes": block[0].tolist(), "values": values.reshape(-1).astype(float).tolist()}
    assert len(blocks[name]["values"]) == numbers
(HERE / "gguf_blocks.json").write_text(json.dumps(blocks) + "\n")
