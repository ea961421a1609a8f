"""The paper's inverter: an up-convolutional network trained to give the expected pre-image, E[x | features]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from preimage import training
from preimage.decoders import Decoder, build_decoder
from preimage.interfaces import Inverter, NotFittedError, Pairs, Representation, check_features
from preimage.training import TrainingSettings


class UpConv(Inverter):
    """Features -> one forward pass of a decoder -> images. Inverting needs no gradient of the representation.

    `decoder` names a layer table of `preimage.decoders`, `width` multiplies its channels, `seed` draws its weights.
    Feature maps of other sizes than the representation's own become images of other sizes.
    """

    name: ClassVar[str] = "upconv"

    def __init__(
        self, representation: Representation, decoder: str = "smooth", width: float = 1.0, seed: int = 0
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

    def use(self, network: nn.Module) -> Self:
        """Invert with this trained network from now on."""
        # The layout is part of the result, to the last bit, and channels last is the fast one.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fitted = True
        return self

    def fit(self, pairs: Pairs, settings: TrainingSettings | None = None) -> Self:
        """Train on pairs as they come, over and over; `preimage.train` adds shuffling, augmentation, a run folder."""
        settings = settings or TrainingSettings(steps=1000)
        batches = repeated(pairs)
        first = next(batches)
        assert isinstance(self.network, Decoder)
        self.network.prepare(*first)
        state = training.start(self.network, settings)
        accelerator = Accelerator(cpu=first[0].device.type == "cpu")
        training.train(state, batches, settings.steps or 1000, settings, accelerator)
        return self.use(state.best)

    @torch.inference_mode()
    def invert(self, features: Tensor) -> Tensor:
        if not self.fitted:
            raise NotFittedError(self.name)
        own = self.representation.feature_shape
        check_features(features, own if len(own) == 1 else (own[0], None, None))
        images: Tensor = self.network.to(features.device).eval()(features.float())
        size = self.representation.image_size
        if tuple(features.shape[1:]) == own and images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear")  # as the paper measures
        return images.clamp(0, 1)

    def state(self) -> dict[str, Tensor]:
        if not self.fitted:
            raise NotFittedError(self.name)
        return dict(self.network.state_dict())

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.network.load_state_dict(state)
        return self.use(self.network)


def repeated(pairs: Pairs) -> Iterator[tuple[Tensor, Tensor]]:
    """(features, images) batches, over and over."""
    while True:
        for batch in pairs:
            yield batch.features, batch.images
