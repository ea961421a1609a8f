"""What can be done to features before they are stored: noise, fewer bits, fewer dimensions."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.interfaces import Representation

NOISES = (0.1, 0.3, 1.0, 3.0)  # times the deviation of each dimension
BITS = (8, 4, 2, 1)
SHARES = (4, 16, 64)  # 1/4, 1/16, 1/64 of the dimensions
FLOAT_BYTES = 4
NEIGHBOURS = 10

Change = Callable[[Sequence[str], Tensor], Tensor]  # ids, features (N, ...) -> features (N, *shape)


@dataclass(frozen=True)
class Defence:
    """A change of features, fitted on those of some photographs; `strength` in the unit that `words` name."""

    name: str
    strength: float
    words: str
    shape: tuple[int, ...]
    bytes: float  # to store one photograph's features
    change: Change


class Changed(Representation):
    """Features of another representation, changed after they were looked up."""

    def __init__(self, inner: Representation, words: str, shape: tuple[int, ...], change: Change) -> None:
        self.inner, self.shape, self.change = inner, shape, change
        self.name = f"{inner.name}, {words}"  # type: ignore[misc]
        self.image_size = inner.image_size

    def encode(self, images: Tensor) -> Tensor:
        return self.inner.encode(images)

    def encode_photos(self, ids: Sequence[str], images: Tensor) -> Tensor:
        return self.change(ids, self.inner.encode_photos(ids, images))

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:  # noqa: ARG002 (one size only)
        return self.shape


def fit_defences(sample: Tensor, seed: int = 0) -> list[Defence]:
    """All defences in several strengths for features like this sample (N, ...)."""
    shape = tuple(sample.shape[1:])
    size = math.prod(shape)
    made = [noise(sample, strength, seed) for strength in NOISES]
    made += [quantisation(sample, bits) for bits in BITS]
    most = min(size, len(sample) - 1)
    dimensions = sorted({max(1, size // share) for share in SHARES if size // share <= most}, reverse=True)
    if dimensions:
        mean = sample.flatten(1).mean(dim=0)
        axes = torch.linalg.svd(sample.flatten(1) - mean, full_matrices=False).Vh
        made += [principal_components(mean, axes[:count].T) for count in dimensions]
    made += [first(shape, count) for count in sorted({max(1, shape[0] // share) for share in SHARES}, reverse=True)]
    return [*made, binarisation(sample)]


def beside(*fitted: Tensor) -> Callable[[Tensor], list[Tensor]]:
    """What gives these tensors on the device of the features that they are to be used with."""

    @lru_cache(maxsize=1)
    def moved(device: torch.device) -> list[Tensor]:
        return [one.to(device) for one in fitted]

    return lambda features: moved(features.device)


def noise(sample: Tensor, strength: float, seed: int) -> Defence:
    """Gaussian noise, drawn once for every photograph as it would be when its features are stored."""
    deviation = sample.std(dim=0).cpu()

    def change(ids: Sequence[str], features: Tensor) -> Tensor:
        drawn = []
        for own in ids:
            generator = torch.Generator().manual_seed(
                zlib.crc32(f"{seed} {strength} {own}".encode(errors="surrogateescape"))
            )
            drawn.append(torch.randn(deviation.shape, generator=generator))
        return features + (strength * deviation * torch.stack(drawn)).to(features.device)

    words = f"noise of {strength:g} deviation{'' if strength == 1 else 's'}"
    return Defence("noise", strength, words, tuple(deviation.shape), FLOAT_BYTES * deviation.numel(), change)


def quantisation(sample: Tensor, bits: int) -> Defence:
    """Each dimension rounded to 2^bits levels between the extremes of the sample."""
    low, high = sample.amin(dim=0), sample.amax(dim=0)
    highest = int(2**bits) - 1
    fitted = beside(low, ((high - low) / highest).clamp(min=1e-12))

    def change(_: Sequence[str], features: Tensor) -> Tensor:
        lowest, step = fitted(features)
        return ((features - lowest) / step).round().clamp(0, highest) * step + lowest

    words = f"{bits} bit{'' if bits == 1 else 's'}"
    return Defence("quantisation", bits, words, tuple(low.shape), bits * low.numel() / 8, change)


def principal_components(mean: Tensor, basis: Tensor) -> Defence:
    """Only the first principal components; `basis` (D, d)."""
    count = basis.shape[1]
    fitted = beside(mean, basis)

    def change(_: Sequence[str], features: Tensor) -> Tensor:
        centre, axes = fitted(features)
        reduced: Tensor = (features.flatten(1) - centre) @ axes
        return reduced

    return Defence("pca", count, f"{count} principal components", (count,), FLOAT_BYTES * count, change)


def first(shape: tuple[int, ...], count: int) -> Defence:
    """Only the first dimensions, or channels of maps, as they are stored."""
    kept = (count, *shape[1:])
    what = "dimensions" if len(shape) == 1 else "channels"
    return Defence(
        "first", count, f"the first {count} {what}", kept, FLOAT_BYTES * math.prod(kept), lambda _, f: f[:, :count]
    )


def binarisation(sample: Tensor) -> Defence:
    """Only whether each dimension is above its median: one bit."""
    middle = sample.median(dim=0).values
    fitted = beside(middle)

    def change(_: Sequence[str], features: Tensor) -> Tensor:
        (threshold,) = fitted(features)
        return torch.where(features > threshold, 1.0, -1.0)

    return Defence("binarisation", 1, "above the median or not", tuple(middle.shape), middle.numel() / 8, change)


def neighbours_of(rows: int) -> int:
    """How many neighbours of each row are looked at: few of all, or they could hardly be missed."""
    return max(1, min(NEIGHBOURS, (rows - 1) // NEIGHBOURS))


def neighbours_kept(before: Tensor, after: Tensor) -> float:
    """The share of each row's nearest rows, by cosine, that are still among them: what search would lose."""
    count = neighbours_of(len(before))
    nearest = []
    for features in (before, after):
        flat = features.flatten(1).cpu().double()  # not every device has float64
        unit = F.normalize(flat - flat.mean(dim=0), dim=1)
        alike = (unit @ unit.T).fill_diagonal_(-torch.inf)
        nearest.append(torch.zeros_like(alike, dtype=torch.bool).scatter_(1, alike.topk(count).indices, True))
    return float((nearest[0] & nearest[1]).sum()) / (count * len(before))
