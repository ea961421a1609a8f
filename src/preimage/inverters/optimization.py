"""Gradient descent on the pixels with a prior on what images look like: the baseline of optimisation.

Mahendran & Vedaldi, *Understanding Deep Image Representations by Inverting Them*, CVPR 2015. In their notation, with
pixel values x on the scale 0 ... 255 less the mean colour, what is minimised is

    sigma^2 E(x) = sigma^2 |Phi(x) - Phi0|^2 / |Phi0|^2 + lambda_TV / 2 sum (dx^2 + dy^2) + lambda_A / 2 sum x^6

where sigma is the usual norm of an image, and the rates below belong to sigma^2 E.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from preimage.errors import DivergedError, SettingsError
from preimage.interfaces import Inverter, Pairs, Representation, ignore

SIGMA_PER_VALUE = 68.92  # 27098 for the 227 x 227 x 3 values of the paper: sigma grows with the root of their number
RANGE_WEIGHT, RANGE_POWER = 8e-10, 6  # lambda_A keeps pixel values near the usual ones
MOMENTUM = 0.9
SCHEDULES: dict[str, list[tuple[int, float]]] = {  # steps and their rate, one phase after the other
    "network": [(100, 4e-3), (200, 4e-4), (100, 4e-5)],
    "hog": [(200, 4e-3), (200, 4e-4), (200, 4e-5), (200, 4e-6)],
}
# For Adam, chosen on training photographs: the rate in levels of 255, and a start so much fainter than the published.
ADAM_STEPS, ADAM_RATE, ADAM_START = 200, 8.0, 0.1
CHUNK = 8  # images at a time: keeps the memory for gradients small


class GradientDescent(Inverter):
    """Gradient descent on the pixels under a natural-image prior (Mahendran & Vedaldi 2015); minutes, not milliseconds.

    Method "mahendran" is the published one: momentum, the published rates, a start from noise. "adam" minimises the
    same energy by Adam from fainter noise, in a quarter of the steps for HOG. `tv_weight` is lambda_TV, by default the
    published one (see `usual_tv_weight`); `iterations` stretches or shortens the schedule. Fitting finds the mean
    colour. Any representation with a `smooth` form can be inverted; others raise `SettingsError`. `on_step` is called
    with (steps done, steps to do).
    """

    name: ClassVar[str] = "gradient-descent"

    def __init__(
        self,
        representation: Representation,
        method: Literal["mahendran", "adam"] = "mahendran",
        tv_weight: float | None = None,
        iterations: int | None = None,
        seed: int = 0,
        on_step: Callable[[int, int], None] = ignore,
    ) -> None:
        smooth = representation.smooth()
        if smooth is None:
            raise SettingsError(
                f"gradient descent cannot invert {representation.name!r}: no gradient passes from its features to the "
                "image. Inverters that need none: upconv, ridge, nearest, mean-image"
            )
        if method not in ("mahendran", "adam"):
            raise SettingsError(f"method is 'mahendran' or 'adam', got {method!r}")
        if tv_weight is not None and not 0 <= tv_weight < math.inf:
            raise SettingsError(f"tv_weight is at least 0, got {tv_weight}")
        if iterations is not None and iterations < 1:
            raise SettingsError(f"iterations is at least 1, got {iterations}")
        self.smooth = smooth
        self.representation = representation
        self.settings: dict[str, Any] = {
            "method": method,
            "tv_weight": tv_weight,
            "iterations": iterations,
            "seed": seed,
        }
        self.on_step = on_step
        self.mean: Tensor | None = None  # (3,), 0 ... 255

    def fit(self, pairs: Pairs) -> Self:
        total = torch.zeros(3, dtype=torch.float64)
        for batch in pairs:
            total += batch.images.cpu().double().mean(dim=(2, 3)).sum(dim=0)  # not every device has float64
        self.mean = (255 * total / len(pairs)).float()
        return self

    def invert(self, features: Tensor) -> Tensor:
        """Raises `DivergedError` where the descent did not stay finite."""
        colour = self.learnt(self.mean)
        self.representation.check(features)
        with torch.inference_mode(False), torch.enable_grad():
            mean = colour.to(features.device).view(3, 1, 1)
            parts = [self.descend(part.detach().clone(), mean) for part in torch.split(features, CHUNK)]
            return ((torch.cat(parts) + mean) / 255).clamp(0, 1)

    def descend(self, features: Tensor, mean: Tensor) -> Tensor:
        """Features -> the pixel values x (N, 3, H, W), less the mean, at which the descent ended."""
        tv_weight = self.settings["tv_weight"]
        if tv_weight is None:
            tv_weight = usual_tv_weight(self.representation)
        energy = Energy(self.smooth, features.float(), mean, tv_weight)
        x = noise(self.representation.image_size_of(features), self.settings["seed"]).to(features.device)
        x = x.expand(len(features), -1, -1, -1).clone()  # the same for every image, whatever its batch
        x = self.adam(energy, ADAM_START * x) if self.settings["method"] == "adam" else self.mahendran(energy, x)
        if not torch.isfinite(x).all():
            raise DivergedError(
                f"gradient descent on {self.representation.name!r} left the finite numbers: its rates do not fit this "
                "representation; try method='adam'"
            )
        return x

    def mahendran(self, energy: Energy, x: Tensor) -> Tensor:
        """The published schedule; momentum starts anew in every phase."""
        phases = self.schedule()
        total, done = sum(steps for steps, _ in phases), 0
        for steps, rate in phases:
            optimiser = torch.optim.SGD([x.requires_grad_()], lr=rate, momentum=MOMENTUM)
            for _ in range(steps):
                take_step(energy, x, optimiser)
                done += 1
                self.on_step(done, total)
        return x.detach()

    def adam(self, energy: Energy, x: Tensor) -> Tensor:
        """Adam with a rate that falls to 0 along half a cosine."""
        steps = self.settings["iterations"] or ADAM_STEPS
        optimiser = torch.optim.Adam([x.requires_grad_()], lr=ADAM_RATE)
        fall = CosineAnnealingLR(optimiser, steps)
        for done in range(1, steps + 1):
            take_step(energy, x, optimiser)
            fall.step()
            self.on_step(done, steps)
        return x.detach()

    @property
    def remark(self) -> str:
        return "the published schedule" if self.settings["method"] == "mahendran" else "by Adam"

    def schedule(self) -> list[tuple[int, float]]:
        """Steps and rate of every phase, stretched so that there are `iterations` in all."""
        phases = SCHEDULES["hog" if self.representation.name == "hog" else "network"]
        published = sum(steps for steps, _ in phases)
        total = self.settings["iterations"] or published
        ends = [round(total * sum(steps for steps, _ in phases[:end]) / published) for end in range(len(phases) + 1)]
        return [(ends[phase + 1] - ends[phase], rate) for phase, (_, rate) in enumerate(phases)]

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.learnt(self.mean)}

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.mean = state["mean"].float()
        return self


@dataclass(frozen=True)
class Energy:
    """sigma^2 E of the pixel values x (N, 3, H, W), less the mean: one number (N,) an image."""

    smooth: Callable[[Tensor], Tensor]
    target: Tensor  # (N, *feature_shape)
    mean: Tensor  # (3, 1, 1), 0 ... 255
    tv_weight: float

    def __call__(self, x: Tensor) -> Tensor:
        extremes = x.square().pow(RANGE_POWER // 2).flatten(1).sum(dim=1)  # several times as fast as the sixth power
        prior = self.tv_weight / 2 * total_variation(x) + RANGE_WEIGHT / 2 * extremes
        return sigma(x[0].numel()) ** 2 * self.distance(x) + prior

    def distance(self, x: Tensor) -> Tensor:
        """|Phi(x) - Phi0|^2 / |Phi0|^2; where Phi0 is 0 there is nothing to divide by."""
        missing = self.smooth((x + self.mean) / 255) - self.target
        norm = self.target.square().flatten(1).sum(dim=1)
        return missing.square().flatten(1).sum(dim=1) / torch.where(norm > 0, norm, 1)


def sigma(values: int) -> float:
    """The usual norm of an image with so many values, on the scale 0 ... 255 less the mean."""
    return SIGMA_PER_VALUE * math.sqrt(values)


def total_variation(x: Tensor) -> Tensor:
    """The sum (N,) of the squared differences between neighbouring pixels: beta_TV = 2."""
    across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    total: Tensor = across.square().flatten(1).sum(dim=1) + down.square().flatten(1).sum(dim=1)
    return total


def usual_tv_weight(representation: Representation) -> float:
    """lambda_TV: 1, 10 or 100, by how many pixels a place of the feature map stands for.

    Published are 1 for HOG and conv1 of AlexNet (8 pixels), 10 for conv2 to conv4 (17), 100 for conv5 (38) and the
    vectors after it. The same rule serves all other representations.
    """
    shape = representation.feature_shape
    pixels = representation.image_size / shape[-1] if len(shape) == 3 else math.inf
    return 1.0 if pixels < 12 else 10.0 if pixels < 25 else 100.0


def noise(size: tuple[int, int], seed: int) -> Tensor:
    """Gaussian noise (1, 3, H, W) of norm sigma."""
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    return x * (sigma(x.numel()) / float(torch.linalg.vector_norm(x)))


def take_step(energy: Energy, x: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One step on the sum over images, in which every image's pixels only meet their own energy."""
    optimiser.zero_grad()
    energy(x).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
