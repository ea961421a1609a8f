"""Linear baselines: the mean image, which ignores the features, and ridge regression from features to pixels."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.errors import NotFittedError
from preimage.interfaces import Inverter, Pairs, Representation, check_features

HELD_OUT = 10  # every tenth photograph chooses the strength of the penalty
PENALTIES = [10.0**power for power in range(-5, 3)]
MOST_WEIGHTS = 350_000  # of the local step of ridge regression: what is small enough to ship


class MeanImage(Inverter):
    """The mean of the training photographs, whatever the features: what every other inverter must beat.

    It is kept at `resolution` pixels; there is nothing finer in it.
    """

    name: ClassVar[str] = "mean-image"

    def __init__(self, representation: Representation, resolution: int = 64) -> None:
        self.representation = representation
        self.settings: dict[str, Any] = {"resolution": resolution}
        self.mean: Tensor | None = None  # (3, resolution, resolution)

    def fit(self, pairs: Pairs) -> Self:
        size = self.settings["resolution"]
        total = torch.zeros(3, size, size, dtype=torch.float64)
        for batch in pairs:
            total += F.adaptive_avg_pool2d(batch.images, size).sum(dim=0).cpu()
        self.mean = (total / len(pairs)).float()
        return self

    def invert(self, features: Tensor) -> Tensor:
        if self.mean is None:
            raise NotFittedError(self.name)
        check_features(features, self.representation.feature_shape)
        image = enlarge(self.mean[None].to(features.device), self.representation.image_size)
        return image.clamp(0, 1).expand(len(features), -1, -1, -1)

    def state(self) -> dict[str, Tensor]:
        if self.mean is None:
            raise NotFittedError(self.name)
        return {"mean": self.mean}

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.mean = state["mean"].float()
        return self


class Ridge(Inverter):
    """Ridge regression in two steps small enough to ship (a full one from HOG to pixels would need 25 GB).

    *Global*: all features, pooled to at most `max_inputs` numbers, give the principal components of a thumbnail.
    *Local*, for feature maps: each place and its neighbours give the patch of pixels there, of what the thumbnail left
    over. Penalties are chosen on photographs held out from each regression.
    """

    name: ClassVar[str] = "ridge"

    def __init__(
        self,
        representation: Representation,
        thumbnail: int = 16,
        components: int = 64,
        max_inputs: int = 2048,
        max_neighbourhood: int = 5,
    ) -> None:
        self.representation = representation
        self.settings: dict[str, Any] = {
            "thumbnail": thumbnail,
            "components": components,
            "max_inputs": max_inputs,
            "max_neighbourhood": max_neighbourhood,
        }
        self.weights: dict[str, Tensor] = {}

    @property
    def is_map(self) -> bool:
        return len(self.representation.feature_shape) == 3

    @property
    def patch(self) -> int:
        """Side in pixels at which a place of a feature map is drawn: that of what it stands for, rounded up, or less
        where there are so many channels that its weights could not ship."""
        whole = math.ceil(self.representation.image_size / self.representation.feature_shape[-1])
        return max(1, min(whole, math.isqrt(MOST_WEIGHTS // (3 * self.representation.feature_shape[0]))))

    @property
    def neighbourhood(self) -> int:
        """The largest odd number of places across whose weights stay small enough to ship."""
        per_place = self.representation.feature_shape[0] * 3 * self.patch**2
        sizes = [s for s in (5, 3) if s <= self.settings["max_neighbourhood"] and per_place * s**2 <= MOST_WEIGHTS]
        return sizes[0] if sizes else 1

    def fit(self, pairs: Pairs) -> Self:
        self.weights = {}
        self.weights |= self.fit_thumbnail(pairs)
        if self.is_map:
            self.weights |= self.fit_patches(pairs)
        return self

    def fit_thumbnail(self, pairs: Pairs) -> dict[str, Tensor]:
        size = self.settings["thumbnail"]
        inputs, targets = [], []
        for batch in pairs:
            inputs.append(self.pooled(batch.features))
            targets.append(F.adaptive_avg_pool2d(batch.images, size).flatten(1).cpu())
        thumbnails = torch.cat(targets)
        mean = thumbnails.mean(dim=0)
        components = min(self.settings["components"], *thumbnails.shape)
        covariance = (thumbnails - mean).double().T @ (thumbnails - mean).double()
        basis = torch.linalg.eigh(covariance).eigenvectors.T[-components:].float().contiguous()  # (components, pixels)
        regression = Regression(inputs[0].shape[1], len(basis))
        for x, y in zip(inputs, targets, strict=True):
            regression.add(x, ((y - mean) @ basis.T).to(x.device))
        weight, bias = regression.solve()
        return {"thumbnail.weight": weight, "thumbnail.bias": bias, "thumbnail.basis": basis, "thumbnail.mean": mean}

    def fit_patches(self, pairs: Pairs, places_per_photo: int = 64) -> dict[str, Tensor]:
        channels, height, width = self.representation.feature_shape
        regression = Regression(channels * self.neighbourhood**2, 3 * self.patch**2)
        generator = torch.Generator().manual_seed(0)
        for batch in pairs:
            rest = batch.images - self.from_thumbnail(batch.features)
            rest = F.interpolate(rest, (height * self.patch, width * self.patch), mode="bilinear", antialias=True)
            x = self.neighbours(batch.features)  # (N, places, C * k * k)
            y = F.unfold(rest, self.patch, stride=self.patch).transpose(1, 2)  # (N, places, 3 * p * p)
            chosen = torch.randperm(height * width, generator=generator)[:places_per_photo].to(x.device)
            regression.add(x[:, chosen], y[:, chosen])
        weight, bias = regression.solve()
        return {"patch.weight": weight, "patch.bias": bias}

    def pooled(self, features: Tensor) -> Tensor:
        """Features -> (N, at most max_inputs): maps averaged over places, vectors over runs of dimensions."""
        limit = self.settings["max_inputs"]
        if self.is_map:
            channels, height, _ = self.representation.feature_shape
            side = max(1, min(height, math.isqrt(limit // channels)))
            return F.adaptive_avg_pool2d(features, side).flatten(1)
        flat = features.flatten(1)
        return flat if flat.shape[1] <= limit else F.adaptive_avg_pool1d(flat[:, None], limit)[:, 0]

    def neighbours(self, features: Tensor) -> Tensor:
        """Feature maps -> for every place the features around it (N, places, C * k * k)."""
        reach = self.neighbourhood // 2
        padded = F.pad(features, (reach,) * 4, mode="replicate")
        return F.unfold(padded, self.neighbourhood).transpose(1, 2)

    def from_thumbnail(self, features: Tensor) -> Tensor:
        w = {name: value.to(features.device) for name, value in self.weights.items()}
        scores = self.pooled(features) @ w["thumbnail.weight"] + w["thumbnail.bias"]
        thumbnails = scores @ w["thumbnail.basis"] + w["thumbnail.mean"]
        size = self.settings["thumbnail"]
        return enlarge(thumbnails.view(-1, 3, size, size), self.representation.image_size)

    def invert(self, features: Tensor) -> Tensor:
        if not self.weights:
            raise NotFittedError(self.name)
        check_features(features, self.representation.feature_shape)
        images = self.from_thumbnail(features)
        if self.is_map:
            _, height, width = self.representation.feature_shape
            weight, bias = (self.weights[f"patch.{name}"].to(features.device) for name in ("weight", "bias"))
            patches = self.neighbours(features) @ weight + bias
            size = (height * self.patch, width * self.patch)
            detail = F.fold(patches.transpose(1, 2), size, self.patch, stride=self.patch)
            images = images + F.interpolate(detail, images.shape[2:], mode="bilinear", antialias=True)
        return images.clamp(0, 1)

    def state(self) -> dict[str, Tensor]:
        if not self.weights:
            raise NotFittedError(self.name)
        return self.weights

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.weights = {name: value.float() for name, value in state.items()}
        return self


class Regression:
    """Ridge regression from sums alone, so that examples can stream by: y = x @ weight + bias.

    Every tenth example is held out; its sums are enough to know its error under each penalty.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.xx = torch.zeros(2, inputs + 1, inputs + 1, dtype=torch.float64)  # fitted on, held out
        self.xy = torch.zeros(2, inputs + 1, outputs, dtype=torch.float64)
        self.seen = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Examples x (N, inputs), y (N, outputs); or (N, places, ...): a photograph is held out with all its places."""
        held_out = torch.arange(self.seen, self.seen + len(x), device=x.device) % HELD_OUT == HELD_OUT - 1
        self.seen += len(x)
        for part, chosen in enumerate((~held_out, held_out)):
            inputs = F.pad(x[chosen].flatten(0, -2), (0, 1), value=1.0)  # a last input of 1: the bias
            self.xx[part] += (inputs.T @ inputs).cpu()
            self.xy[part] += (inputs.T @ y[chosen].flatten(0, -2)).cpu()

    def solve(self) -> tuple[Tensor, Tensor]:
        """Weight (inputs, outputs) and bias (outputs,) under the penalty with the least held-out error."""
        count = self.xx[0, -1, -1]
        scale = (self.xx[0].diagonal() / count).clamp(min=1e-12).sqrt()
        scale[-1] = 1
        solutions = [self.solve_with(self.xx[0], self.xy[0], penalty * count, scale) for penalty in PENALTIES]
        best = min(range(len(PENALTIES)), key=lambda index: self.held_out_error(solutions[index]))
        everything = self.solve_with(self.xx.sum(0), self.xy.sum(0), PENALTIES[best] * self.xx[:, -1, -1].sum(), scale)
        return everything[:-1].float().contiguous(), everything[-1].float()

    def solve_with(self, xx: Tensor, xy: Tensor, penalty: Tensor, scale: Tensor) -> Tensor:
        scaled = xx / scale[:, None] / scale[None, :]
        strength = penalty * torch.ones_like(scale)
        strength[-1] = 0  # the bias is free
        scaled = scaled + torch.diag(strength + 1e-9 * scaled.diagonal().mean())
        solution: Tensor = torch.linalg.solve(scaled, xy / scale[:, None]) / scale[:, None]
        return solution

    def held_out_error(self, solution: Tensor) -> float:
        """The squared error on the held-out examples, less what no solution can change."""
        xx, xy = self.xx[1], self.xy[1]
        return float((solution * (xx @ solution)).sum() - 2 * (solution * xy).sum())


def enlarge(images: Tensor, size: int) -> Tensor:
    """Thumbnails (N, 3, s, s) -> (N, 3, size, size), bilinear."""
    return F.interpolate(images, (size, size), mode="bilinear")
