"""The nearest neighbour: the training photograph whose features lie closest. A network must do better than remember."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from preimage.errors import NotFittedError
from preimage.interfaces import Inverter, Pairs, Representation, check_features

CHUNK = 256  # remembered photographs compared at a time
LONGEST = 1 << 16  # numbers kept of a photograph's features


class Nearest(Inverter):
    """Features -> the remembered photograph at the least Euclidean distance in feature space.

    Features are kept as float16, times a power of two that brings them near 1; photographs as 8 bits. Longer features
    than `LONGEST` are hashed to so many numbers, which changes distances by less than a hundredth. `skip_same`
    passes over photographs whose features are the very same: leave-one-out, when it remembers the photographs it is
    judged on.
    """

    name: ClassVar[str] = "nearest"

    def __init__(self, representation: Representation, skip_same: bool = False) -> None:
        self.representation = representation
        self.settings: dict[str, Any] = {"skip_same": skip_same}
        self.scale = 1.0
        self.features: Tensor | None = None  # (n, D) float16, times `scale`
        self.images: Tensor | None = None  # (n, 3, H, W) uint8

    def fit(self, pairs: Pairs) -> Self:
        place = 0
        for batch in pairs:
            if place == 0:
                self.scale = power_of_two_near_one(batch.features)
                length = min(batch.features[0].numel(), LONGEST)
                self.features = torch.empty(len(pairs), length, dtype=torch.float16)
                self.images = torch.empty(len(pairs), *batch.images.shape[1:], dtype=torch.uint8)
            assert self.features is not None
            assert self.images is not None
            rows = slice(place, place + len(batch.images))
            self.features[rows] = (hashed(batch.features) * self.scale).half().cpu()
            self.images[rows] = batch.images.mul(255).round().to("cpu", torch.uint8)
            place = rows.stop
        return self

    def invert(self, features: Tensor) -> Tensor:
        if self.images is None:
            raise NotFittedError(self.name)
        check_features(features, self.representation.feature_shape)
        return self.images[self.nearest(features)].to(features.device).float() / 255

    def nearest(self, features: Tensor) -> Tensor:
        """The index (N,) of the closest remembered photograph."""
        assert self.features is not None
        wanted = (hashed(features) * self.scale).half().float()
        least = torch.full((len(wanted),), torch.inf, device=wanted.device)
        index = torch.zeros(len(wanted), dtype=torch.long)
        for start, chunk in enumerate(torch.split(self.features, CHUNK)):
            known = chunk.to(wanted.device).float()
            lengths = wanted.square().sum(1)
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
        if self.features is None or self.images is None:
            raise NotFittedError(self.name)
        return {"features": self.features, "images": self.images, "scale": torch.tensor([self.scale])}

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.features, self.images = state["features"].half(), state["images"]
        self.scale = float(state["scale"]) if "scale" in state else 1.0
        return self


def hashed(features: Tensor) -> Tensor:
    """Features (N, ...) -> (N, at most `LONGEST`), whose distances are nearly the same.

    Each number is added to one of the places, or taken from it, at random but always alike (feature hashing, Weinberger
    et al. 2009).
    """
    flat = features.flatten(1)
    if flat.shape[1] <= LONGEST:
        return flat
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(LONGEST, (flat.shape[1],), generator=generator).to(flat.device)
    signs = torch.randint(2, (flat.shape[1],), generator=generator).to(flat.device) * 2 - 1
    return flat.new_zeros(len(flat), LONGEST).index_add_(1, places, flat * signs)


def power_of_two_near_one(features: Tensor) -> float:
    """What brings the largest feature to between 1/2 and 1: float16 ends at 65504, and an encoder need not."""
    return float(2.0 ** -math.ceil(math.log2(max(float(features.abs().max()), 1e-30))))
