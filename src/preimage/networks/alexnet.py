"""AlexNet in its three published forms; their children are the layers as the paper means them.

Krizhevsky et al. 2012. *BVLC* (Caffe's `bvlc_alexnet`: relu, norm, pool), *CaffeNet* (Caffe's reference network, the
one the paper inverts: relu, pool, norm) and *torchvision*'s ("one weird trick", Krizhevsky 2014: no norm, no groups).
A layer's output is that of its last processing step (Dosovitskiy & Brox 2016, section 5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn

from preimage.errors import WeightsError
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import load_into, read_weights

Variant = Literal["bvlc", "caffenet", "torchvision"]

CAFFE = Preprocessing(image_size=227, white=255.0, mean=(104.0, 117.0, 123.0), bgr=True)
TORCHVISION = Preprocessing(image_size=224, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


class Convolution(NamedTuple):
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1


@dataclass(frozen=True)
class Form:
    """What tells the variants apart: five convolutions, and the steps after them."""

    convolutions: tuple[Convolution, ...]
    order: tuple[str, ...]  # the steps of conv1 and conv2 after the convolution


CAFFE_CONVOLUTIONS = (
    Convolution(96, 11, stride=4, padding=0),
    Convolution(256, 5, padding=2, groups=2),
    Convolution(384),
    Convolution(384, groups=2),
    Convolution(256, groups=2),
)
FORMS: dict[str, Form] = {
    "bvlc": Form(CAFFE_CONVOLUTIONS, ("relu", "norm", "pool")),
    "caffenet": Form(CAFFE_CONVOLUTIONS, ("relu", "pool", "norm")),
    "torchvision": Form(
        (
            Convolution(64, 11, stride=4, padding=2),
            Convolution(192, 5, padding=2),
            Convolution(384),
            Convolution(256),
            Convolution(256),
        ),
        ("relu", "pool"),
    ),
}


def caffe_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)  # Caffe rounds up; at 227 and 224 it is the same


STEPS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "pool": caffe_pool,
    "norm": partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1),
}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8", "prob")


class AlexNet(nn.Sequential):
    """Input as `CAFFE` or `TORCHVISION` says -> class probabilities (N, 1000). Its children are `LAYERS`.

    With `convolutions_only` it ends at conv5: some published files hold no more.
    """

    def __init__(self, variant: Variant, convolutions_only: bool = False) -> None:
        super().__init__()
        form = FORMS[variant]
        channels = 3
        for number, (out, kernel, stride, padding, groups) in enumerate(form.convolutions, start=1):
            steps: list[tuple[str, nn.Module]] = [
                ("conv", nn.Conv2d(channels, out, kernel, stride, padding, groups=groups))
            ]
            order = {1: form.order, 2: form.order, 5: ("relu", "pool")}.get(number, ("relu",))
            steps += [(name, STEPS[name]()) for name in order]
            self.add_module(f"conv{number}", nn.Sequential(OrderedDict(steps)))
            channels = out
        if convolutions_only:
            return
        self.fc6 = dense(256 * 6 * 6, 4096)
        self.fc7 = dense(4096, 4096)
        self.fc8 = nn.Sequential(OrderedDict([("linear", nn.Linear(4096, 1000))]))
        self.prob = nn.Softmax(dim=1)


def dense(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict([("flatten", nn.Flatten()), ("linear", nn.Linear(inputs, outputs)), ("relu", nn.ReLU())])
    )


TORCHVISION_NAMES = {
    "features.0": "conv1", "features.3": "conv2", "features.6": "conv3", "features.8": "conv4", "features.10": "conv5",
    "classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8",
}  # fmt: skip


def load(variant: Variant, files: Sequence[Path]) -> AlexNet:
    """AlexNet with the weights of one or more files, named as Caffe or as torchvision names them.

    Without weights for fc6 the network ends at conv5.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        found |= by_layer(read_weights(file))
    words = " and ".join(str(file) for file in files)
    if "conv1.weight" not in found:
        raise WeightsError(f"{words} holds no AlexNet: there is no conv1 in it")
    network = AlexNet(variant, convolutions_only="fc6.weight" not in found)
    kinds = {"conv": "conv", "fc": "linear"}
    state = {}
    for name, value in found.items():
        layer, _, tensor = name.partition(".")
        state[f"{layer}.{kinds[layer.rstrip('0123456789')]}.{tensor}"] = value
    load_into(network, state, words)
    return network


def by_layer(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under any published naming -> `conv1.weight` ... `fc8.bias`; what is of no layer is left out."""
    named = {}
    for name, value in weights.items():
        module, _, tensor = name.rpartition(".")
        layer = TORCHVISION_NAMES.get(module, module)
        if layer in LAYERS and layer != "prob":  # which has no weights
            named[f"{layer}.{tensor}"] = value
    return named
