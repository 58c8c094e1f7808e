"""Makes the weights and activations that `torchvision.rs` is held to.

    python make.py            narrow networks, beside this file
    python make.py --full DIR torchvision's own, with random weights, for FIREBRICK_TORCHVISION=DIR

Made with torch 2.15.0, torchvision 0.29.2, safetensors 0.8.0, numpy 2.4.6.
"""

import argparse
import json
import pathlib

import numpy
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import vgg

PROBES = 12


def described(network, image):
    """The layers of a network as a plan of ours; adaptive pooling does nothing at the size the plans are for."""
    layers = []
    modules = [m for m in network.modules() if not list(m.children())]
    for index, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            layers.append(dict(kind="conv", channels=module.out_channels, size=module.kernel_size[0],
                               stride=module.stride[0], padding=module.padding[0]))
        elif isinstance(module, nn.ReLU):
            layers.append(dict(kind="relu"))
        elif isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            kind = "max-pool" if isinstance(module, nn.MaxPool2d) else "avg-pool"
            layers.append(dict(kind=kind, size=module.kernel_size, stride=module.stride, padding=module.padding))
        elif isinstance(module, nn.Dropout):
            layers.append(dict(kind="dropout", probability=module.p))
        elif isinstance(module, nn.Linear):
            layers.append(dict(kind="linear", width=module.out_features))
        elif not isinstance(module, (nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.Flatten)):
            raise ValueError(module)
    return dict(image=image, layers=layers)


def activations(network, image):
    """What every layer of ours gives: a few numbers each, in the order height, width, channels."""
    count = image[0] * image[1] * image[2]
    x = numpy.sin(0.37 * numpy.arange(count) + 0.11).astype(numpy.float32).reshape(1, *image)
    seen, shape = [], []

    def see(module, _, y):
        if y.dim() == 4:
            shape[:] = y.shape
        elif isinstance(module, nn.Dropout) and y.numel() == numpy.prod(shape):
            y = y.reshape(shape)  # it reads what was flattened channel by channel
        y = y.permute(0, 2, 3, 1) if y.dim() == 4 else y
        y = y.detach().flatten().numpy()
        step = max(1, len(y) // PROBES)
        probe = dict(length=len(y), step=step, values=[float(v) for v in y[::step][:PROBES]])
        if isinstance(module, nn.BatchNorm2d):
            seen[-1] = probe  # it is folded into the convolution before it
        elif not isinstance(module, (nn.AdaptiveAvgPool2d, nn.Flatten)):
            seen.append(probe)

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(see)
    with torch.no_grad():
        network(torch.from_numpy(x).permute(0, 3, 1, 2))
    return seen


def write(folder, name, network, image):
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in [(module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2)]:
                nn.init.uniform_(tensor, low, high)
    save_file(dict(network.state_dict()), folder / f"{name}.safetensors")
    golden = dict(config=described(network, image), activations=activations(network, image))
    (folder / f"{name}.json").write_text(json.dumps(golden, indent=1) + "\n")


def sequential(features, pool, classifier):
    """The names and the order of torchvision's classes."""
    network = nn.Sequential()
    network.add_module("features", features)
    if pool is not None:
        network.add_module("avgpool", pool)
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", classifier)
    return network


def narrow_alexnet():
    features = nn.Sequential()
    for index, module in enumerate(torchvision.models.alexnet().features):
        if isinstance(module, nn.Conv2d):
            inputs = 3 if module.in_channels == 3 else module.in_channels // 16
            module = nn.Conv2d(inputs, module.out_channels // 16, module.kernel_size, module.stride, module.padding)
        features.add_module(str(index), module)
    classifier = nn.Sequential(nn.Dropout(), nn.Linear(16 * 36, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 24),
                               nn.ReLU(), nn.Linear(24, 7))
    return sequential(features, nn.AdaptiveAvgPool2d(6), classifier)


def narrow_vgg(plan, norm):
    features = vgg.make_layers(plan, batch_norm=norm)
    classifier = nn.Sequential(nn.Linear(12 * 4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5))
    return sequential(features, nn.AdaptiveAvgPool2d(2), classifier)


class LeNet(nn.Module):
    """Names as tutorials give them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1, self.pool1 = nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2, 2)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2, 2)
        self.fc1, self.relu3 = nn.Linear(400, 120), nn.ReLU()
        self.fc2, self.relu4, self.fc3 = nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool2(self.relu2(self.conv2(self.pool1(self.relu1(self.conv1(x))))))
        return self.fc3(self.relu4(self.fc2(self.relu3(self.fc1(x.flatten(1))))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", type=pathlib.Path)
    full = parser.parse_args().full
    torch.manual_seed(1)
    if full:
        full.mkdir(parents=True, exist_ok=True)
        for name in ["alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]:
            write(full, name, getattr(torchvision.models, name)(), [224, 224, 3])
        return
    here = pathlib.Path(__file__).parent
    write(here, "lenet", LeNet(), [28, 28, 1])
    write(here, "alexnet", narrow_alexnet(), [224, 224, 3])
    plan = [4, "M", 8, "M", 12, 12, "M", 12, "M"]
    write(here, "vgg", narrow_vgg(plan, False), [32, 32, 3])
    write(here, "vgg_bn", narrow_vgg(plan, True), [32, 32, 3])


main()
