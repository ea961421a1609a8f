"""The nearest neighbour: the training photograph whose features lie closest. A network must do better than remember."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from preimage.interfaces import Inverter, Pairs, Representation, check_features

CHUNK = 256  # remembered photographs compared at a time
LONGEST = 1 << 16  # numbers kept of a photograph's features


class Nearest(Inverter):
    """Features -> the remembered photograph at the least Euclidean distance in feature space.

    Features are kept as float16: their distance from a centre, times a power of two of each photograph's own that
    brings it near 1. Photographs are read again when they are wanted; in a file they are 8 bits. Longer features than
    `LONGEST` are hashed to so many numbers, which changes distances by less than a hundredth. `skip_same` passes over
    photographs whose features are the very same: leave-one-out, when it remembers the photographs it is judged on.
    """

    name: ClassVar[str] = "nearest"

    def __init__(self, representation: Representation, skip_same: bool = False) -> None:
        self.representation = representation
        self.settings: dict[str, Any] = {"skip_same": skip_same}
        self.centre = torch.zeros(1)  # (D,), the mean of the first features seen
        self.scales = torch.ones(1)  # (n,)
        self.features: Tensor | None = None  # (n, D) float16, less `centre`, times `scales`
        self.images: Callable[[Sequence[int]], Tensor] | None = None  # of remembered photographs, by their indices

    def fit(self, pairs: Pairs) -> Self:
        place = 0
        for batch in pairs:
            check_features(batch.features, self.representation.feature_shape)
            if place == 0:
                self.centre = hashed(batch.features).mean(dim=0).cpu()
                self.scales = torch.empty(len(pairs), dtype=torch.float32)
                self.features = torch.empty(len(pairs), len(self.centre), dtype=torch.float16)
            assert self.features is not None
            rows = slice(place, place + len(batch.images))
            self.features[rows], self.scales[rows] = (kept.cpu() for kept in self.rounded(batch.features))
            place = rows.stop
        self.images = pairs.images
        return self

    def invert(self, features: Tensor) -> Tensor:
        images = self.learnt(self.images)
        check_features(features, self.representation.feature_shape)
        return images(self.nearest(features).tolist()).to(features.device)

    def rounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features as they are kept: (N, D) float16, and the power of two (N,) of each."""
        distances = hashed(features) - self.centre.to(features.device)
        scales = torch.exp2(-distances.abs().amax(dim=1).clamp(min=1e-30).log2().ceil())
        return (distances * scales[:, None]).half(), scales

    def nearest(self, features: Tensor) -> Tensor:
        """The index (N,) of the closest remembered photograph."""
        remembered = self.learnt(self.features)
        unit = self.scales.min().item()  # what brings the furthest of all near 1
        kept, scales = self.rounded(features)
        wanted = kept.float() * (unit / scales)[:, None]
        least = wanted.new_full((len(wanted),), torch.inf)
        index = torch.zeros(len(wanted), dtype=torch.long)
        lengths = wanted.square().sum(1)
        chunks = (torch.split(each, CHUNK) for each in (remembered, unit / self.scales))
        for start, (chunk, share) in enumerate(zip(*chunks, strict=True)):
            known = chunk.to(wanted.device).float() * share.to(wanted.device)[:, None]
            squares = lengths[:, None] + known.square().sum(1)[None] - 2 * wanted @ known.T
            if self.settings["skip_same"]:
                # Of what rounding may have moved away from 0, the exact distance decides.
                for own, other in (squares <= 1e-3 * lengths[:, None]).nonzero().tolist():
                    if (wanted[own] - known[other]).square().sum() <= 1e-5 * lengths[own]:
                        squares[own, other] = torch.inf
            nearest = squares.min(dim=1)
            closer = nearest.values < least
            least = torch.where(closer, nearest.values, least)
            index = torch.where(closer.cpu(), nearest.indices.cpu() + start * CHUNK, index)
        return index

    def state(self) -> dict[str, Tensor]:
        features, read = self.learnt(self.features), self.learnt(self.images)
        parts = torch.split(torch.arange(len(features)), CHUNK)
        images = torch.cat([read(part.tolist()).mul(255).round().to("cpu", torch.uint8) for part in parts])
        return {"features": features, "images": images, "scales": self.scales, "centre": self.centre}

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.features, images = state["features"].half(), state["images"]
        self.scales, self.centre = state["scales"], state["centre"]
        self.images = lambda indices: images[list(indices)].float() / 255
        return self


def hashed(features: Tensor) -> Tensor:
    """Features (N, ...) -> (N, at most `LONGEST`), whose distances are nearly the same.

    Each number is added to one of the places, or taken from it, at random but always alike (feature hashing, Weinberger
    et al. 2009).
    """
    flat = features.flatten(1).float()
    if flat.shape[1] <= LONGEST:
        return flat
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(LONGEST, (flat.shape[1],), generator=generator).to(flat.device)
    signs = torch.randint(2, (flat.shape[1],), generator=generator).to(flat.device) * 2 - 1
    return flat.new_zeros(len(flat), LONGEST).index_add_(1, places, flat * signs)
