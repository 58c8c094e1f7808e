"""Our decoder in PyTorch: the same layers in the same order, under the same names."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


class Attention(nn.Module):
    def __init__(self, d_model, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x, cache=None, past=0):
        batch, seq, d_model = x.shape
        split = self.qkv(x).view(batch, seq, 3, self.heads, d_model // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            keys, values = cache
            keys[:, :, past : past + seq] = k
            values[:, :, past : past + seq] = v
            k, v = keys[:, :, : past + seq], values[:, :, : past + seq]
        read = F.scaled_dot_product_attention(q, k, v, is_causal=seq > 1)
        return self.proj(read.transpose(1, 2).reshape(batch, seq, d_model))


class Mlp(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc = nn.Linear(d_model, d_ff)
        self.proj = nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.proj(F.gelu(self.fc(x)))


class Block(nn.Module):
    def __init__(self, d_model, heads, d_ff, epsilon):
        super().__init__()
        self.ln_1 = nn.LayerNorm(d_model, eps=epsilon)
        self.attn = Attention(d_model, heads)
        self.ln_2 = nn.LayerNorm(d_model, eps=epsilon)
        self.mlp = Mlp(d_model, d_ff)

    def forward(self, x, cache=None, past=0):
        x = x + self.attn(self.ln_1(x), cache, past)
        return x + self.mlp(self.ln_2(x))


class Decoder(nn.Module):
    """GPT-2's architecture with the exact unit and tied embeddings."""

    def __init__(self, config):
        super().__init__()
        d_model, heads = config["d_model"], config["heads"]
        epsilon = config["architecture"]["norm_epsilon"]
        self.wte = nn.Embedding(config["vocab"], d_model)
        self.wpe = nn.Embedding(config["context"], d_model)
        self.blocks = nn.ModuleList(Block(d_model, heads, config["d_ff"], epsilon) for _ in range(config["n_layer"]))
        self.ln_f = nn.LayerNorm(d_model, eps=epsilon)
        self.heads = heads

    def hidden(self, ids, caches=None, past=0):
        x = self.wte(ids) + self.wpe.weight[past : past + ids.shape[1]]
        for index, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[index], past)
        return self.ln_f(x)

    def unembed(self, hidden):
        return F.linear(hidden, self.wte.weight)

    def caches(self, batch, length):
        """Room for the keys and values of every layer."""
        weight = self.wte.weight
        shape = (2, batch, self.heads, length, weight.shape[1] // self.heads)
        return [torch.empty(shape, dtype=weight.dtype) for _ in self.blocks]


class ScoredDecoder(nn.Module):
    """A decoder with a linear head of one output."""

    def __init__(self, config):
        super().__init__()
        self.body = Decoder(config)
        self.head = nn.Linear(config["d_model"], 1)


def transposed(module):
    """The names of weights that a linear map keeps the other way round than our files do."""
    return {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def open_model(kind, folder):
    """A model with the weights of a folder."""
    config = json.loads((Path(folder) / "config.json").read_text())
    model = kind(config)
    turned = transposed(model)
    tensors = load_file(Path(folder) / "model.safetensors")
    model.load_state_dict({name: tensor.T if name in turned else tensor for name, tensor in tensors.items()})
    return model


def save_gradients(model, path):
    """Writes the gradients under our names and in our shapes."""
    turned = transposed(model)
    found = {
        name: (part.grad.T if name in turned else part.grad).contiguous()
        for name, part in model.named_parameters()
        if part.grad is not None
    }
    save_file(found, path)
