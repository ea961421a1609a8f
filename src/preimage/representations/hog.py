"""Histograms of oriented gradients, the UoCTTI variant, exactly as VLFeat's `vl_hog` computes it.

Felzenszwalb et al., *Object Detection with Discriminatively Trained Part Based Models*, PAMI 2010; VLFeat 0.9.21,
`vl/hog.c`. Inverted in Dosovitskiy & Brox 2016, section 4. Batched, on any device, differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.errors import SettingsError
from preimage.images import grey
from preimage.interfaces import Representation, check_features, check_images
from preimage.representations.cells import cell_histograms, whole_cells

EPSILON = 1e-4  # added to a block's energy: vl/hog.c
CLAMP = 0.2  # no single edge may own a cell: Dalal & Triggs 2005
TEXTURE_SCALE = 1 / math.sqrt(18)


@dataclass(frozen=True)
class HOG(Representation):
    """Images (N, 3, H, W) -> (N, 3 * num_orientations + 4, H / cell_size, W / cell_size), non-negative.

    Channels: `2 * num_orientations` directed, `num_orientations` undirected orientations, four texture energies.
    `cell_size` in pixels must divide both sides of an image. `pixel_scale` is the value of white: features depend on
    it slightly (by up to 0.28 between 1 and 255) through a small constant in the normalisation. `round_grey` rounds
    the grey image to 8 bits, as MATLAB's `rgb2gray` does; gradients with respect to the image need it off.
    """

    name: ClassVar[str] = "hog"
    source: ClassVar[str] = "as VLFeat"

    cell_size: int = 8
    num_orientations: int = 9
    image_size: int = 256
    pixel_scale: float = 255.0
    round_grey: bool = True

    def __post_init__(self) -> None:
        if self.cell_size < 2:
            raise SettingsError(f"cell_size is in pixels and at least 2, got {self.cell_size}")
        if self.num_orientations < 2:
            raise SettingsError(f"num_orientations is at least 2, got {self.num_orientations}")
        if not 0 < self.pixel_scale < math.inf:
            raise SettingsError(f"pixel_scale is a positive number, got {self.pixel_scale}")
        if self.image_size < self.cell_size or self.image_size % self.cell_size:
            raise SettingsError(f"cell_size={self.cell_size} does not divide image_size={self.image_size}")

    def brightened(self, factor: float) -> HOG:
        return replace(self, pixel_scale=self.pixel_scale * factor)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return not self.round_grey

    @property
    def grid(self) -> int:
        return self.cell_size

    def feature_shape_at(self, height: int, width: int) -> tuple[int, int, int]:
        return (3 * self.num_orientations + 4, *whole_cells(height, width, self.cell_size))

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        return self.features_of(images)

    def smooth(self) -> Callable[[Tensor], Tensor]:
        """Without the rounding to 8 bits, which moves most photographs' features by 5 to 10 % of their norm."""
        return replace(self, round_grey=False).features_of

    def features_of(self, images: Tensor) -> Tensor:
        """As `encode`, for pixel values of any size."""
        self.feature_shape_at(*images.shape[2:])
        grey_images = grey(images, scale=self.pixel_scale, rounded=self.round_grey)
        return normalise(oriented_histograms(grey_images, self.cell_size, self.num_orientations))

    def draw(self, features: Tensor) -> Tensor:
        """The usual glyphs: in every cell a star of edges, each as bright as its orientation's strength squared."""
        check_features(features, (3 * self.num_orientations + 4, None, None))
        undirected = features[:, 2 * self.num_orientations : 3 * self.num_orientations].float().square()
        glyphs = edge_glyphs(self.num_orientations, size=2 * self.cell_size + 1).to(features.device)
        pictures = F.conv_transpose2d(undirected, glyphs, stride=2 * self.cell_size)[:, :, :-1, :-1]
        brightest = undirected.flatten(1).amax(dim=1).clamp(min=1e-6)
        return (pictures / brightest[:, None, None, None]).clamp(0, 1).expand(-1, 3, -1, -1)


def oriented_histograms(grey_images: Tensor, cell_size: int, num_orientations: int) -> Tensor:
    """Grey images (N, H, W) -> gradient magnitude by cell and directed orientation (N, 2K, H // cell, W // cell)."""
    magnitude, codes = gradients(grey_images, num_orientations)
    num_codes = 4 * (len(sector_tangents(num_orientations)) + 1)
    orientations = [decode(code, num_orientations) for code in range(num_codes)]
    return cell_histograms(codes, magnitude, cell_size, orientations, 2 * num_orientations)


def gradients(grey_images: Tensor, num_orientations: int) -> tuple[Tensor, Tensor]:
    """Grey images (N, H, W) -> gradient magnitude and orientation code (int32), both (N, H, W).

    Central differences; the one-pixel border counts for nothing. VLFeat takes the first largest of the projections on
    all orientations. The same comes from counting the sector boundaries below the gradient within its quadrant, with
    far fewer passes over the pixels; `decode` turns (sector, mirrored, negative) into an orientation.
    """
    dx, dy = torch.zeros_like(grey_images), torch.zeros_like(grey_images)
    dx[:, 1:-1, 1:-1] = grey_images[:, 1:-1, 2:] - grey_images[:, 1:-1, :-2]
    dy[:, 1:-1, 1:-1] = grey_images[:, 2:, 1:-1] - grey_images[:, :-2, 1:-1]
    energy = dx.square() + dy.square()
    # The gradient of a square root at 0 is infinite; flat pixels have no direction to go in, so theirs is 0.
    magnitude = energy.sqrt() if not energy.requires_grad else torch.where(energy > 0, energy, 1).sqrt() * (energy > 0)

    dx, dy = dx.detach(), dy.detach()
    mirrored = dx * dy < 0  # second or fourth quadrant
    negative = (dy < 0) | ((dy == 0) & (dx < 0))
    steep, flat = dy.abs(), dx.abs()
    code = mirrored.to(torch.int16) + 2 * negative.to(torch.int16)
    for tangent in sector_tangents(num_orientations):
        above = steep > flat * tangent
        if tangent == 1.0:  # a diagonal can lie on the boundary exactly:
            above |= mirrored & (steep == flat)  # the orientation with the lower number wins
        code += 4 * above.to(torch.int16)
    return magnitude, code.to(torch.int32)


def sector_tangents(num_orientations: int) -> list[float]:
    """Tangents of the boundaries between orientations in the first quadrant; all of them share out 180 degrees."""
    angles = [(index + 0.5) * 180 / num_orientations for index in range(num_orientations)]
    return [1.0 if angle == 45 else math.tan(math.radians(angle)) for angle in angles if angle < 90]


def decode(code: int, num_orientations: int) -> int:
    """The directed orientation 0 ... 2K - 1 that a code of `gradients` stands for."""
    sector, negative, mirrored = code // 4, code // 2 % 2, code % 2
    undirected = num_orientations - sector if mirrored else sector
    return (undirected + num_orientations * negative) % (2 * num_orientations)


def normalise(histograms: Tensor) -> Tensor:
    """Directed histograms (N, 2K, h, w) -> UoCTTI features (N, 3K + 4, h, w).

    Each cell is seen relative to the four 2 x 2 blocks it belongs to; blocks at the border repeat the border cells.
    """
    undirected = histograms.view(len(histograms), 2, -1, *histograms.shape[2:]).sum(dim=1)  # (N, K, h, w)
    energy = F.pad(undirected.square().sum(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    factors = F.avg_pool2d(energy, 2, stride=1, divisor_override=1).add(EPSILON).rsqrt()  # (N, 1, h + 1, w + 1)
    height, width = histograms.shape[2:]

    orientations = torch.cat([histograms, undirected], dim=1)  # (N, 3K, h, w)
    total, textures = torch.zeros_like(orientations), []
    for down in (0, 1):
        for right in (0, 1):
            clamped = (orientations * factors[:, :, down : down + height, right : right + width]).clamp(max=CLAMP)
            total = total + clamped
            textures.append(clamped[:, histograms.shape[1] :].sum(dim=1, keepdim=True) * TEXTURE_SCALE)
    return torch.cat([0.5 * total, *textures], dim=1)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is kept may be used again where gradients are wanted
def edge_glyphs(num_orientations: int, size: int) -> Tensor:
    """(K, 1, size, size): for each orientation of the gradient, a thin line along the edge, across it."""
    radius = (size - 1) / 2
    y, x = torch.meshgrid(*[torch.arange(size) - radius] * 2, indexing="ij")
    angles = torch.arange(num_orientations) * math.pi / num_orientations
    across = x * angles.cos()[:, None, None] + y * angles.sin()[:, None, None]  # distance from the edge, pixels
    line = (1 - across.abs()).clamp(min=0) * (x**2 + y**2 <= radius**2)
    return line[:, None]
