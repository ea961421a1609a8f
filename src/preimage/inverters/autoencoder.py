"""The autoencoder: the same networks, the encoder trained too. What the architecture could keep, if it wanted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from preimage.decoders import Decoder
from preimage.errors import SettingsError
from preimage.interfaces import Batch, Pairs, Representation, ignore
from preimage.inverters.upconv import UpConv
from preimage.representations.network import ModuleLayer, run_to_layer
from preimage.training import Progress, TrainingSettings


class Autoencoder(UpConv):
    """A layer's network, copied and trained with its decoder to give the image back (the paper's upper bound).

    Its features are its own: `representation` is the trained copy, `origin` the network as it was. With `full_stride`
    off, the first strided convolution of the copy has stride 1, so that nothing is lost there and maps are larger.
    """

    name: ClassVar[str] = "autoencoder"

    def __init__(
        self,
        representation: Representation,
        decoder: str = "compact",
        width: float = 1.0,
        seed: int = 0,
        full_stride: bool = True,
    ) -> None:
        layer = representation.uncached
        if not isinstance(layer, ModuleLayer):
            raise SettingsError(
                "an autoencoder trains the encoder too: it needs a layer of a network that comes with a name "
                "(`preimage list`) or a preimage.representations.ModuleLayer made in Python, and "
                f"{representation.name} is none"
            )
        encoder = copy.deepcopy(layer.module).float()  # trained in float32, whatever it is read in
        if not full_stride:
            remove_first_stride(encoder)
        super().__init__(trained(layer, encoder), decoder, width, seed)
        self.settings["full_stride"] = full_stride
        self.original = layer
        assert isinstance(self.network, Decoder)
        self.network = EncoderDecoder(encoder, layer, self.network)

    @property
    def origin(self) -> Representation:
        return self.original

    @property
    def decoder(self) -> nn.Module:
        assert isinstance(self.network, EncoderDecoder)
        return self.network.decoder

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (3, self.original.image_size, self.original.image_size)

    @property
    def places(self) -> None:
        """No penalty for a grid: relative to how steep pictures are, it keeps the encoder from learning flat ones."""
        return None

    def inputs(self, batch: Batch) -> Tensor:
        return batch.images

    def use(self, network: nn.Module) -> Self:
        super().use(network)
        assert isinstance(network, EncoderDecoder)
        self.representation = trained(self.original, network.encoder)
        return self

    def fit(
        self, pairs: Pairs, settings: TrainingSettings | None = None, on_step: Callable[[Progress], None] = ignore
    ) -> Self:
        return super().fit(pairs, settings, on_step).frozen()

    def state(self) -> dict[str, Tensor]:
        """Of the encoder only what training has changed: the layers behind the inverted one stay as they were."""
        own = self.untrained()
        return {name: value for name, value in super().state().items() if not same(value, own.get(name))}

    def restore(self, state: dict[str, Tensor]) -> Self:
        return super().restore(self.untrained() | state).frozen()

    def untrained(self) -> dict[str, Tensor]:
        """The encoder's part of the state, as it was before training."""
        return {f"encoder.{name}": value for name, value in self.original.module.state_dict().items()}

    def frozen(self) -> Self:
        """Nothing is trained any more: its features ask for no gradient, as those of any representation."""
        self.network.requires_grad_(False)
        return self


class EncoderDecoder(nn.Module):
    """Images (N, 3, S, S) -> a layer's features -> images. The encoder stays in eval mode: nothing random in it."""

    def __init__(self, encoder: nn.Module, read: ModuleLayer, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        self.layer, self.preprocessing, self.tokens = read.layer, read.preprocessing, read.tokens
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        reconstructions: Tensor = self.decoder(self.encode(images))
        return reconstructions

    def encode(self, images: Tensor) -> Tensor:
        return run_to_layer(self.encoder, self.layer, self.preprocessing(images), self.tokens)

    def prepare(self, _inputs: Tensor, images: Tensor) -> None:
        """Before training: the decoder learns the scale of the features as they are now.

        What comes after the layer is frozen: no gradient reaches it, which several processes would wait for. Raises
        `SettingsError` where there is nothing to train before it.
        """
        parameters, features = list(self.encoder.parameters()), self.encode(images[:1])
        if not features.requires_grad:
            raise SettingsError(
                f"an autoencoder trains what leads to its layer, and nothing before {self.layer!r} has weights: take a "
                "later layer, or the inverter upconv"
            )
        slopes = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.requires_grad_(slope is not None)
        with torch.no_grad():
            self.decoder.prepare(self.encode(images), images)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self


def trained(layer: ModuleLayer, encoder: nn.Module) -> ModuleLayer:
    """The same layer of another copy of the network; the copy may still be trained."""
    wanted = [parameter.requires_grad for parameter in encoder.parameters()]
    copied = ModuleLayer(
        encoder,
        layer.layer,
        layer.preprocessing,
        name=layer.name,
        source=f"{layer.source}, trained further",
        settings=layer.settings,
        log=layer.log_scale,
        tokens=layer.tokens,
        shared=True,
    )
    for parameter, own in zip(encoder.parameters(), wanted, strict=True):
        parameter.requires_grad_(own)
    return copied


def same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(value.cpu(), other.cpu().to(value.dtype))


def remove_first_stride(encoder: nn.Module) -> None:
    """Set the first strided convolution to stride 1; raises `SettingsError` where there is none."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1:
            module.stride = (1, 1)
            return
    raise SettingsError(f"{type(encoder).__name__} has no strided convolution: leave full_stride on")
