"""SqueezeNet 1.1 (Iandola et al. 2016) as Caffe has it; its pooling rounds sizes up, which matters at 227 pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from preimage.networks.alexnet import CAFFE, caffe_pool
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import load_into, read_weights

PREPROCESSING: Preprocessing = CAFFE
FIRES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # channels squeezed to; eight times as many come out
POOLED = (3, 5)
LAYERS = ("conv1", *(f"fire{number}" for number in FIRES), "conv10", "pool10", "prob")


class SqueezeNet(nn.Sequential):
    """Input (N, 3, 227, 227), BGR, 0..255 minus the mean -> class probabilities (N, 1000). Its children are `LAYERS`.

    A layer's output is that of its last processing step: conv1, fire3 and fire5 are pooled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            OrderedDict([("conv", nn.Conv2d(3, 64, 3, stride=2)), ("relu", nn.ReLU()), ("pool", caffe_pool())])
        )
        channels = 64
        for number, squeezed in FIRES.items():
            self.add_module(f"fire{number}", Fire(channels, squeezed, pooled=number in POOLED))
            channels = 8 * squeezed
        self.conv10 = nn.Sequential(OrderedDict([("conv", nn.Conv2d(channels, 1000, 1)), ("relu", nn.ReLU())]))
        self.pool10 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.prob = nn.Softmax(dim=1)


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1 x 1 and by 3 x 3 side by side."""

    def __init__(self, channels: int, squeezed: int, pooled: bool) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, 4 * squeezed, 1)
        self.expand3x3 = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)
        self.pool = caffe_pool() if pooled else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        squeezed = torch.relu(self.squeeze1x1(features))
        expanded = torch.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))
        pooled: Tensor = self.pool(expanded)
        return pooled


def load(files: Sequence[Path]) -> SqueezeNet:
    """The network with the weights of a file that names them as Caffe does: `fire2/squeeze1x1.weight`."""
    network = SqueezeNet()
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_weights(file)
    renamed = {
        name.replace("/", ".") if "/" in name else name.replace(".", ".conv.", 1): value
        for name, value in state.items()
    }
    load_into(network, renamed, " and ".join(map(str, files)))
    return network
