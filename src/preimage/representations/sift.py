"""Sparse SIFT: VLFeat's keypoints and descriptors, one to a cell of a grid.

Lowe, *Distinctive Image Features from Scale-Invariant Keypoints*, IJCV 2004; VLFeat 0.9.21 with its default settings,
by the package `vlsift`. Arranged for inversion as in Dosovitskiy & Brox 2016, section 4.
"""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from joblib import Parallel, delayed
from PIL import Image, ImageDraw
from torch import Tensor

from preimage.errors import PreimageError, SettingsError
from preimage.images import Pixels, grey, to_tensor
from preimage.interfaces import Representation, check_features, check_images
from preimage.representations.cells import whole_cells

DESCRIPTOR = 128
CHANNELS = DESCRIPTOR + 5  # x and y within the cell in pixels, sine and cosine of the angle, log of the scale
OWN_PROCESS = os.getpid()
PARALLEL_FROM = 8  # images; fewer are not worth waking other processes for
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SparseSIFT(Representation):
    """Images (N, 3, H, W) -> (N, 133, H // cell_size, W // cell_size); a cell without a keypoint is all zeros.

    Where several keypoints fall into a cell, one is kept, chosen at random but always the same for the same image;
    `collisions` tells how many are lost. `pixel_scale` is the value of white. Descriptors, 8-bit in VLFeat with a norm
    of about 512, are multiplied by `descriptor_scale`. There is no gradient.
    """

    name: ClassVar[str] = "sift"
    costly: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    source: ClassVar[str] = "VLFeat (vlsift)"

    cell_size: int = 4
    image_size: int = 256
    descriptor_scale: float = 1 / 512
    pixel_scale: float = 255.0
    round_grey: bool = True

    def __post_init__(self) -> None:
        if self.cell_size < 1 or self.image_size < self.cell_size or self.image_size % self.cell_size:
            raise SettingsError(f"cell_size={self.cell_size} does not divide image_size={self.image_size}")
        if not 0 < self.pixel_scale < math.inf:
            raise SettingsError(f"pixel_scale is a positive number, got {self.pixel_scale}")

    def brightened(self, factor: float) -> SparseSIFT:
        return replace(self, pixel_scale=self.pixel_scale * factor)

    @property
    def grid(self) -> int:
        return self.cell_size

    def feature_shape_at(self, height: int, width: int) -> tuple[int, int, int]:
        return (CHANNELS, *whole_cells(height, width, self.cell_size))

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        channels, rows, columns = self.feature_shape_at(*images.shape[2:])
        levels = self.levels(images)
        found = [self.in_cells(level, *own, columns) for level, own in zip(levels, all_keypoints(levels), strict=True)]
        image = np.repeat(np.arange(len(found)), [len(cells) for cells, _ in found])
        cells, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        maps = images.new_zeros(len(images), channels, rows * columns, dtype=torch.float32)
        parts = (torch.from_numpy(part) for part in (image, cells, values))
        where, cell, held = (part.to(images.device, non_blocking=True) for part in parts)
        maps[where, :, cell] = held
        return maps.view(len(images), channels, rows, columns)

    def levels(self, images: Tensor) -> Floats:
        """Images -> grey ones as VLFeat takes them."""
        levels: Floats = grey(images.detach(), scale=self.pixel_scale, rounded=self.round_grey).cpu().numpy()
        return levels

    def in_cells(
        self, level: Floats, frames: Floats, descriptors: Floats, columns: int
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Keypoints of a grey image -> the cells that hold one (K,), counted by rows, and what they hold (K, 133)."""
        seen = np.round(level * np.float32(255 / self.pixel_scale), 3)  # of a brighter picture the same ones stay
        order = np.random.default_rng(zlib.crc32(seen.tobytes())).permutation(len(frames))
        y, x, scale, angle = frames[order].T
        row, column = (y // self.cell_size).astype(np.int64), (x // self.cell_size).astype(np.int64)
        place = np.stack([x - column * self.cell_size, y - row * self.cell_size], axis=1)
        rest = np.stack([np.sin(angle), np.cos(angle), np.log(scale)], axis=1)
        values = np.concatenate([descriptors[order] * self.descriptor_scale, place, rest], axis=1, dtype=np.float32)
        cells, last = np.unique((row * columns + column)[::-1], return_index=True)
        return cells, values[len(order) - 1 - last]  # of several, the last one stays

    def collisions(self, images: Tensor) -> tuple[int, int]:
        """(keypoints lost because another took their cell, keypoints in all) over a batch of images."""
        _, _, columns = self.feature_shape_at(*images.shape[2:])
        levels = self.levels(images)
        found = list(zip(levels, all_keypoints(levels), strict=True))
        total = sum(len(frames) for _, (frames, _) in found)
        return total - sum(len(self.in_cells(level, *own, columns)[0]) for level, own in found), total

    def draw(self, features: Tensor) -> Tensor:
        """Every keypoint as a circle of twice its scale, with the radius along its angle; twice the image's size."""
        check_features(features, (CHANNELS, None, None))
        return to_tensor([self.draw_one(one.cpu().numpy()) for one in features])

    def draw_one(self, cells: Floats) -> Pixels:
        zoom = 2
        height, width = (side * self.cell_size * zoom for side in cells.shape[1:])
        picture = Image.new("RGB", (width, height))
        pen = ImageDraw.Draw(picture)
        for row, column in np.argwhere(np.abs(cells).sum(axis=0) > 0):
            dx, dy, sine, cosine, log_scale = cells[DESCRIPTOR:, row, column]
            x, y = (column * self.cell_size + dx) * zoom, (row * self.cell_size + dy) * zoom
            radius = 2 * np.exp(log_scale) * zoom
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline="white")
            pen.line((x, y, x + cosine * radius, y + sine * radius), fill="white")
        return np.asarray(picture)


def all_keypoints(levels: Floats) -> list[tuple[Floats, Floats]]:
    """The `keypoints` of grey images (N, H, W), on all cores: VLFeat's wrapper works for one thread at a time.

    Not in a process forked from this one, which would wait for workers that are not its own.
    """
    if len(levels) < PARALLEL_FROM or os.getpid() != OWN_PROCESS:
        return [keypoints(level) for level in levels]
    at_once = Parallel(n_jobs=-1, max_nbytes=None)  # larger arrays would arrive as memory maps that are read-only
    found: list[tuple[Floats, Floats]] = at_once(delayed(keypoints)(level) for level in levels)
    return found


def keypoints(level: Floats) -> tuple[Floats, Floats]:
    """A grey image (H, W) in 0..255 -> frames (K, 4) as (y, x, scale, angle), and descriptors (K, 128) in 0..255."""
    try:
        from vlsift.sift.sift import sift
    except ImportError as error:
        raise PreimageError(
            "SIFT needs vlsift: pip install 'preimage[sift]' (wheels for Python 3.11 to 3.13 on Linux x86-64, macOS, "
            "Windows; elsewhere there is none)"
        ) from error
    frames, descriptors = sift(level, compute_descriptor=True)
    described = has_descriptor(frames, *level.shape)
    return frames[described], descriptors[described].astype(np.float32)


def has_descriptor(frames: Floats, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Whether VLFeat describes a keypoint: where its centre rounds to the border, it leaves memory as it was.

    (`vl_sift_calc_keypoint_descriptor` returns early; what the caller then finds is the descriptor before.)
    """
    y, x, scale, _ = frames.T
    # An octave holds scales from 2^-0.2 to 2^0.87 times its base, by the refinement of its three levels.
    octave = np.floor(np.log2(np.maximum(scale, 1e-6) / (1.6 * 2 ** (1 / 3))) + 0.2).clip(min=0)
    pixel = 2.0**octave
    inside: npt.NDArray[np.bool_] = (y + pixel / 2 < (height // pixel - 1) * pixel) & (x + pixel / 2 < width)
    return inside
