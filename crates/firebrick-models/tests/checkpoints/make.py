"""Small random checkpoints of every architecture, and the logits that transformers gives for them.

    pip install torch==2.15.0 transformers==5.24.0 safetensors
    python make.py        # writes a folder for each architecture beside this file
"""

import json
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

HERE = Path(__file__).parent
SMALL = dict(vocab_size=11, bos_token_id=None, eos_token_id=None, pad_token_id=None)
WIDE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, max_position_embeddings=32)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
CONFIGS = {
    "gpt2": GPT2Config(n_positions=32, n_embd=16, n_layer=2, n_head=4, **SMALL),
    "gpt_neox": GPTNeoXConfig(
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5), **WIDE, **SMALL
    ),
    "gpt_neox_serial": GPTNeoXConfig(
        use_parallel_residual=False,
        rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=1.0),
        **WIDE,
        **SMALL,
    ),
    "llama": LlamaConfig(num_key_value_heads=2, **WIDE, **SMALL),
    "llama3": LlamaConfig(
        num_key_value_heads=1, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, **WIDE, **SMALL
    ),
    "mistral": MistralConfig(num_key_value_heads=2, sliding_window=None, **WIDE, **SMALL),
    "qwen2": Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, **WIDE, **SMALL),
}
IDS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5, 2, 3, 5, 3]]

for name, config in CONFIGS.items():
    torch.manual_seed(17)
    config.dtype = "float32"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        # Larger than at their start, and biases and norms unlike 0 and 1, so that every tensor shows in the logits.
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        logits = model(torch.tensor(IDS)).logits
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "logits.json").write_text(json.dumps({"ids": IDS, "logits": logits.tolist()}) + "\n")
