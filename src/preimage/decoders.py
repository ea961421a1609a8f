"""Up-convolutional networks from features to images, written as layer tables.

The tables are those of Dosovitskiy & Brox 2016: streams of layers that read the features side by side, then joint
layers that read all streams. Every layer but the last is followed by a leaky ReLU of slope 0.2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from preimage.errors import SettingsError, UnknownNameError

SLOPE = 0.2


@dataclass(frozen=True)
class Conv:
    """A convolution that keeps the size (or divides it by `stride`), then a leaky ReLU."""

    channels: int
    kernel: int = 3
    stride: int = 1

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, self.kernel, self.stride, padding=self.kernel // 2)


@dataclass(frozen=True)
class UpConv:
    """An up-convolution: twice the size. Kernel 4 pads 1; kernel 5 pads 2 and adds 1 to the output (paper.md, 1).

    Its even and odd pixels come from different weights, which shows as a grid; `smooth` blurs it away.
    """

    channels: int
    kernel: int = 4
    smooth: bool = False

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        kind = SmoothConvTranspose2d if self.smooth else nn.ConvTranspose2d
        odd = self.kernel % 2
        return kind(in_channels, out_channels, self.kernel, 2, padding=(self.kernel - 1) // 2, output_padding=odd)


class SmoothConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution whose output is blurred by (1, 2, 1) in both directions, in one operation.

    The blur has a zero where even and odd pixels differ, so a flat input gives a flat output (away from the border).
    It is applied to the kernel, which grows by one pixel all round; its norm is 1, so that variances stay as they are.
    """

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        line = torch.tensor([1.0, 2.0, 1.0], device=self.weight.device, dtype=self.weight.dtype) / math.sqrt(6)
        kernels = self.weight.flatten(0, 1)[:, None]
        blurred = F.conv2d(kernels, (line[:, None] * line[None, :])[None, None], padding=2)
        weight = blurred.view(*self.weight.shape[:2], *blurred.shape[2:])
        assert not isinstance(self.padding, str)
        padding = [side + 1 for side in self.padding]
        return F.conv_transpose2d(features, weight, self.bias, self.stride, padding, self.output_padding)


Layer = Conv | UpConv


@dataclass(frozen=True)
class Table:
    """Streams that all read the features, and the layers that read the streams' outputs, concatenated."""

    description: str
    streams: tuple[tuple[Layer, ...], ...]
    joint: tuple[Layer, ...]


# Sizes recalled by re-implementations; the bottleneck of A is 64 times smaller than the image, as the paper states.
PAPER_HOG = Table(
    description="The paper's for HOG: A sees far and finds the brightness, B keeps detail, J joins them",
    streams=(
        (Conv(256, 5, 2), Conv(512, 5, 2), Conv(1024, 3, 2), UpConv(512), UpConv(256), UpConv(128)),
        (Conv(128, 5), Conv(128, 3)),
    ),
    joint=(Conv(256), Conv(128), UpConv(64), UpConv(32), UpConv(3)),
)

PAPER_LBP = Table(
    description="The paper's for LBP: as for HOG, on cells of 16 pixels",
    streams=(
        (Conv(256, 5), Conv(512, 5, 2), Conv(1024, 3, 2), UpConv(512), UpConv(256)),
        (Conv(128, 5), Conv(128, 3)),
    ),
    joint=(Conv(256), Conv(128), UpConv(128), UpConv(64), UpConv(32), UpConv(3)),
)


def smoothed(table: Table, description: str) -> Table:
    """A table with all its up-convolutions made smooth."""

    def smooth(layers: Sequence[Layer]) -> tuple[Layer, ...]:
        return tuple(replace(layer, smooth=True) if isinstance(layer, UpConv) else layer for layer in layers)

    return Table(description, tuple(map(smooth, table.streams)), smooth(table.joint))


TABLES: dict[str, Table] = {
    "paper-hog": PAPER_HOG,
    "paper-lbp": PAPER_LBP,
    "smooth-hog": smoothed(PAPER_HOG, "paper-hog with a blur in every up-convolution, against the grid"),
    "smooth-lbp": smoothed(PAPER_LBP, "paper-lbp with a blur in every up-convolution, against the grid"),
}


class Standardise(nn.Module):
    """Features brought to mean 0 and deviation 1, channel by channel, by statistics `measure`d before training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.mean: Tensor
        self.deviation: Tensor

    def measure(self, features: Tensor) -> None:
        by_channel = features.transpose(0, 1).flatten(1).double()
        self.mean.copy_(by_channel.mean(dim=1))
        deviation = by_channel.std(dim=1)
        # A channel that never moves tells nothing; dividing by its rounding noise would make it shout.
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (features.ndim - 2)
        return (features - self.mean.view(shape)) / self.deviation.view(shape)


class Decoder(nn.Module):
    """The network of a layer table: features (N, C, h, w) -> images (N, 3, H, W), not clamped.

    `width` multiplies the number of channels of every layer but the last, rounded to a multiple of 8.
    """

    def __init__(self, table: Table, feature_shape: Sequence[int], width: float = 1.0) -> None:
        super().__init__()
        if len(feature_shape) != 3:
            raise SettingsError(f"this decoder reads feature maps (C, h, w), got shape {tuple(feature_shape)}")
        self.standardise = Standardise(feature_shape[0])
        self.streams = nn.ModuleList(chain(stream, feature_shape[0], width) for stream in table.streams)
        joined = sum(scaled(stream[-1].channels, width) for stream in table.streams)
        self.joint = chain(table.joint, joined, width, last_is_output=True)
        initialise(self)
        with torch.no_grad():
            self.output.weight.mul_(0.1)  # begin near the mean colour, not in the noise

    @property
    def output(self) -> nn.Conv2d | nn.ConvTranspose2d:
        """The last layer, which is linear."""
        last = self.joint[-1]
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        return last

    def forward(self, features: Tensor) -> Tensor:
        standardised = self.standardise(features)
        streams = [stream(standardised) for stream in self.streams]
        images: Tensor = self.joint(torch.cat(streams, dim=1))
        return images

    @torch.no_grad()
    def prepare(self, features: Tensor, images: Tensor) -> None:
        """Before training: learn the features' scale, and start from the mean colour of these images."""
        self.standardise.measure(features)
        assert self.output.bias is not None
        self.output.bias.copy_(images.mean(dim=(0, 2, 3)))


def scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)


def chain(layers: Sequence[Layer], in_channels: int, width: float, last_is_output: bool = False) -> nn.Sequential:
    modules: list[nn.Module] = []
    for position, layer in enumerate(layers):
        output = last_is_output and position == len(layers) - 1
        out_channels = layer.channels if output else scaled(layer.channels, width)
        modules.append(layer.build(in_channels, out_channels))
        if not output:
            modules.append(nn.LeakyReLU(SLOPE, inplace=True))
        in_channels = out_channels
    return nn.Sequential(*modules)


def initialise(decoder: nn.Module) -> None:
    """He et al. 2015 for leaky ReLUs: every layer passes on the variance it receives."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            inputs = module.in_channels * math.prod(module.kernel_size)
            if isinstance(module, nn.ConvTranspose2d):
                inputs //= math.prod(module.stride)  # each output pixel sees only one phase of the kernel
            nn.init.normal_(module.weight, std=math.sqrt(2 / (1 + SLOPE**2) / inputs))
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def build_decoder(name: str, feature_shape: Sequence[int], width: float = 1.0, seed: int = 0) -> Decoder:
    """The decoder of that name for features of this shape, freshly initialised from `seed`."""
    if name not in TABLES:
        raise UnknownNameError("decoder", name, TABLES)
    if not width > 0:
        raise SettingsError(f"width is a positive factor, got {width}")
    try:
        with torch.device("meta"):
            Decoder(TABLES[name], feature_shape, width)(torch.empty(1, *feature_shape))
    except RuntimeError as error:
        size = " x ".join(map(str, feature_shape[1:]))
        raise SettingsError(f"the streams of decoder {name!r} do not meet for a feature map of {size}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(TABLES[name], feature_shape, width)


@dataclass(frozen=True)
class Cost:
    """What a decoder costs: weights, and floating-point operations to invert one image (a product and a sum are 2)."""

    parameters: int
    flops: int


def cost(decoder: nn.Module, feature_shape: Sequence[int]) -> Cost:
    """Counted by running the decoder on PyTorch's `meta` device: no arithmetic is done."""
    features = torch.empty(1, *feature_shape, device="meta")
    ghost = copy.deepcopy(decoder).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(features)
    return Cost(sum(p.numel() for p in decoder.parameters()), counter.get_total_flops())
