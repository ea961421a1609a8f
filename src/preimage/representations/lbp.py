"""Local binary patterns, uniform, exactly as VLFeat's `vl_lbp` computes them.

Ojala et al., *Multiresolution Gray-Scale and Rotation Invariant Texture Classification with Local Binary Patterns*,
PAMI 2002; VLFeat 0.9.21, `vl/lbp.c`. Inverted in Dosovitskiy & Brox 2016, section 4. Batched, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from preimage.errors import ImageError, SettingsError
from preimage.images import grey
from preimage.interfaces import Representation, check_images
from preimage.representations.cells import cell_histograms

NUM_PATTERNS = 58
EQUAL_BITS, OTHER = 56, 57  # the bins after the 56 patterns with a single run of ones
NEIGHBOURS = (
    (0, 1),
    (1, 1),
    (1, 0),
    (1, -1),
    (0, -1),
    (-1, -1),
    (-1, 0),
    (-1, 1),
)  # (down, right): E SE S SW W NW N NE


@dataclass(frozen=True)
class LBP(Representation):
    """Images (N, 3, H, W) -> (N, 58, H // cell_size, W // cell_size), the root of each pattern's share of a cell.

    `round_grey` rounds the grey image to 8 bits, as MATLAB's `rgb2gray` does; whether neighbours in flat areas are
    equal depends on it. The features are a step function of the image: there is no gradient.
    """

    name: ClassVar[str] = "lbp"
    source: ClassVar[str] = "as VLFeat"

    cell_size: int = 16
    image_size: int = 256
    round_grey: bool = True

    def __post_init__(self) -> None:
        if self.cell_size < 2:
            raise SettingsError(f"cell_size is in pixels and at least 2, got {self.cell_size}")
        if self.image_size < self.cell_size:
            raise SettingsError(f"cell_size={self.cell_size} is larger than image_size={self.image_size}")

    def brightened(self, factor: float) -> LBP:  # noqa: ARG002 (which of two pixels is brighter stays the same)
        return self

    @property
    def grid(self) -> int:
        return self.cell_size

    def feature_shape_at(self, height: int, width: int) -> tuple[int, int, int]:
        if min(height, width) < self.cell_size:
            raise ImageError(f"an image of {width} x {height} pixels is smaller than a cell of {self.cell_size}")
        return (NUM_PATTERNS, height // self.cell_size, width // self.cell_size)

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        self.feature_shape_at(*images.shape[2:])
        levels = grey(images, rounded=self.round_grey)
        codes = patterns(levels.to(torch.uint8) if self.round_grey else levels)
        inside = torch.zeros(codes.shape, device=images.device)
        inside[:, 1:-1, 1:-1] = 1  # the border has no eight neighbours, and no vote
        histograms = cell_histograms(codes, inside, self.cell_size, bin_of_pattern(), NUM_PATTERNS)
        return (histograms / histograms.sum(dim=1, keepdim=True).clamp(min=1e-20)).sqrt()


def patterns(levels: Tensor) -> Tensor:
    """Grey images (N, H, W) -> for every inner pixel eight bits, set where a neighbour is strictly brighter (int32)."""
    codes = torch.zeros(levels.shape, dtype=torch.uint8, device=levels.device)
    height, width = levels.shape[1:]
    centre, inner = levels[:, 1:-1, 1:-1], codes[:, 1:-1, 1:-1]
    for bit, (down, right) in enumerate(NEIGHBOURS):
        neighbour = levels[:, 1 + down : height - 1 + down, 1 + right : width - 1 + right]
        inner |= (neighbour > centre).to(torch.uint8) << bit
    return codes.to(torch.int32)


@lru_cache(maxsize=1)
def bin_of_pattern() -> tuple[int, ...]:
    """The bin of each of the 256 patterns: a run of j ones from bit i has bin 7 i + j - 1."""
    bins = [OTHER] * 256
    bins[0] = bins[255] = EQUAL_BITS
    for first in range(8):
        for length in range(1, 8):
            pattern = sum(1 << (first + place) % 8 for place in range(length))
            bins[pattern] = 7 * first + length - 1
    return tuple(bins)
