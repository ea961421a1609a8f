"""What is determined and what is guessed: how far off each pixel of a reconstruction is expected to be.

A second, small network learns the variance of an inverter that no longer changes: it minimises the negative
log-likelihood of the reconstruction's errors under a normal distribution with the deviation it predicts (Nix & Weigend
1994; Kendall & Gal 2017 for pictures). Every tenth photograph is held back from it; on those the scale is set, and the
two rivals every map must beat are fitted: one deviation for all pixels, and one that grows with the gradient of the
reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage import training
from preimage.decoders import SLOPE, Decoder, build_decoder, load_weights
from preimage.errors import DivergedError, ImageError, NotFittedError
from preimage.images import grey
from preimage.interfaces import Inverter, Pairs, ignore
from preimage.inverters.upconv import PREPARATION_PHOTOS
from preimage.randomness import seeded
from preimage.training import TrainingSettings

MAPS = 8  # channels between the decoder and the layers that also see the reconstruction
HIDDEN = 16
LOG_VARIANCES = (-10.0, 1.0)  # deviations from 0.007, two grey levels, to 1.6
HELD_OUT = 10  # every tenth photograph sets the scales
MOST_HELD_OUT = 500  # photographs; more would change nothing
LEAST = 2 * HELD_OUT  # photographs to learn from
VALUES = 2000  # colour values taken of each photograph held out
LEVELS = (0.5, 0.8, 0.95)  # of the intervals that are calibrated
DEFAULT = TrainingSettings(steps=1000, warmup_steps=50, grid_weight=0)

MAP, CONSTANT, GRADIENT = KINDS = ("confidence map", "constant", "gradient")


class DeviationNetwork(nn.Module):
    """Features and the reconstruction -> the logarithm of the variance of each pixel (N, 1, H, W)."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.join = nn.Conv2d(MAPS + 4, HIDDEN, 3, padding=1)
        self.output = nn.Conv2d(HIDDEN, 1, 3, padding=1)

    def forward(self, features: Tensor, reconstructions: Tensor) -> Tensor:
        maps = self.decoder(features)
        if maps.shape[2:] != reconstructions.shape[2:]:
            maps = F.interpolate(maps, reconstructions.shape[2:], mode="bilinear")
        steepness = (gradient(reconstructions) + 0.01).log() + 3  # about 0 in the middle
        seen = torch.cat([maps, 4 * (reconstructions - 0.5), steepness], dim=1)
        log_variance: Tensor = self.output(F.leaky_relu(self.join(seen), SLOPE)).float()
        low, high = LOG_VARIANCES
        return (low + F.softplus(log_variance - low)).clamp(max=high)

    @torch.no_grad()
    def prepare(self, features: Tensor, squares: Tensor) -> None:
        """Before training: learn the features' scale, and start from one deviation for all pixels."""
        self.decoder.standardise.measure(features)
        assert self.output.bias is not None
        self.output.weight.mul_(0.1)
        self.output.bias.fill_(float(squares.mean().clamp(min=1e-6).log()))


class Confidence:
    """The expected deviations of an inverter's reconstructions, which it leaves as they are.

    `decoder` and `width` are those of the part that reads the features; `seed` draws its weights.
    """

    def __init__(self, inverter: Inverter, decoder: str = "compact", width: float = 0.1, seed: int = 0) -> None:
        self.inverter = inverter
        self.settings: dict[str, Any] = {"decoder": decoder, "width": width}
        representation = inverter.representation
        shape, size = representation.feature_shape, representation.image_size
        inner = build_decoder(decoder, shape, size, width, log=representation.log_scale, seed=seed, channels=MAPS)
        with seeded(seed):
            self.network = DeviationNetwork(inner)
        self.scales: dict[str, Tensor] = {}

    @training.learning()
    def fit(
        self,
        pairs: Pairs,
        settings: TrainingSettings | None = None,
        on_progress: Callable[[int, int], None] = ignore,
    ) -> Self:
        """Learn from pairs as they come, over and over; the budget of `settings` is its `steps`, and no other.

        Photographs the inverter itself was trained on are reconstructed better than new ones; where the difference is
        not small, fit on others.
        """
        if len(pairs) < LEAST:
            raise ImageError(f"a confidence map needs {LEAST} photographs or more to learn from, got {len(pairs)}")
        settings = settings or DEFAULT
        training.steps_of(settings)  # another budget is refused before the work
        known = self.examples(pairs, held_out=False, most=PREPARATION_PHOTOS)
        features, squares = map(torch.cat, zip(*((one.features, one.squares) for one in known), strict=True))
        self.network = self.network.to(features.device)
        self.network.prepare(features, squares)
        self.network = self.train(self.repeated(pairs), settings, features.device, on_progress)
        held_out = [self.sample(examples) for examples in self.examples(pairs, held_out=True, most=MOST_HELD_OUT)]
        self.scales = fit_scales(*(torch.cat(parts) for parts in zip(*held_out, strict=True)))
        return self

    def train(
        self,
        batches: Iterator[Examples],
        settings: TrainingSettings,
        device: torch.device,
        on_progress: Callable[[int, int], None],
    ) -> Any:
        """Gradient steps; returns the network to use."""
        state = training.start(self.network.train(), settings)
        state.to(device)
        steps, in_precision = training.steps_of(settings), training.autocast(settings.precision, device)
        for step, examples in enumerate(islice(batches, steps)):
            with seeded(step, device), in_precision:
                log_variance = state.decoder(examples.features, examples.reconstructions)
            variance = log_variance.exp()
            # Weighted by the deviation (Seitzer et al. 2022): the optimum is the same, and a few pixels that were
            # thought sure and are not do not throw everything over.
            loss = -(log_likelihood(examples.squares, variance) * variance.detach().sqrt()).mean()
            if not math.isfinite(loss.item()):
                raise DivergedError(
                    f"the likelihood became {-loss.item():.3g} at step {step}: try a lower learning_rate"
                )
            training.descend(state, loss, training.learning_rate(step, steps, settings), settings)
            on_progress(step + 1, steps)
        return state.best

    def repeated(self, pairs: Pairs) -> Iterator[Examples]:
        while True:
            yield from self.examples(pairs, held_out=False)

    def examples(self, pairs: Pairs, held_out: bool, most: float = math.inf) -> Iterator[Examples]:
        """The photographs to learn from, or those held out, as the inverter sees and rebuilds them."""
        seen = told = 0
        for batch in pairs:
            numbers = range(seen, seen + len(batch.ids))
            seen = numbers.stop
            part = batch.part([(number % HELD_OUT == HELD_OUT - 1) == held_out for number in numbers])
            if not part.ids:
                continue
            reconstructions = self.inverter.invert(part.features).clone()  # an inference tensor cannot be trained on
            yield Examples(part.features, reconstructions, part.images - reconstructions)
            told += len(part.ids)
            if told >= most:
                return

    def sample(self, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """Some colour values of photographs: their errors, the map's deviations, the reconstruction's gradient."""
        log_variance = self.log_variance(examples.features, examples.reconstructions)
        steepness, errors = gradient(examples.reconstructions), examples.errors
        stride = max(1, errors[0].numel() // VALUES) | 1  # odd: meets all columns in turn

        def some(values: Tensor) -> Tensor:
            return values.expand_as(errors).flatten(1)[:, ::stride].flatten().cpu().double()

        return some(errors), some((0.5 * log_variance).exp()), some(steepness)

    @torch.no_grad()
    def log_variance(self, features: Tensor, reconstructions: Tensor) -> Tensor:
        values: Tensor = self.network.to(features.device).eval()(features.float(), reconstructions)
        return values

    def predict(self, features: Tensor) -> Tensor:
        """Features (N, *feature_shape) -> standard deviations (N, 1, H, W), of each of a pixel's colours."""
        return self.deviations(features, self.inverter.invert(features))[MAP]

    def deviations(self, features: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
        """The map's standard deviations (N, 1, H, W), and those of its rivals."""
        if not self.scales:
            raise NotFittedError("confidence")
        scale, constant, (base, slope) = (
            self.scales[name].to(features.device) for name in ("map", "constant", "gradient")
        )
        learnt = scale * (0.5 * self.log_variance(features, reconstructions)).exp()
        return {
            MAP: learnt,
            CONSTANT: constant.expand_as(learnt),
            GRADIENT: base + slope * gradient(reconstructions),
        }

    def reach(self, kind: str) -> list[float]:
        """Within how many of its deviations the share of `LEVELS` of the errors lies, on photographs held out."""
        factors: list[float] = self.scales["factors"][KINDS.index(kind)].tolist()
        return factors

    def state(self) -> dict[str, Tensor]:
        """What was learnt, by name; `restore` takes it back."""
        if not self.scales:
            raise NotFittedError("confidence")
        weights = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        return weights | {f"scales.{name}": value for name, value in self.scales.items()}

    def restore(self, state: dict[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "scales": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        load_weights(self.network, parts["network"])
        # As training leaves it: the layout is part of the result, to the last bit.
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scales = {name: value.float() for name, value in parts["scales"].items()}
        return self


@dataclass(frozen=True)
class Examples:
    """Photographs as an inverter sees and rebuilds them; `errors` (N, 3, H, W) are what it is off by."""

    features: Tensor
    reconstructions: Tensor
    errors: Tensor

    @property
    def squares(self) -> Tensor:
        """(N, 1, H, W), the mean over a pixel's colours."""
        return self.errors.square().mean(dim=1, keepdim=True)


def gradient(images: Tensor) -> Tensor:
    """The magnitude (N, 1, H, W) of the grey picture's gradient, per pixel, by central differences."""
    levels = F.pad(grey(images, scale=1, rounded=False)[:, None], (1, 1, 1, 1), mode="replicate")
    across = (levels[:, :, 1:-1, 2:] - levels[:, :, 1:-1, :-2]) / 2
    down = (levels[:, :, 2:, 1:-1] - levels[:, :, :-2, 1:-1]) / 2
    return torch.hypot(across, down)


def log_likelihood(squares: Tensor, variances: Tensor) -> Tensor:
    """Of errors with these squares under normal distributions around 0, in nats."""
    return -0.5 * (math.log(2 * math.pi) + variances.log() + squares / variances)


def fit_scales(errors: Tensor, deviations: Tensor, steepness: Tensor) -> dict[str, Tensor]:
    """The most likely scale of the map, constant, and base and slope of the gradient's deviations; and their reaches.

    All of one row of values (n,). `factors` (3, 3) are quantiles: errors need not be normally distributed.
    """
    squares = errors.square()
    scale, constant = (squares / deviations.square()).mean().sqrt(), squares.mean().sqrt()
    base, slope = fit_line(squares, steepness)
    of_kind = {MAP: scale * deviations, CONSTANT: constant.expand_as(errors), GRADIENT: base + slope * steepness}
    levels = torch.tensor(LEVELS, dtype=errors.dtype)
    factors = torch.stack([(errors.abs() / of_kind[kind]).quantile(levels) for kind in KINDS])
    scales = {"map": scale, "constant": constant, "gradient": torch.stack([base, slope]), "factors": factors}
    return {name: value.float() for name, value in scales.items()}


def fit_line(squares: Tensor, steepness: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely deviation = base + slope * steepness, both positive."""
    start = squares.mean().sqrt()
    logs = torch.stack([start / 2, start / 2 / steepness.mean().clamp(min=1e-6)]).log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        base, slope = logs.exp()
        value = -log_likelihood(squares, (base + slope * steepness).square()).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    base, slope = logs.detach().exp()
    return base, slope
