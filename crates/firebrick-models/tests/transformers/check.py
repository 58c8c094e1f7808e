"""Holds folders that Firebrick wrote against transformers: the same tokens, scores and log-probabilities.

    pip install torch==2.15.0 transformers==5.24.0 safetensors
    FIREBRICK_FOLDERS=folders cargo nextest run -p firebrick-models --test reward folders_are_read_back
    python check.py folders        # prints the largest difference of each folder; fails above 1e-4

Each folder has an `expected.json`: `conversations` with their `tokens` and, of a reward model, their `scores`, or of a language model the
`log_probs` of all tokens but the first.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

LIMIT = 1e-4


def padded(tokenizer, sequences, side):
    """A batch of sequences of unequal length."""
    tokenizer.padding_side = side
    return tokenizer.pad({"input_ids": sequences}, return_tensors="pt")


def check(folder):
    expected = json.loads((folder / "expected.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if "scores" not in expected:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        worst = 0.0
        for tokens, log_probs in zip(expected["tokens"], expected["log_probs"]):
            ids = torch.tensor([tokens])
            found = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            worst = max(worst, (found - torch.tensor(log_probs)).abs().max().item())
        return f"{type(model).__name__}: log-probabilities", worst
    model, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ["missing_keys", "unexpected_keys", "mismatched_keys"]), loading
    assert model.config.num_labels == 1 and tokenizer.pad_token_id == model.config.pad_token_id is not None
    for conversation, tokens in zip(expected["conversations"], expected["tokens"]):
        found = tokenizer.apply_chat_template(conversation, tokenize=True)["input_ids"]
        assert found == tokens, f"{folder}: {tokenizer.decode(found)!r} for {tokenizer.decode(tokens)!r}"
        assert tokenizer.pad_token_id not in tokens
    scores = torch.tensor(expected["scores"])
    assert tokenizer.padding_side == "right" and len({len(tokens) for tokens in expected["tokens"]}) > 1
    found = model.eval()(**padded(tokenizer, expected["tokens"], "right")).logits[:, 0]
    worst = (found - scores).abs().max().item()
    if "GPT2" not in type(model).__name__:
        # Positions that are learned are counted from the padding.
        found = model(**padded(tokenizer, expected["tokens"], "left")).logits[:, 0]
        worst = max(worst, (found - scores).abs().max().item())
    spread = f"{scores.min():.3f} to {scores.max():.3f}, padded with {tokenizer.pad_token!r}"
    return f"{type(model).__name__}: scores {spread}", worst


with torch.no_grad():
    worst = 0.0
    for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/expected.json")):
        what, difference = check(folder)
        print(f"{folder.name:<18} {what}: largest difference {difference:.2e}")
        worst = max(worst, difference)
assert worst < LIMIT, worst
