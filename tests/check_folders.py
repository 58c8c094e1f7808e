"""Holds the folders that commands leave against transformers: scores of reward models, log-probabilities of language models.

    pip install torch transformers
    python tests/check_folders.py target/debug/firebrick runs/reward/model runs/sft/model ...

Fifty texts of unequal length are scored by transformers in one padded batch. Scores differ by less than the limit, which is 1e-4,
or 1e-3 for models of more than 50 million parameters.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

WORDS = "the of oak is a number tree answer yes no why people read seven good".split()


def conversations(count, longest):
    """Questions with answers of many lengths."""
    draw = random.Random(17)
    text = lambda: " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, longest)))
    turn = lambda role: {"role": role, "content": text().capitalize()}
    return [[turn("user"), turn("assistant")] for _ in range(count)]


def firebrick(*words):
    return subprocess.run([sys.argv[1], *map(str, words)], check=True, capture_output=True, text=True).stdout


def reward_model(folder, rows):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "rows.jsonl"
        data.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
        ours = [json.loads(line)["score"] for line in firebrick("score", "--model", folder, "--data", data).splitlines()]
    ids = [tokenizer.apply_chat_template(row, tokenize=True, return_dict=False) for row in rows]
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits[:, 0].tolist()
    return model, max(abs(a - b) for a, b in zip(ours, theirs, strict=True)), len(rows)


def language_model(folder, rows):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    worst = 0.0
    for row in rows[:10]:
        listed = json.loads(firebrick("model", "logprobs", folder, "--text", row[1]["content"]))
        ids = torch.tensor([[token["id"] for token in listed["tokens"]]])
        if ids.shape[1] < 2:
            continue
        with torch.no_grad():
            table = model(ids).logits[0].log_softmax(-1)
        theirs = table[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist()
        ours = [token["log_prob"] for token in listed["tokens"][1:]]
        worst = max(worst, *(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
    return model, worst, len(rows[:10])


def main():
    failed = False
    for folder in sys.argv[2:]:
        classes = json.loads((Path(folder) / "config.json").read_text())["architectures"]
        is_reward_model = classes[0].endswith("ForSequenceClassification")
        rows = conversations(50, 40)
        model, worst, count = (reward_model if is_reward_model else language_model)(folder, rows)
        limit = 1e-3 if model.num_parameters() > 50e6 else 1e-4
        print(f"{folder}: {classes[0]}, {count} texts, differ by at most {worst:.1e} (limit {limit:.0e})")
        failed |= worst >= limit
    sys.exit(failed)


main()
