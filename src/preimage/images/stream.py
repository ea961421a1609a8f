"""What a training step sees (order, flips, shifts, scales): a pure function of (seed, step), whoever does the work."""

from __future__ import annotations

import itertools
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from preimage.errors import SettingsError
from preimage.images.photos import Photos
from preimage.images.pictures import Pixels, to_tensor

AHEAD = 3  # steps in the making at once


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training photograph: mirrored half the time, and a square part of it brought to full size.

    The part's side is between `min_scale` and 1 times the photograph's; shift and scale also break the phase of the
    JPEG blocks, which in photographs of 256 pixels coincide with HOG's cells. With `variants` every photograph has only
    so many versions, which recur: their features are then computed once and kept on disk. 0 makes new ones every time.
    """

    flip: bool = True
    min_scale: float = 0.75
    variants: int = 0

    def __post_init__(self) -> None:
        if self.variants < 0:
            raise SettingsError(f"variants is not negative, got {self.variants}")
        if not 0 < self.min_scale <= 1:
            raise SettingsError(f"min_scale is in (0, 1], got {self.min_scale}")

    @property
    def changes_pictures(self) -> bool:
        return self.flip or self.min_scale < 1

    @property
    def recurs(self) -> bool:
        """Whether what is seen of a photograph in one pass comes again in others."""
        return self.variants > 0 or self.min_scale == 1

    def view(self, size: int, generator: np.random.Generator) -> View:
        """What is seen of a photograph of `size` pixels; draws from `generator` whether or not it uses the draws."""
        scale, left, top, mirrored = generator.random(4)
        side = size * (self.min_scale + (1 - self.min_scale) * scale)
        return View(left * (size - side), top * (size - side), side, bool(self.flip and mirrored < 0.5))


@dataclass(frozen=True)
class View:
    """A square part of a photograph, mirrored before it is cut out or not: its corner and its side, in pixels."""

    x: float
    y: float
    side: float
    mirrored: bool

    def of(self, picture: Pixels) -> Pixels:
        """The part of one photograph (S, S, 3), brought to the same size."""
        size = picture.shape[0]
        picture = picture[:, ::-1] if self.mirrored else picture
        if self.side == size:
            return picture
        box = (self.x, self.y, self.x + self.side, self.y + self.side)
        part = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(part)


def views_of(pictures: Tensor, views: Sequence[View]) -> Tensor:
    """8-bit photographs (N, S, S, 3), one view of each -> images (N, 3, S, S) in [0, 1], on the same device.

    The same as `View.of`, but for single levels of 255: resampling is a matrix product along either side, rounded to 8
    bits after each, as Pillow does it.
    """
    size, device = pictures.shape[1], pictures.device
    numbers = torch.tensor([astuple(view) for view in views], dtype=torch.float64)
    x, y, side, mirrored = numbers.T.to(device, non_blocking=True)
    across, down = bicubic(x, side, size), bicubic(y, side, size)
    across = torch.where(mirrored[:, None, None] > 0, across.flip(2), across)
    levels = pictures.permute(0, 3, 1, 2).float()
    levels = (levels @ across[:, None].mT).round_().clamp_(0, 255)
    levels = (down[:, None] @ levels).round_().clamp_(0, 255)
    return levels.div_(255).contiguous(memory_format=torch.channels_last)


def bicubic(start: Tensor, side: Tensor, size: int) -> Tensor:
    """Weights (N, size, size) that bring the pixels from `start` to `start + side`, both (N,), to `size` pixels.

    Keys's kernel with a = -0.5, Pillow's `BICUBIC`. Parts are enlarged, never reduced, so that it keeps its width.
    """
    places = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    centres = start[:, None] + places * side[:, None] / size
    far = (places - centres[:, :, None]).float().abs()
    near = ((1.5 * far - 2.5) * far * far + 1) * (far < 1)
    weights = near + (((-0.5 * far + 2.5) * far - 4) * far + 2) * ((far >= 1) & (far < 2))
    return weights / weights.sum(dim=2, keepdim=True)


@dataclass(frozen=True)
class TrainingStream:
    """Batches of training photographs by step. Every epoch is a new permutation; batches run on across epochs.

    `rank` of `num_ranks` processes gets its contiguous share of every global batch, so that the photographs of a step
    do not depend on how many processes there are.
    """

    photos: Photos
    batch_size: int
    seed: int
    augmentation: Augmentation = Augmentation()
    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.num_ranks:
            raise SettingsError(f"batch_size={self.batch_size} cannot be shared evenly by {self.num_ranks} processes")

    def members(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index of the photograph) of every picture in this rank's share of a step."""
        share = self.batch_size // self.num_ranks
        first = step * self.batch_size + self.rank * share
        places = [divmod(place, len(self.photos)) for place in range(first, first + share)]
        return [(epoch, int(epoch_order(self.seed, epoch, len(self.photos))[place])) for epoch, place in places]

    def ids(self, step: int) -> list[str]:
        """The photographs of this rank's share of a step."""
        return [self.photos.photos[index].id for _, index in self.members(step)]

    def version(self, epoch: int) -> int:
        """Which version of a photograph an epoch shows."""
        return epoch % self.augmentation.variants if self.augmentation.variants else epoch

    def versions(self, step: int) -> list[str]:
        """The versions of photographs in this rank's share of a step: alike where the picture is."""
        return [f"{self.version(epoch)}:{index}" for epoch, index in self.members(step)]

    def view(self, epoch: int, index: int) -> View:
        """What an epoch shows of a photograph, a pure function of (seed, epoch, photograph)."""
        photo_id = zlib.crc32(self.photos.photos[index].id.encode(errors="surrogateescape"))
        generator = np.random.default_rng((self.seed, self.version(epoch), photo_id))
        return self.augmentation.view(self.photos.image_size, generator)

    def picture(self, epoch: int, index: int) -> Pixels:
        """One augmented photograph."""
        return self.view(epoch, index).of(self.photos.pixels(index))

    def batches(self, first_step: int, num_workers: int | None = None, ahead: int = AHEAD) -> Iterator[Tensor]:
        """Images (N, 3, S, S) in [0, 1] from `first_step` on, without end; `ahead` steps are in the making at once."""
        with ThreadPoolExecutor(num_workers or os.cpu_count(), thread_name_prefix="photos") as pool:
            for pictures in in_advance(pool, partial(self.decoding, pool), first_step, ahead):
                yield to_tensor([picture.result() for picture in pictures])

    def decoding(self, pool: ThreadPoolExecutor, step: int) -> list[Future[Pixels]]:
        """The pictures of this rank's share of a step, as a pool has begun to make them."""
        return [pool.submit(self.picture, *member) for member in self.members(step)]

    def batches_on(self, device: torch.device, first_step: int) -> Iterator[Tensor]:
        """As `batches`, on a device: from photographs in its memory, augmented there, where it is a GPU with room."""
        pictures = self.photos.on_gpu(device) if device.type == "cuda" else None
        if pictures is None:
            yield from (images.to(device, non_blocking=True) for images in self.batches(first_step))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="views") as pool:
            for future in in_advance(pool, lambda step: pool.submit(self.views, step), first_step):
                indices, views = future.result()
                yield views_of(pictures[torch.tensor(indices).to(device, non_blocking=True)], views)

    def views(self, step: int) -> tuple[list[int], list[View]]:
        """Which photographs this rank sees in a step, and what of each."""
        members = self.members(step)
        return [index for _, index in members], [self.view(*member) for member in members]


Work = TypeVar("Work")


def in_advance(
    pool: ThreadPoolExecutor, begin: Callable[[int], Work], first_step: int, ahead: int = AHEAD
) -> Iterator[Work]:
    """The work that a pool was given for each step from `first_step` on; `ahead` steps are in the making at once."""
    queue: deque[Work] = deque()
    try:
        for step in itertools.count(first_step):
            queue.append(begin(step))
            if len(queue) == ahead:
                yield queue.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_photos: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the photographs."""
    return np.random.default_rng((seed, epoch)).permutation(num_photos)
