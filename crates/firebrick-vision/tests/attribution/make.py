"""Makes `goldens.json` and `model.safetensors`: Captum's attributions of a small network with random weights.

    python make.py

Made with torch 2.15.0, captum 0.9.0, safetensors 0.8.0, numpy 2.4.6.
"""

import json
import pathlib

import numpy
import torch
from captum.attr import (Deconvolution, GuidedBackprop, InputXGradient, IntegratedGradients, LayerGradCam, Occlusion,
                         Saliency)
from safetensors.torch import save_file
from torch import nn

CLASSES = [3, 0]


class Net(nn.Module):
    """Strided and padded convolutions, overlapping and mean pools, and two linear maps."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1, self.pool1 = nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2, 1)
        self.fc1, self.relu3, self.fc2 = nn.Linear(32, 9), nn.ReLU(), nn.Linear(9, 4)

    def forward(self, x):
        x = self.pool2(self.relu2(self.conv2(self.pool1(self.relu1(self.conv1(x))))))
        return self.fc2(self.relu3(self.fc1(x.flatten(1))))


def main():
    torch.manual_seed(3)
    here = pathlib.Path(__file__).parent
    net = Net().eval()
    save_file(dict(net.state_dict()), here / "model.safetensors")
    x = numpy.sin(0.37 * numpy.arange(2 * 12 * 12 * 2) + 0.11).astype(numpy.float32).reshape(2, 12, 12, 2)
    x = torch.from_numpy(numpy.abs(x)).permute(0, 3, 1, 2)

    def numbers(y):
        return [float(v) for v in y.detach().permute(0, 2, 3, 1).flatten()]

    goldens = {
        "gradient": numbers(Saliency(net).attribute(x.clone().requires_grad_(), CLASSES, abs=False)),
        "gradient_times_input": numbers(InputXGradient(net).attribute(x.clone().requires_grad_(), CLASSES)),
        "integrated_gradients": numbers(IntegratedGradients(net).attribute(x, target=CLASSES, n_steps=20)),
        "deconvnet": numbers(Deconvolution(net).attribute(x.clone().requires_grad_(), CLASSES)),
        "guided_backprop": numbers(GuidedBackprop(net).attribute(x.clone().requires_grad_(), CLASSES)),
        "grad_cam": numbers(LayerGradCam(net, net.relu2).attribute(x, CLASSES, relu_attributions=True)),
        "occlusion": numbers(Occlusion(net).attribute(x, (2, 4, 4), strides=(2, 2, 2), target=CLASSES)[:, :1]),
    }
    (here / "goldens.json").write_text(json.dumps(goldens) + "\n")


main()
