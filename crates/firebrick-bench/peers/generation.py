"""Greedy continuations by `transformers`, and by a loop of our own that leaves out all that `generate` does beside."""

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from model import Decoder, open_model


class Generation:
    def __init__(self, job, folder, setting):
        task = job["task"]
        self.prompts = torch.tensor(task["prompts"])
        self.new_tokens = task["new_tokens"]
        dtype = torch.bfloat16 if "bf16" in setting else torch.float32
        ours = job["config"]["architecture"]["positions"] == "learned"
        if "loop" in setting and ours:
            self.model = open_model(Decoder, folder / "model").to(dtype)
            if "compile" in setting:
                self.model.hidden = torch.compile(self.model.hidden)
            self.generate = self.loop
            return
        self.model = AutoModelForCausalLM.from_pretrained(folder / "hugging-face", dtype=dtype)
        if "loop" in setting:
            self.generate = self.cached_loop
            return
        self.options = {}
        if "compile" in setting:
            self.model.forward = torch.compile(self.model.forward)
            self.options["cache_implementation"] = "static"
        self.generate = self.by_transformers

    def by_transformers(self):
        count = self.prompts.shape[1]
        written = self.model.generate(
            self.prompts,
            attention_mask=torch.ones_like(self.prompts),
            do_sample=False,
            min_new_tokens=self.new_tokens,
            max_new_tokens=self.new_tokens,
            pad_token_id=0,
            **self.options,
        )
        return written[:, count:]

    def loop(self):
        batch, past = self.prompts.shape
        caches = self.model.caches(batch, past + self.new_tokens)
        ids, read, written = self.prompts, 0, []
        for _ in range(self.new_tokens):
            hidden = self.model.hidden(ids, caches, read)[:, -1:]
            read += ids.shape[1]
            ids = self.model.unembed(hidden).argmax(-1)
            written.append(ids)
        return torch.cat(written, 1)

    def cached_loop(self):
        ids, cache, written = self.prompts, None, []
        for _ in range(self.new_tokens):
            told = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = told.past_key_values
            ids = told.logits.argmax(-1)
            written.append(ids)
        return torch.cat(written, 1)

    @torch.inference_mode()
    def check(self, _path):
        logits = self.model(self.prompts).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), self.prompts[:, 1:].flatten())
        return {"losses": [loss.item()], "tokens": self.generate().tolist()}

    def run(self, clock, steps):
        with torch.inference_mode():
            return clock.each(self.generate, steps)
