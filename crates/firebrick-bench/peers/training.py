"""Optimiser steps: language modelling, preference modelling and classification."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F

from model import Decoder, ScoredDecoder, open_adapted, open_classifier, open_model, save_gradients

CHECKED_STEPS = 3


def lm_loss(model, ids):
    # The last position predicts nothing: it is left out before the largest product.
    logits = model.unembed(model.hidden(ids)[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def pair_loss(model, pairs, ranked_weight, lm_weight):
    """Better sequences are the first half of `pairs`; one pass reads both halves."""
    hidden = model.body.hidden(pairs)
    scores = model.head(hidden[:, -1]).flatten().float()
    chosen, rejected = scores.chunk(2)
    count = len(chosen)
    logits = model.body.unembed(hidden[:count, :-1])
    # All sequences are of one length, so that the mean over tokens is the mean over rows of their means.
    lm = F.cross_entropy(logits.flatten(0, 1).float(), pairs[:count, 1:].flatten())
    return ranked_weight * -F.logsigmoid(chosen - rejected).mean() + lm_weight * lm


class Training:
    """Forward and backward pass, clipping, fused AdamW."""

    def __init__(self, job, folder, setting):
        task, fit = job["task"], job["fit"]
        if task["kind"] == "lm":
            self.model = open_model(Decoder, folder / "model")
            ids = torch.tensor(task["rows"])
            loss = lambda: lm_loss(self.model, ids)
        elif task["kind"] == "images":
            self.model = open_classifier(folder)
            height, width, channels = job["config"]["image"]
            pixels = torch.tensor(task["pixels"]).view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
            if "channels-last" in setting:
                self.model.to(memory_format=torch.channels_last)
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            labels = torch.tensor(task["labels"])
            loss = lambda: F.cross_entropy(self.model(pixels).float(), labels)
        else:
            lora = task["lora"]
            self.model = open_adapted(folder, lora) if lora else open_model(ScoredDecoder, folder / "model")
            ids = torch.tensor(task["chosen"] + task["rejected"])
            loss = lambda: pair_loss(self.model, ids, task["ranked_weight"], task["lm_weight"])
        if "compile" in setting:
            loss = torch.compile(loss)
        self.loss = loss
        self.precision = lambda: torch.autocast("cpu", torch.bfloat16) if "bf16" in setting else nullcontext()
        adamw = fit["adamw"]
        trained = [part for part in self.model.parameters() if part.requires_grad]
        matrices = [part for part in trained if part.dim() > 1]
        vectors = [part for part in trained if part.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": adamw["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
            lr=fit["learning_rate"],
            betas=(adamw["beta_1"], adamw["beta_2"]),
            eps=adamw["epsilon"],
            fused=True,
        )
        self.clip_norm = fit["clip_norm"]

    def gradient(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision():
            loss = self.loss()
        loss.backward()
        return loss

    def step(self):
        loss = self.gradient()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return loss.item()

    def check(self, path):
        self.gradient()
        save_gradients(self.model, path)
        return {"losses": [self.step() for _ in range(CHECKED_STEPS)], "tokens": []}

    def run(self, clock, steps):
        return clock.each(self.step, steps)
