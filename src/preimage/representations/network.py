"""Any layer of any torch module as a representation; the layers of the networks this package knows are such ones."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, lru_cache
from threading import get_ident
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from preimage.errors import FeatureError, ImageError, SettingsError, UnknownNameError, WeightsError
from preimage.images import to_tensor
from preimage.interfaces import Representation, check_images, short_hash
from preimage.networks import NETWORKS, device_of, dtype_of, load_network, on_device, without_autocast
from preimage.networks.classes import class_names, draw_classes
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import fingerprint
from preimage.representations.foreign import CLASS_TOKENS, Tokens, arrange, as_tensor


class ModuleLayer(Representation):
    """What a layer of a torch module puts out; tokens (N, T, D) are read as `tokens` says, as those of `Foreign` are.

    `layer` is a module path such as `blocks.6`. A module that is being trained is copied as it is now: in eval mode and
    frozen, so that yours can be trained on. One that is frozen, or that is to be `shared`, is read itself, and encoding
    refuses to go on if it has been put back to training. It is run only as far as the layer. Gradients reach the
    images, not the weights.
    """

    differentiable: ClassVar[bool] = True

    def __init__(
        self,
        module: nn.Module,
        layer: str,
        preprocessing: Preprocessing,
        *,
        name: str | None = None,
        source: str = "",
        settings: dict[str, Any] | None = None,
        log: bool = False,
        tokens: Tokens = "auto",
        shared: bool = False,
    ) -> None:
        check_layer(module, layer)
        if not shared and (module.training or any(one.requires_grad for one in module.parameters())):
            with torch.no_grad():  # TorchScript's copies of parameters would be computed ones
                module = copy.deepcopy(module)
        self.module = frozen(module)
        self.tokens = tokens
        self.layer = layer
        self.preprocessing = preprocessing
        self.image_size = preprocessing.image_size
        self.name = name or ".".join(filter(None, [type(module).__name__, layer]))  # type: ignore[misc]
        self.source = source  # type: ignore[misc]
        self.log_scale = log  # type: ignore[misc]
        self._settings = settings or {}
        self._shapes: dict[tuple[int, int], tuple[int, ...]] = {}

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        return self.features_of(images)

    def smooth(self) -> Callable[[Tensor], Tensor]:
        return self.features_of

    def features_of(self, images: Tensor) -> Tensor:
        """As `encode`, for pixel values of any size."""
        check_frozen(self.module, self.name)
        module = on_device(self.module, images.device)
        return run_to_layer(module, self.layer, self.preprocessing(images), self.tokens)

    def brightened(self, factor: float) -> ModuleLayer:
        brighter = copy.copy(self)
        brighter.preprocessing = replace(self.preprocessing, white=self.preprocessing.white * factor)
        brighter.__dict__.pop("fingerprint", None)  # a cached property: the copy has its own
        return brighter

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        """Found by a dry run where the module is."""
        if (height, width) not in self._shapes:
            try:
                with torch.no_grad():
                    features = self.encode(blank(height, width, device_of(self.module)))
            except RuntimeError as error:
                raise ImageError(f"{self.name} cannot be computed for {width} x {height} pixels: {error}") from error
            self._shapes[height, width] = tuple(features.shape[1:])
        return self._shapes[height, width]

    @property
    def settings(self) -> dict[str, Any]:
        """What makes this representation again, with its name; the weights themselves are in the fingerprint."""
        return self._settings

    @property
    def structure(self) -> list[str]:
        """What tells modules of the same weights, and readings of them, apart."""
        return [repr(self.module), *([] if self.tokens == "auto" else [self.tokens])]

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, structure, layer and preprocessing."""
        return short_hash(
            [self.version, self.layer, asdict(self.preprocessing), *self.structure, fingerprint(self.module)]
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleLayer) and (self.name, self.fingerprint) == (other.name, other.fingerprint)

    def __hash__(self) -> int:
        return hash(self.fingerprint)


class KnownLayer(ModuleLayer):
    """A layer of a network that comes with a name: the name says how it is made."""

    @property
    def structure(self) -> list[str]:
        return []

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        if height == width == self.image_size:
            return own_shapes(self.module, self.preprocessing)[self.layer]
        return super().feature_shape_at(height, width)

    def draw(self, features: Tensor) -> Tensor | None:
        """Of class scores and probabilities the likeliest classes, in words."""
        if features.shape[1:] != (len(class_names()),):
            return None
        probabilities = features.cpu() if self.layer == "prob" else features.cpu().softmax(dim=1)
        return to_tensor([np.asarray(one) for one in draw_classes(probabilities, self.image_size)])


def blank(height: int, width: int, device: torch.device) -> Tensor:
    """One black image, whatever torch's default type is."""
    return torch.zeros(1, 3, height, width, dtype=torch.float32, device=device)


@lru_cache(maxsize=4)
def own_shapes(module: nn.Module, preprocessing: Preprocessing) -> dict[str, tuple[int, ...]]:
    """The shapes of what all parts of a network put out for one image of its own size, by one dry run."""
    images = blank(preprocessing.image_size, preprocessing.image_size, device_of(module))
    return {path: tuple(output.shape[1:]) for path, output in outputs_of(module, preprocessing(images)).items()}


def frozen(module: nn.Module) -> nn.Module:
    """The module itself, in eval mode and without gradients of its own; raises `SettingsError` for a lazy one.

    Parameter by parameter: TorchScript's modules have no `requires_grad_`.
    """
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise SettingsError(
                f"{name} of {type(module).__name__} has no values yet: run the module once, or load its weights"
            )
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def check_layer(module: nn.Module, layer: str) -> None:
    """Raise `UnknownNameError` unless this is the path of a part of the module; the empty one is the module itself."""
    paths = [path for path, _ in module.named_modules(remove_duplicate=False)]
    if layer and isinstance(module, torch.jit.ScriptModule):
        raise SettingsError(
            f"layer {layer!r} of a TorchScript module cannot be read: it runs as one piece. Leave the layer out, or "
            "give the module that it was made of"
        )
    if layer not in paths:
        raise UnknownNameError(f"layer of {type(module).__name__}", layer, paths[1:])


def check_frozen(module: nn.Module, name: str) -> None:
    """Raise `FeatureError` if any part of the module is in training mode."""
    if any(part.training for part in module.modules()):
        raise FeatureError(
            f"the module of {name} has been put in training mode: dropout and batch statistics would change "
            "its features from call to call; call .eval()"
        )


class _ReachedLayer(Exception):  # noqa: N818 (not an error: what comes after the layer is not needed)
    pass


def run_to_layer(module: nn.Module, layer: str, inputs: Tensor, tokens: Tokens) -> Tensor:
    """The features that a layer puts out, tokens (N, T, D) read as `tokens` says.

    Raises `FeatureError` where it puts out something else than a tensor.
    """
    name = f"layer {layer!r}" if layer else type(module).__name__
    output = layer_output(module, layer, inputs)
    if not isinstance(output, Tensor):
        raise FeatureError(f"{name} puts out {type(output).__name__}, expected a tensor: name a layer inside it")
    return arrange(as_tensor(output, name), tokens, CLASS_TOKENS, False, name)


def layer_output(module: nn.Module, layer: str, inputs: Tensor) -> Any:
    """Whatever a layer puts out, in the module's own precision; the module is left without hooks whatever happens.

    Other threads may be in the same module, with a hook of their own: each takes what it put in itself.
    """
    found: list[Any] = []
    own = get_ident()
    inputs = inputs.to(dtype_of(module))

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if get_ident() == own:
            found.append(output)
            raise _ReachedLayer

    with without_autocast(inputs.device):
        if not layer:
            return module(inputs)
        with module.get_submodule(layer).register_forward_hook(keep), contextlib.suppress(_ReachedLayer):
            module(inputs)
    if not found:
        raise FeatureError(f"layer {layer!r} was not reached: the module does not use it in its forward pass")
    return found[0]


@torch.no_grad()
def outputs_of(module: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """What every part that takes part in the forward pass puts out, by its path, in the order of completion."""
    found: dict[str, Any] = {}
    own = get_ident()

    def keeper(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if get_ident() == own:
                found[path] = output

        return keep

    with contextlib.ExitStack() as hooks:
        for path, part in module.named_modules():
            hooks.enter_context(part.register_forward_hook(keeper(path)))
        module(inputs.to(dtype_of(module)))
    return found


def network_layer(network: str, layer: str) -> Callable[..., KnownLayer]:
    """What makes the representation of a layer of a network known by name, with the network's own preprocessing."""
    known = NETWORKS[network]

    def make(weights: str | None = None) -> KnownLayer:
        """`weights` names files other than the network's own, with commas between several."""
        module = load_network(network, weights)
        if layer not in dict(module.named_children()):
            raise WeightsError(f"{network}.{layer} cannot be computed: {weights} ends at {list(module._modules)[-1]}")
        settings = {"weights": weights} if weights else {}
        name, log = f"{network}.{layer}", layer == "prob"
        return KnownLayer(
            module, layer, known.preprocessing, name=name, source=known.source, settings=settings, log=log
        )

    return make
