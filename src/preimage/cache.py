"""Features kept, for representations that take long: an image is encoded once. On disk, or in the memory of a GPU.

On disk it is one compressed NumPy file an image, in a folder for each representation. The name is a hash of the pixels,
the folder's that of name, settings, version and weights; so nothing stale can be served, and a damaged file fails its
checksum and is computed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from preimage.errors import SettingsError
from preimage.interfaces import Representation, Wrapped, check_images

FOLDER = Path.home() / ".cache" / "preimage" / "features"
GIGABYTES = 20.0
SPARSE = 0.25  # share of non-zeros up to which only those are kept


def cached(representation: Representation, wanted: bool | None = None) -> Representation:
    """The same representation, its features kept on disk if `wanted`; by default if they are `costly`."""
    wanted = representation.costly if wanted is None else wanted
    return CachedRepresentation(representation) if wanted else representation


class CachedRepresentation(Wrapped):
    """A representation that looks on disk before it computes; in all else the one it wraps. No gradient passes.

    At most `gigabytes` (10^9 bytes) are kept under `folder`, of all representations together; beyond that the least
    recently used go first, and those this object has used go last: of more photographs than there is room for, some are
    found again in the next pass. Several processes may share a folder.
    """

    def __init__(self, inner: Representation, folder: str | Path | None = None, gigabytes: float = GIGABYTES) -> None:
        if not gigabytes > 0:
            raise SettingsError(f"a cache holds more than 0 gigabytes, got {gigabytes}")
        self.inner = inner
        self.name, self.version = inner.name, inner.version  # type: ignore[misc]
        self.root = Path(folder or FOLDER)
        self.folder = self.root / f"{inner.file_name}-{inner.fingerprint}"
        self.limit = int(gigabytes * 1e9)
        self.size: int | None = None  # bytes kept, known from the first write on: looking at every file takes long
        self.used: set[Path] = set()
        self.full = False  # of what is used

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        files = [self.file(image) for image in images]
        found = [self.read(file) for file in files]
        missing = [index for index, features in enumerate(found) if features is None]
        if missing:
            with torch.no_grad():
                computed = self.inner.encode(images[missing])
            for index, features in zip(missing, computed.cpu(), strict=True):
                found[index] = features
                self.write(files[index], features)
        return torch.stack([features for features in found if features is not None]).to(images.device)

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return self.inner.feature_shape_at(height, width)

    @property
    def uncached(self) -> Representation:
        return self.inner

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    def file(self, image: Tensor) -> Path:
        """Where the features of an image (3, H, W) are or would be."""
        pixels = image.detach().cpu().contiguous()
        key = hashlib.blake2b(repr((pixels.dtype, tuple(pixels.shape))).encode(), digest_size=16)
        key.update(pixels.numpy().data)
        name = key.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.npz"

    def read(self, file: Path) -> Tensor | None:
        """The features in a file; None where there is none, or it is damaged."""
        try:
            with np.load(file, allow_pickle=False) as archive:
                features = unpack(archive)
        except Exception:  # numpy, zipfile and zlib raise nearly anything for bytes that are none of theirs
            return None
        self.used.add(file)
        with contextlib.suppress(OSError):  # a cache that may only be read is of use too
            os.utime(file)
        return features

    def write(self, file: Path, features: Tensor) -> None:
        """Keep features; a disk that is full costs the entry, not the run."""
        if self.full:
            return
        beside: str | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, beside = tempfile.mkstemp(dir=file.parent)
            with os.fdopen(handle, "wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **pack(features.numpy()))
            Path(beside).replace(file)
            own = file.stat().st_size
        except OSError:
            if beside is not None:
                Path(beside).unlink(missing_ok=True)
            return
        self.size = sum(size for _, size, _ in self.entries()) if self.size is None else self.size + own
        if self.size > self.limit:
            self.trim()
        self.used.add(file)

    def trim(self) -> None:
        """Delete what was not used for the longest time until a tenth of the limit is free, or all else is in use."""
        entries, least = sorted(self.entries()), 0.9 * self.limit
        self.size = sum(size for _, size, _ in entries)
        for _, size, file in sorted(entries, key=lambda entry: entry[2] in self.used):
            if self.size <= (self.limit if file in self.used else least):
                break
            file.unlink(missing_ok=True)
            self.size -= size
        self.full = self.size > least

    def entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, file) of everything kept."""
        found = []
        for file in self.root.glob("*/??/*"):
            try:
                facts = file.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append((facts.st_mtime, facts.st_size, file))
        return found


def pack(features: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Features as arrays for a file; mostly zeros, as SIFT's, are kept as what is not zero: 4 times faster to read."""
    chosen = features != 0
    if chosen.mean() > SPARSE:
        return {"features": features}
    return {"shape": np.array(features.shape), "where": np.packbits(chosen), "values": features[chosen]}


def unpack(archive: Mapping[str, npt.NDArray[Any]]) -> Tensor:
    """What `pack` was given."""
    if "features" in archive:
        return torch.from_numpy(archive["features"])
    shape, values = archive["shape"], archive["values"]
    features = np.zeros(math.prod(shape), values.dtype)
    features[np.unpackbits(archive["where"], count=features.size).view(bool)] = values
    return torch.from_numpy(features.reshape(shape))


class FeatureMemory:
    """Features of pictures that recur, by a key of each picture, in the memory of the device that trains on them.

    Of a map only the places that are not all zeros are kept, few in SIFT's. At most `limit` bytes are held, by default
    half of what a GPU has free when the first come, after the photographs; what does not fit is computed whenever it is
    asked for.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], device: torch.device, limit: int | None = None) -> None:
        self.encode, self.device = encode, device
        self.room = limit  # bytes
        self.shape = torch.Size()  # of one image's features
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}  # the places (K,) that hold something, and what (K, C)
        self.counting = Lock()  # of the room, by several threads

    @torch.no_grad()
    def features(self, keys: Sequence[str], images: Tensor) -> Tensor:
        """The features (N, *feature_shape) of images (N, 3, H, W) that are known by keys."""
        missing = [index for index, key in enumerate(keys) if key not in self.kept]
        found = {index: self.kept[key] for index, key in enumerate(keys) if key in self.kept}
        if missing:
            computed = self.encode(images[missing])
            self.shape = computed.shape[1:]
            maps = computed.flatten(2) if computed.ndim > 2 else computed[:, :, None]  # (N, channels, places)
            filled = maps.any(dim=1)  # looked at once for all images: each look waits for a GPU
            image, place = filled.nonzero(as_tuple=True)
            counts = filled.sum(dim=1).tolist()
            entries = zip(torch.split(place, counts), torch.split(maps.mT[image, place], counts), strict=True)
            for index, entry in zip(missing, entries, strict=True):
                found[index] = entry
                self.keep(keys[index], entry)
        return self.arranged([found[index] for index in range(len(keys))])

    def keep(self, key: str, entry: tuple[Tensor, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in entry)
        with self.counting:
            if self.room is None:
                self.room = torch.cuda.mem_get_info(self.device)[0] // 2
            if size <= self.room:
                self.room -= size
                self.kept[key] = entry

    def arranged(self, entries: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Places and what they hold -> features (N, *feature_shape), channels last in memory."""
        channels, places = self.shape[0], math.prod(self.shape[1:])
        values = torch.cat([held for _, held in entries])
        counts = torch.tensor([len(own) for own, _ in entries])
        first = torch.repeat_interleave(torch.arange(len(entries)) * places, counts).to(values.device)
        rows = values.new_zeros(len(entries) * places, channels)
        rows[torch.cat([own for own, _ in entries]) + first] = values
        return rows.view(len(entries), places, channels).transpose(1, 2).reshape(len(entries), *self.shape)
