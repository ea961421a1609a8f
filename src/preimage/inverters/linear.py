"""Linear baselines: the mean image, which ignores the features, and ridge regression from features to pixels."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.interfaces import Inverter, Pairs, Representation, check_features

HELD_OUT = 10  # every tenth photograph chooses the strength of the penalty
PENALTIES = [10.0**power for power in range(2, -6, -1)]  # where nothing is held out, the first
PLACES_PER_PHOTO = 64  # of a map, drawn at random
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
        mean = self.learnt(self.mean)
        check_features(features, self.representation.feature_shape)
        image = enlarge(mean[None].to(features.device), self.representation.image_size)
        return image.clamp(0, 1).expand(len(features), -1, -1, -1)

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.learnt(self.mean)}

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
        self.weights: dict[str, Tensor] | None = None

    @property
    def is_map(self) -> bool:
        return len(self.representation.feature_shape) == 3

    @property
    def patch(self) -> int:
        """Side in pixels of the patch drawn for one place: image size over map width, rounded up.

        Less where its weights would be too many to ship.
        """
        whole = math.ceil(self.representation.image_size / self.representation.feature_shape[-1])
        return max(1, min(whole, math.isqrt(MOST_WEIGHTS // (3 * self.representation.feature_shape[0]))))

    @property
    def neighbourhood(self) -> int:
        """5, 3 or 1 places across: the most, up to `max_neighbourhood`, whose weights are few enough to ship."""
        per_place = self.representation.feature_shape[0] * 3 * self.patch**2
        sizes = [s for s in (5, 3) if s <= self.settings["max_neighbourhood"] and per_place * s**2 <= MOST_WEIGHTS]
        return sizes[0] if sizes else 1

    def fit(self, pairs: Pairs) -> Self:
        weights = self.weights = self.fit_thumbnail(pairs)
        if self.is_map:
            weights |= self.fit_patches(pairs)
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
        solution = {f"thumbnail.{name}": value for name, value in regression.solve().items()}
        return solution | {"thumbnail.basis": basis, "thumbnail.mean": mean}

    def fit_patches(self, pairs: Pairs) -> dict[str, Tensor]:
        channels, height, width = self.representation.feature_shape
        regression = Regression(channels * self.neighbourhood**2, 3 * self.patch**2)
        generator = torch.Generator().manual_seed(0)
        for batch in pairs:
            rest = batch.images - self.from_thumbnail(batch.features)
            rest = F.interpolate(rest, (height * self.patch, width * self.patch), mode="bilinear", antialias=True)
            y = F.unfold(rest, self.patch, stride=self.patch).transpose(1, 2)  # (N, places, 3 * p * p)
            chosen = torch.randperm(height * width, generator=generator)[:PLACES_PER_PHOTO].to(y.device)
            regression.add(self.neighbours(batch.features, chosen), y[:, chosen])
        return {f"patch.{name}": value for name, value in regression.solve().items()}

    def pooled(self, features: Tensor) -> Tensor:
        """Features -> (N, at most max_inputs): maps averaged over places, and then runs of numbers."""
        limit, features = self.settings["max_inputs"], features.float()
        if self.is_map:
            channels, height, width = self.representation.feature_shape
            rows = max(1, min(height, math.isqrt(limit * height // (channels * width))))
            features = F.adaptive_avg_pool2d(features, (rows, max(1, rows * width // height)))
        flat = features.flatten(1)
        return flat if flat.shape[1] <= limit else F.adaptive_avg_pool1d(flat[:, None], limit)[:, 0]

    def neighbours(self, features: Tensor, places: Tensor) -> Tensor:
        """Feature maps -> the features around some places, counted by rows: (N, places, C * k * k)."""
        side = self.neighbourhood
        padded = F.pad(features.float(), (side // 2,) * 4, mode="replicate")
        windows = padded.unfold(2, side, 1).unfold(3, side, 1)  # (N, C, h, w, k, k), a view
        rows, columns = places // features.shape[3], places % features.shape[3]
        return windows[:, :, rows, columns].transpose(1, 2).flatten(2)

    def from_thumbnail(self, features: Tensor) -> Tensor:
        weights = self.learnt(self.weights)
        basis, mean = (weights[f"thumbnail.{name}"].to(features.device) for name in ("basis", "mean"))
        thumbnails = self.predicted("thumbnail", self.pooled(features)) @ basis + mean
        size = self.settings["thumbnail"]
        return enlarge(thumbnails.view(-1, 3, size, size), self.representation.image_size)

    def invert(self, features: Tensor) -> Tensor:
        check_features(features, self.representation.feature_shape)
        images = self.from_thumbnail(features)
        if self.is_map:
            _, height, width = self.representation.feature_shape
            places = torch.arange(height * width, device=features.device)
            patches = self.predicted("patch", self.neighbours(features, places))
            size = (height * self.patch, width * self.patch)
            detail = F.fold(patches.transpose(1, 2), size, self.patch, stride=self.patch)
            images = images + F.interpolate(detail, images.shape[2:], mode="bilinear", antialias=True)
        return images.clamp(0, 1)

    def predicted(self, step: str, x: Tensor) -> Tensor:
        """What one of the regressions makes of its inputs (..., inputs)."""
        w = {name: value.to(x.device) for name, value in self.learnt(self.weights).items() if name.startswith(step)}
        weight, bias = w[f"{step}.weight"], w[f"{step}.bias"]
        if f"{step}.centre" in w:  # older files have none
            x, weight = x - w[f"{step}.centre"], weight / w[f"{step}.scale"][:, None]
        return x @ weight + bias

    def state(self) -> dict[str, Tensor]:
        return self.learnt(self.weights)

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.weights = {name: value.float() for name, value in state.items()}
        return self


class Regression:
    """Ridge regression from sums alone, so that examples can stream by: y = (x - centre) / scale @ weight + bias.

    Every tenth example is held out; its sums are enough to know its error under each penalty. The centre is the mean of
    the first examples: an offset that all share would drown in float32 what tells them apart. The scale is the
    geometric mean of each input's own deviation, which alone would favour rarely active inputs, and a common one.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.xx = torch.zeros(2, inputs + 1, inputs + 1, dtype=torch.float64)  # fitted on, held out
        self.xy = torch.zeros(2, inputs + 1, outputs, dtype=torch.float64)
        self.centre = torch.zeros(inputs)
        self.seen = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Examples x (N, inputs), y (N, outputs); or (N, places, ...): a photograph is held out with all its places."""
        if not self.seen:
            self.centre = x.flatten(0, -2).mean(dim=0)
        held_out = torch.arange(self.seen, self.seen + len(x), device=x.device) % HELD_OUT == 1
        self.seen += len(x)
        for part, chosen in enumerate((~held_out, held_out)):
            inputs = F.pad(x[chosen].flatten(0, -2) - self.centre, (0, 1), value=1.0)  # a last input of 1: the bias
            self.xx[part] += (inputs.T @ inputs).cpu()
            self.xy[part] += (inputs.T @ y[chosen].flatten(0, -2)).cpu()

    def solve(self) -> dict[str, Tensor]:
        """weight (inputs, outputs) under the penalty with the least held-out error, bias (outputs,), centre, scale."""
        count = self.xx[0, -1, -1]
        scale = (self.xx[0].diagonal() / count).sqrt()
        still = scale <= 1e-6 * F.pad(self.centre.abs().cpu(), (0, 1))  # its deviation is rounding
        typical = scale[:-1][~still[:-1]].square().mean().sqrt()
        scale[:-1] = (scale[:-1] * typical).sqrt()
        scale = torch.where(still, 1.0, scale)
        solutions = [self.solve_with(self.xx[0], self.xy[0], penalty * count, scale) for penalty in PENALTIES]
        best = min(range(len(PENALTIES)), key=lambda index: self.held_out_error(solutions[index], scale))
        everything = self.solve_with(self.xx.sum(0), self.xy.sum(0), PENALTIES[best] * self.xx[:, -1, -1].sum(), scale)
        weight, bias = everything[:-1].float().contiguous(), everything[-1].float()
        return {"weight": weight, "bias": bias, "centre": self.centre.cpu(), "scale": scale[:-1].float()}

    def solve_with(self, xx: Tensor, xy: Tensor, penalty: Tensor, scale: Tensor) -> Tensor:
        """The solution for inputs divided by `scale`."""
        scaled = xx / scale[:, None] / scale[None, :]
        strength = penalty * torch.ones_like(scale)
        strength[-1] = 0  # the bias is free
        scaled = scaled + torch.diag(strength + 1e-9 * scaled.diagonal().mean())
        solution: Tensor = torch.linalg.solve(scaled, xy / scale[:, None])
        return solution

    def held_out_error(self, solution: Tensor, scale: Tensor) -> float:
        """The squared error on the held-out examples, less what no solution can change."""
        solution, xx, xy = solution / scale[:, None], self.xx[1], self.xy[1]
        return float((solution * (xx @ solution)).sum() - 2 * (solution * xy).sum())


def enlarge(images: Tensor, size: int) -> Tensor:
    """Thumbnails (N, 3, s, s) -> (N, 3, size, size), bilinear."""
    return F.interpolate(images, (size, size), mode="bilinear")
