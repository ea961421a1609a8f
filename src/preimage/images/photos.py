"""Photographs decoded to one size, kept in memory where they fit."""

from __future__ import annotations

import contextlib
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from preimage.errors import ImageError, PreimageWarning
from preimage.images.pictures import Fit, Pixels, decode, resize, to_tensor
from preimage.images.sources import Photo, Sources, find_photos, places_of
from preimage.plain import parts
from preimage.words import listed


class Photos:
    """Photographs decoded to one size, `image_size` x `image_size`, kept in memory where they fit.

    What is no picture or cannot be read is left out when `load` meets it and told in `left_out` (name -> why); a file
    that the user named raises `ImageError` if it is the only one, and so does any that is read without `load`.
    """

    def __init__(self, photos: Sequence[Photo], image_size: int, fit: Fit = "crop") -> None:
        if isinstance(photos, str):
            raise ImageError(f"photographs are opened by Photos.open({photos!r}, {image_size})")
        self.photos = list(photos)
        self.image_size = image_size
        self.fit: Fit = fit
        self.left_out: dict[str, str] = {}
        self._readable = False  # whether each has been decoded once
        self._memory: npt.NDArray[np.uint8] | None = None  # (M, S, S, 3), shared with every subset
        self._rows = np.arange(len(self.photos))  # of the photographs, in memory

    def __repr__(self) -> str:
        return f"{len(self)} Photos at {self.image_size} pixels"

    @classmethod
    def open(cls, sources: Sources, image_size: int, fit: Fit = "crop") -> Photos:
        """The photographs of folders, files, globs, shards ...: see `find_photos`."""
        found = find_photos(sources)
        photos = cls(found.photos, image_size, fit)
        photos.left_out = found.left_out
        return photos

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def ids(self) -> list[str]:
        return [photo.id for photo in self.photos]

    @property
    def places(self) -> list[tuple[str, int]]:
        return places_of(self.photos)

    def among(self, others: Photos) -> list[bool]:
        """Of each photograph, whether it is one of `others` too, by its place."""
        known = set(others.places)
        return [place in known for place in self.places]

    @property
    def labels(self) -> list[int | None]:
        return [photo.label for photo in self.photos]

    @property
    def fingerprint(self) -> str:
        """Which photographs, in which order, at which size; the pixels themselves are not read."""
        content = "\n".join([f"{self.image_size} {self.fit}", *self.ids])
        return f"{zlib.crc32(content.encode(errors='surrogateescape')):08x}-{len(self)}"

    def pixels(self, index: int) -> Pixels:
        """One photograph (image_size, image_size, 3)."""
        if self._memory is not None:
            picture: Pixels = self._memory[self._rows[index]]
            return picture
        photo = self.photos[index]
        image = decode(photo.read(), photo.id, at_least=self.image_size)
        return resize(image, self.image_size, self.fit)

    def load(self, limit: int | None = None, memory_limit: int | None = None) -> Photos:
        """Decode all once, or the first `limit` that can be read; keep them if they fit in `memory_limit` bytes.

        That is by default a third of what there is.
        """
        if self._memory is not None:
            return self.first(limit)
        if not self.photos:
            raise ImageError("there are no photographs to read")
        if memory_limit is None:
            memory_limit = total_memory() // 3
        wanted = len(self) if limit is None else min(limit, len(self))
        keep = wanted * self.image_size**2 * 3 <= memory_limit
        if self._readable and not keep:
            return self.first(limit)
        good: list[int] = []
        bad: dict[int, str] = {}
        kept: list[npt.NDArray[np.uint8]] = []
        position = 0
        while len(good) < wanted and position < len(self):  # once, unless some cannot be read
            block = range(position, min(len(self), position + wanted - len(good)))
            problems, pixels = self.decoded(block, keep)
            bad |= {index: problem for index, problem in zip(block, problems, strict=True) if problem}
            good += [index for index in block if index not in bad]
            kept.append(pixels)
            position = block.stop
        self.left_out |= {self.photos[index].id: problem for index, problem in bad.items()}
        if not good:
            raise ImageError(f"none of the {len(self)} photographs can be read; the first: {bad[0]}")
        self.photos, self._rows = [self.photos[index] for index in good], np.array(good)
        self._readable = True
        if keep:
            self._memory = kept[0] if len(kept) == 1 else np.concatenate(kept)
        return self

    def decoded(self, block: range, keep: bool) -> tuple[list[str], npt.NDArray[np.uint8]]:
        """Why photographs cannot be read, empty where they can, and their pixels if they are kept."""
        pixels = np.empty((len(block) if keep else 0, self.image_size, self.image_size, 3), np.uint8)

        def read(index: int) -> str:
            try:
                picture = self.pixels(index)
            except ImageError as error:
                if self.photos[index].named and len(self) == 1:
                    raise
                return str(error)
            if keep:
                pixels[index - block.start] = picture
            return ""

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(read, block)), pixels

    def on_gpu(self, device: torch.device) -> Tensor | None:
        """All pixels (N, S, S, 3) in the memory of a GPU; None where they are not loaded or would take half of it."""
        torch.cuda.empty_cache()  # or what another training, or the trial of this one, has left would not be free
        if self._memory is None or len(self) * self._memory[0].nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return None
        return torch.from_numpy(self._memory[self._rows]).to(device)

    def subset(self, indices: Iterable[int]) -> Photos:
        """Some of the photographs, in the given order; the pixels in memory are the same."""
        chosen = list(indices)
        part = Photos([self.photos[index] for index in chosen], self.image_size, self.fit)
        part.left_out = dict(self.left_out)
        part._readable = self._readable
        if self._memory is not None:
            part._memory, part._rows = self._memory, self._rows[chosen]
        return part

    def first(self, count: int | None) -> Photos:
        """So many photographs from the beginning; all if there are no more, or for None."""
        return self.subset(range(len(self))[:count])

    def images(self, indices: Sequence[int]) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] of some photographs."""
        if self._memory is not None:
            return to_tensor(self._memory[self._rows[indices]])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return to_tensor(list(pool.map(self.pixels, indices)))

    def batches(self, batch_size: int = 32) -> Iterator[tuple[list[str], Tensor]]:
        """(ids, images (N, 3, S, S) in [0, 1]) in order; the last batch may be smaller."""
        ids = self.ids
        for rows in parts(len(self), batch_size):
            yield ids[rows.start : rows.stop], self.images(rows)


def split(photos: Photos, share: float, seed: int) -> tuple[Photos, Photos]:
    """Photographs at random in two parts, the second with `share` of them and at least two; both in their order."""
    count = max(2, round(share * len(photos)))
    if len(photos) - count < 1:
        raise ImageError(f"{len(photos)} photographs are too few to hold out {count} and train on the rest")
    order = np.random.default_rng(seed).permutation(len(photos))
    held_out, rest = (photos.subset(sorted(part.tolist())) for part in (order[:count], order[count:]))
    return rest, held_out


def at_most(photos: Photos, count: int, seed: int) -> Photos:
    """So many photographs at random, in their order; all if there are no more."""
    if len(photos) <= count:
        return photos
    chosen = np.random.default_rng(seed).choice(len(photos), count, replace=False)
    return photos.subset(sorted(chosen.tolist()))


def warn_left_out(left_out: Mapping[str, str]) -> None:
    """Warn of photographs and other files that were left out (name -> why); of the same ones once."""
    if left_out:
        told = listed([f"{name}: {why}" for name, why in left_out.items()], "; ")
        warnings.warn(f"left out {told}", PreimageWarning, stacklevel=1)  # here: Python repeats none of one place


CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroups v2, v1


def total_memory() -> int:
    """Bytes of memory: the machine's, or what a container may use of it."""
    limits = [int(psutil.virtual_memory().total)]
    for file in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is no container; "max": it has no limit
            limits.append(int(Path(file).read_text()))
    return min(limits)
