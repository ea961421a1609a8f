"""The paper's inverter: an up-convolutional network trained to give the expected pre-image, E[x | features]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage import training
from preimage.decoders import build_decoder, load_weights
from preimage.errors import NotFittedError
from preimage.interfaces import Batch, Inverter, Pairs, Representation, ignore
from preimage.networks import without_autocast
from preimage.training import Progress, TrainingSettings

PREPARATION_PHOTOS = 256  # that tell the network the features' scale and the mean colour


@runtime_checkable
class Trainable(Protocol):
    """A network that is told the scale of its inputs and the mean colour of the images before it is trained."""

    def prepare(self, inputs: Tensor, images: Tensor) -> None: ...


class UpConv(Inverter):
    """Features -> one forward pass of a decoder -> images. Inverting needs no gradient of the representation.

    `decoder` names a layer table of `preimage.decoders`, `width` multiplies its channels, `seed` draws its weights.
    Feature maps of other sizes than the representation's own become images of other sizes.
    """

    name: ClassVar[str] = "upconv"

    def __init__(
        self, representation: Representation, decoder: str = "compact", width: float = 1.0, seed: int = 0
    ) -> None:
        self.representation = representation
        self.settings: dict[str, Any] = {"decoder": decoder, "width": width}
        self.network: nn.Module = build_decoder(
            decoder,
            representation.feature_shape,
            representation.image_size,
            width,
            log=representation.log_scale,
            seed=seed,
        )
        self.fitted = False

    @property
    def decoder(self) -> nn.Module:
        """The part of the trained network that inverts."""
        return self.network

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what the network reads in training, one image's."""
        return self.representation.feature_shape

    @property
    def places(self) -> int | None:
        """How many features lie side by side in a map, which training keeps from showing; None for vectors."""
        shape = self.representation.feature_shape
        return shape[2] if len(shape) == 3 and shape[2] > 1 else None

    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads in training."""
        return batch.features

    def use(self, network: nn.Module) -> Self:
        """Invert with this trained network from now on."""
        # The layout is part of the result, to the last bit, and channels last is the fast one.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fitted = True
        return self

    def prepare(self, pairs: Pairs) -> None:
        """Before training: tell the network the scale of its inputs and the mean colour, by the first photographs."""
        inputs, images = [], []
        for batch in pairs:
            inputs.append(self.inputs(batch))
            images.append(batch.images)
            if sum(map(len, images)) >= PREPARATION_PHOTOS:
                break
        assert isinstance(self.network, Trainable)
        self.network.to(images[0].device).prepare(torch.cat(inputs), torch.cat(images))

    @training.learning()
    def fit(
        self, pairs: Pairs, settings: TrainingSettings | None = None, on_step: Callable[[Progress], None] = ignore
    ) -> Self:
        """Train on pairs as they come, over and over; `preimage.train` adds shuffling, augmentation, a run folder.

        The budget of `settings` is its `steps`, 1000 if it has none; others are refused. `on_step` is told of each.
        """
        settings = settings or TrainingSettings()
        steps = training.steps_of(settings)
        self.prepare(pairs)
        batches = ((self.inputs(batch), batch.images) for batch in repeated(pairs))
        state = training.start(self.network, settings)
        accelerator = training.make_accelerator(next(self.network.parameters()).device.type)
        training.train(state, batches, steps, settings, accelerator, places=self.places, on_step=on_step)
        return self.use(state.best)

    @torch.inference_mode()
    def invert(self, features: Tensor) -> Tensor:
        if not self.fitted:
            raise NotFittedError(self.name)
        self.representation.check(features)
        with without_autocast(features.device):
            images: Tensor = self.decoder.to(features.device).eval()(features.float())
        size = self.representation.image_size_of(features)
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear")  # as the paper measures
        return images.clamp(0, 1)

    @cached_property
    def output_size(self) -> torch.Size:
        """(height, width) of what the decoder puts out for features of the representation's own size.

        By a pass of its own: one on PyTorch's `meta` device, as in `decoders.output_size`, would import a compiler.
        """
        features = torch.zeros(1, *self.representation.feature_shape, device=next(self.decoder.parameters()).device)
        with torch.no_grad():
            size: torch.Size = self.decoder.eval()(features).shape[2:]
        return size

    @torch.inference_mode()
    def perfect(self, images: Tensor) -> Tensor | None:
        """The images scaled to the size the decoder works at, and back."""
        if self.output_size == images.shape[2:]:
            return None
        scaled = F.interpolate(images, self.output_size, mode="bilinear", antialias=True)
        return F.interpolate(scaled, images.shape[2:], mode="bilinear")

    def state(self) -> dict[str, Tensor]:
        if not self.fitted:
            raise NotFittedError(self.name)
        return dict(self.network.state_dict())

    def restore(self, state: dict[str, Tensor]) -> Self:
        load_weights(self.network, state)
        return self.use(self.network)


def repeated(pairs: Pairs) -> Iterator[Batch]:
    """Batches, over and over."""
    while True:
        yield from pairs
