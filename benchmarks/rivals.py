"""Our decoder and the paper's for each representation, at full width or both at the size of its preset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from preimage import runs, training
from preimage.api import Sources, training_settings
from preimage.config import Settings, overrides_for
from preimage.decoders import cost, width_for
from preimage.inverters import UpConv

OURS = "compact"
PAPERS = {"hog": "paper-hog", "lbp": "paper-lbp", "sift": "paper-sift"}  # else by the shape of the features
SIZES = ("shipped", "full")


@dataclass(frozen=True)
class Candidate:
    """A decoder for a representation at a size: "full" is width 1, "shipped" has as many parameters as the preset's."""

    representation: str
    size: str
    decoder: str

    def settings(
        self, images: Sources = (), validation: Sources = (), overrides: Iterable[str] = (), seed: int = 0
    ) -> Settings:
        """The preset's, with this decoder at its width; overrides as `preimage zoo train --set` takes them."""
        name = self.representation
        settings = training_settings(name, images, validation, overrides_for(name, overrides), seed)
        width = 1.0 if self.size == "full" else settings.decoder.width
        if self.size == "shipped" and self.decoder != settings.decoder.name:
            own = runs.make_inverter(settings, settings.get_representation())
            shape, image_size = own.representation.feature_shape, own.representation.image_size
            width = width_for(self.decoder, shape, image_size, cost(own.network, shape).parameters)
        return replace(settings, decoder=replace(settings.decoder, name=self.decoder, width=width))


def candidates(name: str, size: str, overrides: Iterable[str] = ()) -> list[Candidate]:
    """Ours, then the paper's for this kind of features. Raises `WeightsError` where the network's are missing."""
    ours = Candidate(name, size, OURS)
    shape = ours.settings(overrides=overrides).get_representation().feature_shape
    return [ours, Candidate(name, size, PAPERS.get(name, "paper-vector" if len(shape) == 1 else "paper-map"))]


def stepper(
    settings: Settings, inverter: UpConv, batch: tuple[Tensor, Tensor], accelerator: Accelerator
) -> Callable[[], None]:
    """What takes one training step on the same (features, images) each time it is called."""
    state = training.start(inverter.network.to(accelerator.device), settings.training)
    grid = inverter.representation.grid

    def step() -> None:
        training.train(state, itertools.repeat(batch), state.step + 1, settings.training, accelerator, grid=grid)
        accelerator.free_memory()

    return step


def noise(settings: Settings, inverter: UpConv, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch of (features, images) that only has the right shapes."""
    representation, batch = inverter.representation, settings.training.batch_size
    size = representation.image_size
    features = torch.rand(batch, *representation.feature_shape, device=device)
    return features, torch.rand(batch, 3, size, size, device=device)
