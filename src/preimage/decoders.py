"""Up-convolutional networks from features to images, written as layer tables.

A table is streams of layers that read the features side by side, then joint layers that read all streams. The paper's
tables (Dosovitskiy & Brox 2016) are here as they were, beside ours. Every layer but the last is followed by a leaky
ReLU of slope 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from preimage.errors import SettingsError, UnknownNameError, WeightsError
from preimage.randomness import seeded
from preimage.words import shape_in_words

SLOPE = 0.2
REACH = 10.0  # robust deviations; of normally distributed features nothing lies beyond
UNLIMITED = 1e30  # a reach that nothing exceeds
SKEWED = 1.0  # skewness from which the root of a vector's number is read; an exponential distribution has 2
MEASURED_AT_ONCE = 1 << 22  # features
SORTED = 1 << 14  # features of a channel, at least, that its quantiles are taken from
WIDE_MAP = 4096  # channels
WIDEST = 1 << 13  # inputs of the first layer; beyond, neighbours are joined to one
Shape = Sequence[int]


# --- layers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """All of the input to each of `channels` numbers."""

    channels: int

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Linear(in_channels, out_channels)


@dataclass(frozen=True)
class Grid:
    """All of the input to each place of a map of `side` x `side` places."""

    channels: int
    side: int

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        shape = (out_channels, self.side, self.side)
        return nn.Sequential(nn.Linear(in_channels, math.prod(shape)), nn.Unflatten(1, shape))


@dataclass(frozen=True)
class Conv:
    """A convolution that keeps the size, or divides it by `stride`."""

    channels: int
    kernel: int = 3
    stride: int = 1

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, self.kernel, self.stride, padding=self.kernel // 2)


@dataclass(frozen=True)
class Up:
    """An up-convolution: twice the size. Kernel 4 pads 1; kernel 5 pads 2 and adds 1 to the output.

    Its even and odd pixels come from different weights, which shows as a grid; with `smooth` it is blurred away.
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
        assert not isinstance(self.padding, str)
        padding = [side + 1 for side in self.padding]
        return F.conv_transpose2d(features, self.blurred_weight(), self.bias, self.stride, padding, self.output_padding)

    def blurred_weight(self) -> Tensor:
        """The kernels (in, out, k, k) -> (in, out, k + 2, k + 2), by one small matrix product for each input channel.

        As a convolution of in * out pictures of one channel it would cost more than the layer where channels are many.
        """
        inputs, outputs, side, _ = self.weight.shape
        start = torch.eye(side + 2, side, device=self.weight.device, dtype=self.weight.dtype)
        line = (start + 2 * start.roll(1, 0) + start.roll(2, 0)) / math.sqrt(6)  # (1, 2, 1) in every column
        blur = torch.kron(line, line).expand(inputs, -1, -1)  # (in, (k + 2)^2, k^2)
        kernels = self.weight.permute(0, 2, 3, 1).reshape(inputs, side * side, outputs)  # no copy in channels last
        return (blur @ kernels).view(inputs, side + 2, side + 2, outputs).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Join:
    """Neighbouring numbers of a long vector joined to one, so that about `channels` remain; each has its own weight."""

    channels: int

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        return JoinNeighbours(in_channels, out_channels)


class JoinNeighbours(nn.Module):
    """Numbers (N, D) -> (N, `outputs`), each a weighted sum of D / outputs neighbours: as many weights as inputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.together = math.ceil(inputs / outputs)
        self.weight = nn.Parameter(torch.full((outputs, self.together), 1 / math.sqrt(self.together)))

    def forward(self, features: Tensor) -> Tensor:
        missing = self.outputs * self.together - features.shape[1]
        neighbours = F.pad(features, (0, missing)).view(-1, *self.weight.shape)  # (N, outputs, together)
        joined: Tensor = (neighbours * self.weight).sum(dim=2)
        return joined


Layer = Linear | Grid | Conv | Up | Join
Stream = tuple[Layer, ...]
Streams = tuple[Stream, ...]


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Streams that all read the features, and the layers that read the streams' outputs, concatenated.

    `dropout` is the share of the hidden numbers of fully connected layers that are set to 0 in training.
    """

    streams: Streams
    joint: Stream
    dropout: float = 0.0


def doublings(side: int, image_size: int) -> int:
    """How often a side can be doubled without getting larger than the image."""
    return max(0, int(math.log2(image_size / side)))


def to_half(side: int, image_size: int) -> int:
    """How often a side is doubled to come nearest to half the image's size: once at least, unless that is too large."""
    return min(doublings(side, image_size), max(1, round(math.log2(image_size / side / 2))))


def paper_hog(_shape: Shape, _image_size: int) -> Table:
    """The paper's for HOG: one stream sees far and finds the brightness, one keeps detail, the third joins them."""
    far = (Conv(256, 5, 2), Conv(512, 5, 2), Conv(1024, 3, 2), Up(512), Up(256), Up(128))
    detail = (Conv(128, 5), Conv(128, 3))
    return Table((far, detail), (Conv(256), Conv(128), Up(64), Up(32), Up(3)))


def paper_lbp(_shape: Shape, _image_size: int) -> Table:
    """The paper's for LBP: as for HOG, on cells of 16 pixels."""
    far = (Conv(256, 5), Conv(512, 5, 2), Conv(1024, 3, 2), Up(512), Up(256))
    detail = (Conv(128, 5), Conv(128, 3))
    return Table((far, detail), (Conv(256), Conv(128), Up(128), Up(64), Up(32), Up(3)))


def paper_sift(_shape: Shape, _image_size: int) -> Table:
    """The paper's for sparse SIFT: down to 4 x 4 and up again."""
    down = (Conv(256, 5, 2), Conv(512, 3, 2), Conv(1024, 3, 2), Conv(2048, 3, 2), Conv(2048), Conv(1024))
    return Table((down,), (Up(512), Up(256), Up(128), Up(64), Up(32), Up(3)))


def paper_map(shape: Shape, image_size: int) -> Table:
    """The paper's for AlexNet's convolutional layers: 192, 208 or 216 pixels for images of 227."""
    check_is_map(shape)
    ups = tuple(Up(channels, 5) for channels in (256, 128, 64, 32, 3))
    return Table(((Conv(256), Conv(256), Conv(256)),), ups[-max(1, doublings(max(shape[1:]), image_size)) :])


def paper_vector(_shape: Shape, _image_size: int) -> Table:
    """The paper's for AlexNet's fully connected layers: 128 pixels."""
    ups = tuple(Up(channels, 5) for channels in (256, 128, 64, 32, 3))
    return Table(((Linear(4096), Linear(4096), Grid(256, 4)),), ups)


def compact(shape: Shape, image_size: int) -> Table:
    """Ours, for features of any shape: little arithmetic, few weights.

    Vectors, and maps of places 16 pixels apart and more, stop at about half the image's size, vectors at 64 pixels at
    the latest: nothing that is finer can be recovered from them. Of a map only the last up-convolution is blurred:
    behind it no grid comes back, and the others learn faster without. What vectors keep is learnt by heart from some
    thousand photographs: hence the dropout.
    """
    if len(shape) == 1:
        stream = (*shortened(shape), Linear(2048), Grid(128, 4))
        steps = min(4, max(1, doublings(4, image_size)))
        return Table((stream,), blurred(rising(steps, 32)), dropout=0.5)
    side = max(shape[1:])
    steps = to_half(side, image_size) if image_size >= 16 * side else doublings(side, image_size)
    joint = rising(steps, 64)
    return Table(((*narrowed(shape), Conv(256), Conv(256), Conv(256)),), last_blurred(joint))


def multiscale(shape: Shape, image_size: int) -> Table:
    """Ours, for maps whose places know their own surroundings only, as those of HOG and SIFT do.

    Contrast is all they hold: how bright a place is has to be found from far. So beside the stream that keeps detail
    there is one that goes down to 4 x 4, where everything is in sight, and one half-way. It stops at half the image's
    size, and only the last up-convolution is blurred.
    """
    far, near = far_and_near(shape)
    middle = (*narrowed(shape), Conv(128, 5, 2), Conv(256, 3, 2), Conv(256), Up(128), Up(128))
    joint = (Conv(256), Conv(128), *rising(to_half(max(shape[1:]), image_size), 32))
    return Table((far, middle, near), last_blurred(joint))


def two_streams(shape: Shape, image_size: int) -> Table:
    """Ours, for maps that keep detail and know their own surroundings only, as conv1 of AlexNet does.

    Three convolutions at full resolution keep detail; beside them a narrow stream that goes down to 4 x 4 finds out how
    bright a place is. At the whole size of the image; only the last up-convolution is blurred.
    """
    far, _ = far_and_near(shape)
    far = tuple(replace(layer, channels=max(32, layer.channels // 4)) for layer in far)
    near = (*narrowed(shape), Conv(256), Conv(256), Conv(256))
    joint = (Conv(256), *rising(doublings(max(shape[1:]), image_size), 64))
    return Table((far, near), last_blurred(joint))


def smooth(shape: Shape, image_size: int) -> Table:
    """Ours before, which some files that ship were made with: a blur in every up-convolution."""
    if len(shape) == 1:
        stream = (*shortened(shape), Linear(1024), Linear(1024), Grid(128, max(1, image_size // 32)))
        return Table((stream,), blurred(rising(4, 32)), dropout=0.5)
    side = max(shape[1:])
    sparse = image_size >= 16 * side
    steps = math.ceil(math.log2(image_size / side / 2)) if sparse else doublings(side, image_size)
    joint = (Conv(256), Conv(128), *rising(steps, 32))
    return Table(tuple(blurred(stream) for stream in far_and_near(shape)), blurred(joint))


def check_is_map(shape: Shape) -> None:
    if len(shape) == 1:
        raise SettingsError("this decoder reads feature maps; 'compact' reads vectors")


def far_and_near(shape: Shape) -> tuple[Stream, Stream]:
    """Two streams: one to 4 x 4, where everything is in sight, one that keeps detail."""
    check_is_map(shape)
    downs = max(1, math.ceil(math.log2(max(shape[1:]) / 4)))
    widths = [max(32, 1024 >> place) for place in range(downs + 1)]  # 1024, 512, 256 ...
    down = [Conv(channels, 5 if place else 3, 2) for place, channels in enumerate(widths[:-1])]
    far = (*narrowed(shape), *reversed(down), *(Up(channels) for channels in widths[1:]))
    near = (*narrowed(shape), Conv(128, 5), Conv(128, 3))
    return far, near


def rising(steps: int, narrowest: int) -> Stream:
    """As many up-convolutions, to channels that halve down to `narrowest`, and to 3 at last; a convolution for none."""
    if not steps:
        return (Conv(3),)
    widths = [narrowest << place for place in reversed(range(steps - 1))]
    return (*(Up(min(256, channels)) for channels in widths), Up(3))


def blurred(layers: Stream) -> Stream:
    """The same layers, with a blur in every up-convolution."""
    return tuple(replace(layer, smooth=True) if isinstance(layer, Up) else layer for layer in layers)


def last_blurred(layers: Stream) -> Stream:
    """The same layers, with a blur in the last up-convolution."""
    return (*layers[:-1], *blurred(layers[-1:]))


def shortened(shape: Shape) -> tuple[Layer, ...]:
    """A first layer that bounds the weights of those after it, however long a vector is."""
    return (Join(WIDEST),) if shape[0] > WIDEST else ()


def narrowed(shape: Shape) -> tuple[Layer, ...]:
    """A first layer that bounds the weights of those after it, however many channels a map has."""
    return (Conv(max(64, (1 << 24) // shape[0]), 1),) if shape[0] > WIDE_MAP else ()


DECODERS: dict[str, Callable[[Shape, int], Table]] = {
    "compact": compact,
    "multiscale": multiscale,
    "two-streams": two_streams,
    "smooth": smooth,
    "paper-hog": paper_hog,
    "paper-lbp": paper_lbp,
    "paper-sift": paper_sift,
    "paper-map": paper_map,
    "paper-vector": paper_vector,
}


# --- networks ---------------------------------------------------------------------------------------------------------


class Standardise(nn.Module):
    """Features brought to mean 0 and deviation 1, channel by channel, by statistics `measure`d before training.

    Where a channel goes further from its median than `reach`, it goes on logarithmically: else a few values would set
    the scale of all others. With `log` the features' logarithm is read: probabilities near 1e-6 differ in nothing else.
    Of a vector's numbers that are never negative and mostly small, as after a ReLU, the root is read.
    """

    def __init__(self, channels: int, log: bool = False) -> None:
        super().__init__()
        self.log = log
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("median", torch.zeros(channels))
        self.register_buffer("reach", torch.full((channels,), UNLIMITED))
        self.register_buffer("unit", torch.zeros(channels))  # of what the root is read of; 0 where it is not
        self.mean: Tensor
        self.deviation: Tensor
        self.median: Tensor
        self.reach: Tensor
        self.unit: Tensor

    def measure(self, features: Tensor) -> None:
        if features.ndim == 2 and not self.log:
            self.unit.copy_(torch.where(is_skewed(features), features.mean(dim=0), 0.0))
        size = max(1, MEASURED_AT_ONCE * features.shape[1] // features.numel())  # channels
        for first in range(0, features.shape[1], size):
            part = slice(first, first + size)
            values = self.scaled(features[:, part], part)
            values = values.transpose(0, 1).flatten(1).cpu().double()  # (channels, values)
            median, reach = spread(values)
            self.median[part], self.reach[part] = median, reach
            values = drawn_in(values, median[:, None], reach[:, None])
            self.mean[part] = values.mean(dim=1)
            # A channel that never moves tells nothing; dividing by its rounding noise would make it shout.
            deviation = values.std(dim=1)
            moves = deviation > 1e-5 * values.abs().amax(dim=1)
            self.deviation[part] = torch.where(moves, deviation, 0.0)
        moving = self.deviation[self.deviation > 0]
        least = 1e-6 * moving.median() if len(moving) else 0.0
        alive = self.deviation > least
        self.deviation.copy_(torch.where(alive, self.deviation, 1.0))
        self.reach.copy_(torch.where(alive, self.reach, UNLIMITED))  # an encoder that is trained may wake the dead

    def forward(self, features: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (features.ndim - 2)
        near = drawn_in(self.scaled(features), self.median.view(shape), self.reach.view(shape))
        return (near - self.mean.view(shape)) / self.deviation.view(shape)

    def scaled(self, features: Tensor, part: slice = slice(None)) -> Tensor:
        """The features of a part of the channels, or their logarithm or root."""
        if self.log:
            return features.clamp(min=1e-12).log()
        if features.ndim > 2:
            return features
        unit = self.unit[part]
        # 0.01: the root of 0 is infinitely steep, which autoencoders could not learn through
        root = (features.clamp(min=0) / torch.where(unit > 0, unit, 1.0) + 0.01).sqrt()
        return torch.where(unit > 0, root, features)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("median", "reach", "unit"):  # older files lack some of them
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def is_skewed(vectors: Tensor) -> Tensor:
    """Which numbers of vectors (N, D) are never negative, and mostly small: (D,) of booleans."""
    deviation = vectors - vectors.mean(dim=0)
    variance = deviation.square().mean(dim=0)
    skewness = deviation.pow(3).mean(dim=0) / variance.clamp(min=1e-30).pow(1.5)
    return (vectors >= 0).all(dim=0) & (skewness > SKEWED)


def spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """The median of each row, and how far from it values are taken as they are.

    That is `REACH` times half the distance between the quantiles 0.16 and 0.84, which is the deviation where values are
    normally distributed, and which a few large ones do not change; of rows that mostly stand still, as sparse features
    do, `REACH` deviations.
    """
    some = values[:, :: max(1, values.shape[1] // SORTED)]
    levels = torch.tensor([0.16, 0.5, 0.84], dtype=values.dtype, device=values.device)
    low, median, high = torch.quantile(some, levels, dim=1)
    deviation = values.std(dim=1).nan_to_num()  # of one value there is none
    robust = torch.where(high > low, (high - low) / 2, deviation)
    return median, torch.where(robust > 0, REACH * robust, UNLIMITED)


def drawn_in(values: Tensor, median: Tensor, reach: Tensor) -> Tensor:
    """Values within reach of the median as they are; beyond, the distance grows with its logarithm."""
    distance = values - median
    return median + distance.clamp(-reach, reach) * (1 + (distance.abs() / reach).clamp(min=1).log())


class Decoder(nn.Module):
    """The network of a layer table: features (N, C, h, w) or (N, D) -> images (N, 3, H, W), not clamped.

    `width` multiplies the channels of every layer but the last, rounded to a multiple of 8. For feature maps it is
    convolutional: it takes maps of other sizes too, and gives images of other sizes. Where streams come out at
    different sizes, what the larger ones have in excess at the right and at the bottom is cut off.
    """

    def __init__(self, table: Table, channels: int, width: float = 1.0, log: bool = False) -> None:
        super().__init__()
        self.standardise = Standardise(channels, log)
        self.streams = nn.ModuleList(chain(stream, channels, width, dropout=table.dropout) for stream in table.streams)
        joined = sum(widened(stream[-1].channels, width) for stream in table.streams)
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
        height, width = (min(stream.shape[axis] for stream in streams) for axis in (2, 3))
        images: Tensor = self.joint(torch.cat([stream[:, :, :height, :width] for stream in streams], dim=1))
        return images

    @torch.no_grad()
    def prepare(self, features: Tensor, images: Tensor) -> None:
        """Before training: learn the features' scale, and start from the mean colour of these images."""
        self.standardise.measure(features)
        assert self.output.bias is not None
        self.output.bias.copy_(images.mean(dim=(0, 2, 3)))


def widened(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)


def chain(
    layers: Sequence[Layer], in_channels: int, width: float, last_is_output: bool = False, dropout: float = 0.0
) -> nn.Sequential:
    """Layers one after the other, with leaky ReLUs; the output layer keeps its channels and has none."""
    modules: list[nn.Module] = []
    for position, layer in enumerate(layers):
        output = last_is_output and position == len(layers) - 1
        if dropout and position and isinstance(layers[position - 1], Linear):
            modules.append(nn.Dropout(dropout))
        out_channels = layer.channels if output else widened(layer.channels, width)
        modules.append(layer.build(in_channels, out_channels))
        if not output:
            modules.append(nn.LeakyReLU(SLOPE, inplace=True))
        in_channels = out_channels
    return nn.Sequential(*modules)


def initialise(decoder: nn.Module) -> None:
    """He et al. 2015 for leaky ReLUs: every layer passes on the variance it receives."""
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            inputs = module.in_features
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            inputs = module.in_channels * math.prod(module.kernel_size)
            if isinstance(module, nn.ConvTranspose2d):
                inputs //= math.prod(module.stride)  # each output pixel sees only one phase of the kernel
        else:
            continue
        nn.init.normal_(module.weight, std=math.sqrt(2 / (1 + SLOPE**2) / inputs))
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def build_decoder(
    name: str,
    feature_shape: Shape,
    image_size: int,
    width: float = 1.0,
    *,
    log: bool = False,
    seed: int = 0,
    channels: int = 3,
) -> Decoder:
    """The decoder of that name for features of this shape, freshly initialised from `seed`.

    Its images need not be of `image_size`: `Up` brings them there. They have `channels` channels. Raises
    `SettingsError` where it cannot read such features.
    """
    check_choice(name, width)
    size = shape_in_words(feature_shape)
    if len(feature_shape) not in (1, 3):
        raise SettingsError(f"decoders read vectors (D,) and feature maps (C, h, w), got features of {size}")
    table = DECODERS[name](feature_shape, image_size)
    table = replace(table, joint=(*table.joint[:-1], replace(table.joint[-1], channels=channels)))
    try:
        # As narrow as can be, and not on the meta device: there, elementwise functions import a compiler (2.5 s).
        with seeded(0), torch.no_grad():
            Decoder(table, feature_shape[0], width=0)(torch.zeros(1, *feature_shape))
    except RuntimeError as error:
        raise SettingsError(f"decoder {name!r} cannot read features of {size}; 'compact' reads any") from error
    with seeded(seed):
        return Decoder(table, feature_shape[0], width, log)


def check_choice(name: str, width: float) -> None:
    """Raise for a decoder that does not exist and a width that is none."""
    if name not in DECODERS:
        raise UnknownNameError("decoder", name, DECODERS)
    if not 0 < width < math.inf:
        raise SettingsError(f"width is a positive factor, got {width}")


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put saved weights into a decoder; raises `WeightsError` where they are those of another table or width."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(
            "the weights do not fit the decoder they are said to be of: they were made with another table or width, "
            "perhaps by another version of preimage"
        ) from error


@dataclass(frozen=True)
class Cost:
    """What a decoder costs: weights, and floating-point operations to invert (a product and a sum are 2)."""

    parameters: int
    flops: int


def cost(decoder: nn.Module, feature_shape: Shape, images: int = 1) -> Cost:
    """Counted without doing any arithmetic, for `images` inverted together: what is done to kernels is done once."""
    with FlopCounterMode(display=False) as counter:
        output_size(decoder, feature_shape, images)
    return Cost(sum(p.numel() for p in decoder.parameters()), counter.get_total_flops())


@torch.no_grad()
def output_size(decoder: nn.Module, feature_shape: Shape, images: int = 1) -> tuple[int, int]:
    """(height, width) of a decoder's images, found on PyTorch's `meta` device, which does no arithmetic."""
    tensors = (*decoder.named_parameters(), *decoder.named_buffers())
    ghosts = {name: value.to("meta") for name, value in tensors}
    features = torch.empty(images, *feature_shape, device="meta")
    height, width = torch.func.functional_call(decoder, ghosts, (features,)).shape[2:]
    return height, width
