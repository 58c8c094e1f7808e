"""Our models in PyTorch: the same layers in the same order, under the same names."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


class Turned:
    """Models whose linear maps our files keep the other way round."""

    def exchanged(self, name, tensor):
        """Our name and order of axes of a parameter; twice gives the first order again."""
        part = self.get_submodule(name.rpartition(".")[0])
        return name, tensor.T if isinstance(part, nn.Linear) and tensor.dim() > 1 else tensor


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


class Lora(nn.Module):
    """A frozen linear map with an adapter beside it."""

    def __init__(self, frozen, rank, alpha):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a = nn.Parameter(torch.empty(rank, frozen.in_features))
        self.b = nn.Parameter(torch.empty(frozen.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x):
        return self.frozen(x) + F.linear(F.linear(x, self.a) * self.scale, self.b)


class LlamaBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        d_model, d_ff, kinds = config["d_model"], config["d_ff"], config["architecture"]
        self.heads = config["heads"]
        self.key_value_heads = kinds["key_value_heads"] or self.heads
        self.d_head = d_model // self.heads
        self.ln_1 = nn.RMSNorm(d_model, eps=kinds["norm_epsilon"])
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(d_model, (self.heads + 2 * self.key_value_heads) * self.d_head, bias=False)
        self.attn.proj = nn.Linear(d_model, d_model, bias=False)
        self.ln_2 = nn.RMSNorm(d_model, eps=kinds["norm_epsilon"])
        self.mlp = nn.Module()
        self.mlp.fc = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.mlp.proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x, cos, sin):
        batch, seq, d_model = x.shape
        split = self.attn.qkv(self.ln_1(x)).view(batch, seq, -1, self.d_head).transpose(1, 2)
        q, k, v = split.split([self.heads, self.key_value_heads, self.key_value_heads], 1)
        turned = lambda part: part * cos + torch.cat([-part[..., self.d_head // 2 :], part[..., : self.d_head // 2]], -1) * sin
        read = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True, enable_gqa=True)
        x = x + self.attn.proj(read.transpose(1, 2).reshape(batch, seq, d_model))
        gate, up = self.mlp.fc(self.ln_2(x)).chunk(2, -1)
        return x + self.mlp.proj(F.silu(gate) * up)


class Llama(nn.Module):
    """Llama's architecture with tied embeddings and adapters beside every linear map of the blocks."""

    def __init__(self, config, lora):
        super().__init__()
        self.wte = nn.Embedding(config["vocab"], config["d_model"])
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config["n_layer"]))
        self.ln_f = nn.RMSNorm(config["d_model"], eps=config["architecture"]["norm_epsilon"])
        self.requires_grad_(False)
        for block in self.blocks:
            for part in (block.attn, block.mlp):
                for name, linear in list(part.named_children()):
                    setattr(part, name, Lora(linear, lora["rank"], lora["alpha"]))
        rotary = config["architecture"]["positions"]["rotary"]
        frequencies = rotary["theta"] ** (-torch.arange(0, rotary["dims"], 2) / rotary["dims"])
        angles = torch.outer(torch.arange(config["context"]), frequencies).repeat(1, 2)
        self.cos, self.sin = angles.cos(), angles.sin()

    def hidden(self, ids):
        x = self.wte(ids)
        seq = ids.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:seq], self.sin[:seq])
        return self.ln_f(x)

    def unembed(self, hidden):
        return F.linear(hidden, self.wte.weight)


class Decoder(Turned, nn.Module):
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


class ScoredDecoder(Turned, nn.Module):
    """A decoder with a linear head of one output."""

    def __init__(self, config):
        super().__init__()
        self.body = Decoder(config)
        self.head = nn.Linear(config["d_model"], 1)


class AdaptedLlama(nn.Module):
    """The same with adapters and the head trained, the rest frozen."""

    def __init__(self, config, lora):
        super().__init__()
        self.body = Llama(config, lora)
        self.head = nn.Linear(config["d_model"], 1)

    def exchanged(self, name, tensor):
        path, _, last = name.rpartition(".")
        if last in ("a", "b"):
            return f"{path}.lora.{last}", tensor.T
        return name.replace(".frozen", ""), tensor.T if ".frozen" in name or name == "head.weight" else tensor


class Classifier(nn.Module):
    """Convolutions of windows of 3, each rectified and pooled, and linear maps."""

    def __init__(self, config):
        super().__init__()
        self.maps, self.layers, self.turns = nn.ModuleList(), [], []
        shape = list(config["image"])
        for layer in config["layers"]:
            kind = layer["kind"]
            if kind == "conv":
                size, stride, padding = layer["size"], layer["stride"], layer["padding"]
                self.maps.append(nn.Conv2d(shape[2], layer["channels"], size, stride, padding))
                self.turns.append((size, size, shape[2], layer["channels"]))
                shape = [(side + 2 * padding - size) // stride + 1 for side in shape[:2]] + [layer["channels"]]
                self.layers.append(self.maps[-1])
            elif kind == "max-pool":
                size, stride, padding = layer["size"], layer["stride"], layer["padding"]
                self.layers.append(nn.MaxPool2d(size, stride, padding))
                shape = [(side + 2 * padding - size) // stride + 1 for side in shape[:2]] + shape[2:]
            elif kind == "relu":
                self.layers.append(nn.ReLU())
            else:
                height, width, channels = shape
                self.layers.append(nn.Flatten())
                self.maps.append(nn.Linear(height * width * channels, layer["width"]))
                self.turns.append((height, width, channels, layer["width"]))
                self.layers.append(self.maps[-1])
                shape = [1, 1, layer["width"]]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def turn(self, name):
        """How our files keep a parameter: rows, columns, channels and outputs; none for a bias."""
        _, index, kind = name.split(".")
        return None if kind == "bias" else self.turns[int(index)]

    def exchanged(self, name, tensor):
        turn = self.turn(name)
        if turn is None:
            return name, tensor
        height, width, channels, out = turn
        return name, tensor.view(out, channels, height, width).permute(2, 3, 1, 0).reshape(-1, out)

    def load(self, tensors):
        """Takes parameters of our files, whose axes are rows, columns, channels and outputs."""
        for name, parameter in self.named_parameters():
            turn, tensor = self.turn(name), tensors[name]
            turned = tensor if turn is None else tensor.view(turn).permute(3, 2, 0, 1)
            parameter.data.copy_(turned.reshape(parameter.shape))


def open_classifier(folder):
    model = Classifier(config_of(folder))
    model.load(load_file(folder / "model" / "model.safetensors"))
    return model


def open_adapted(folder, lora):
    """The model of a folder's weights and adapters."""
    tensors = load_file(folder / "model" / "model.safetensors") | load_file(folder / "adapters.safetensors")
    return filled(AdaptedLlama(config_of(folder), lora), tensors)


def open_model(kind, folder):
    """A model with the weights of a folder."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    return filled(kind(config), load_file(folder / "model.safetensors"))


def config_of(folder):
    return json.loads((folder / "model" / "config.json").read_text())


def filled(model, tensors):
    """The model with parameters of our files."""
    for name, parameter in model.named_parameters():
        ours, _ = model.exchanged(name, parameter.data)
        _, theirs = model.exchanged(name, tensors[ours])
        parameter.data.copy_(theirs)
    return model


def save_gradients(model, path):
    """Writes the gradients under our names and in our shapes."""
    pairs = [(name, part.grad) for name, part in model.named_parameters() if part.grad is not None]
    save_file({ours: tensor.contiguous() for ours, tensor in (model.exchanged(*pair) for pair in pairs)}, path)
