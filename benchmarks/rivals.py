"""Our decoder and the paper's for each representation, at full width or both at the size of its preset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from preimage import runs, training
from preimage.api import training_settings
from preimage.config import DecoderSettings, Settings, overrides_for
from preimage.decoders import Shape, build_decoder, cost
from preimage.images import Sources
from preimage.inverters import UpConv

PAPERS = {"hog": "paper-hog", "lbp": "paper-lbp", "sift": "paper-sift"}  # else by the shape of the features
SIZES = ("shipped", "full")


@dataclass(frozen=True)
class Candidate:
    """A decoder for a representation at a size: "full" is width 1, any other as many parameters as the preset's."""

    representation: str
    size: str
    decoder: str
    width: float

    def settings(
        self, images: Sources = (), validation: Sources = (), overrides: Iterable[str] = (), seed: int = 0
    ) -> Settings:
        """The preset's, with this decoder; overrides as `preimage zoo train --set` takes them."""
        name = self.representation
        settings = training_settings(name, images, validation, overrides_for(name, overrides), seed)
        return replace(settings, decoder=replace(settings.decoder, name=self.decoder, width=self.width))


def candidates(name: str, size: str, overrides: Iterable[str] = ()) -> list[Candidate]:
    """Ours, then the paper's for this kind of features; the preset's is one of them.

    Raises `WeightsError` where the network's weights are missing.
    """
    settings = training_settings(name, (), (), overrides_for(name, overrides))
    default = settings.decoder
    representation = settings.encoder
    shape, image_size = representation.feature_shape, representation.image_size
    papers = PAPERS.get(name, "paper-vector" if len(shape) == 1 else "paper-map")
    ours = default.name if default.name != papers else DecoderSettings().name
    parameters = cost(runs.make_inverter(settings, representation).network, shape).parameters

    def width(decoder: str) -> float:
        if size == "full":
            return 1.0
        return default.width if decoder == default.name else width_for(decoder, shape, image_size, parameters)

    return [Candidate(name, size, decoder, width(decoder)) for decoder in (ours, papers)]


def width_for(name: str, feature_shape: Shape, image_size: int, parameters: int) -> float:
    """The width, in thousandths, at which a decoder has the number of parameters nearest to `parameters`.

    Channels are multiples of 8: it comes near, not more. Found by bisection.
    """

    def count(thousandths: int) -> int:
        decoder = build_decoder(name, feature_shape, image_size, thousandths / 1000)
        return sum(parameter.numel() for parameter in decoder.parameters())

    low, high = 1, 1000
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return min(low, high, key=lambda thousandths: abs(count(thousandths) - parameters)) / 1000


def stepper(
    settings: Settings, inverter: UpConv, batch: tuple[Tensor, Tensor], accelerator: Accelerator
) -> Callable[[], None]:
    """What takes `training.steps_at_once` training steps on the same (features, images) each time it is called."""
    state = training.start(inverter.network.to(accelerator.device), settings.training)
    batches, places = itertools.repeat(batch), inverter.places

    def step() -> None:
        last = state.step + training.steps_at_once(accelerator.device)
        training.train(state, batches, last, settings.training, accelerator, places=places)

    return step


def noise(settings: Settings, inverter: UpConv, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch of (features, images) that only has the right shapes."""
    representation, batch = inverter.representation, settings.training.batch_size
    size = representation.image_size
    features = torch.rand(batch, *representation.feature_shape, device=device)
    return features, torch.rand(batch, 3, size, size, device=device)
