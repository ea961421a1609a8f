"""torch modules by name: `torch:package.module:factory`, and what the doors to libraries of modules share with it."""

from __future__ import annotations

import inspect
import math
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from preimage.errors import FeatureError, SettingsError, WeightsError, WeightsWarning
from preimage.interfaces import short_hash
from preimage.networks import device_of, on_device
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import Stamp, fingerprint, load_into, read_weights, stamp_of, values_hash
from preimage.randomness import seeded
from preimage.representations.code import code_hashes, import_object
from preimage.representations.foreign import Fed, Layout, attempt
from preimage.representations.network import check_frozen, check_layer, frozen, layer_output
from preimage.words import listed, shape_in_words


@dataclass(frozen=True)
class Loaded:
    """A module ready to encode, how it is fed where that is known, and where it comes from in words."""

    module: nn.Module
    preprocessing: Preprocessing | None
    source: str


@dataclass(frozen=True, eq=False)
class ModuleDoor(Fed):
    """A `layer` of a torch module, by its path such as `blocks.6`; without one, what the module returns.

    The module is put in eval mode and frozen. `layout` is that of its maps: Swin's, for one, are `nhwc`. `weights` is a
    state dict on this disk (.pth, .safetensors, .npz), where `prefix` says under which name it has the module if it has
    several. It may lack what comes behind the layer. Gradients reach the images.
    """

    layer: str | int = ""
    weights: str = ""
    prefix: str = ""
    layout: Layout = "nchw"

    differentiable: ClassVar[bool] = True

    @abstractmethod
    def load(self) -> Loaded:
        """The module and what is known of it; raises `PreimageError` with the way on."""

    def __post_init__(self) -> None:
        if self.prefix and not self.weights:
            raise SettingsError(f"prefix={self.prefix} is one of names in a file: give weights=FILE too")
        super().__post_init__()
        check_layer(self.module, self.path)

    @property
    def prefixes(self) -> Sequence[int]:
        """timm's transformers say how many; a layer may come before they are added."""
        told = getattr(self.module, "num_prefix_tokens", None)
        return super().prefixes if self.class_tokens is not None or told is None else [told, 0]

    @property
    def path(self) -> str:
        """The layer's path; one that is a number comes as a number from the command line."""
        return str(self.layer)

    @cached_property
    def loaded(self) -> Loaded:
        loaded = self.load()
        frozen(loaded.module)
        return loaded

    @property
    def module(self) -> nn.Module:
        return self.loaded.module

    @property
    def found(self) -> Preprocessing | None:
        return self.loaded.preprocessing

    @property
    def source(self) -> str:  # type: ignore[override]
        return self.loaded.source

    @property
    def channels_last(self) -> bool:
        return self.layout == "nhwc"

    def compute(self, images: Tensor) -> Any:
        check_frozen(self.module, self.name)
        if self.as_made.altered():
            raise FeatureError(
                f"the weights of {self.name} have been changed since it was made: encode everything with one encoder, "
                "and make the representation again for another"
            )
        module = on_device(self.module, images.device)
        return attempt(
            lambda: layer_output(module, self.path, self.preprocessing(images)),
            f"{self.name} fails on images {tuple(images.shape)}",
        )

    def check_finite(self, features: Tensor) -> None:
        try:
            super().check_finite(features)
        except FeatureError as error:
            if not (lacking := lacking_in(self.module)):
                raise
            where = f"layer {self.path!r}" if self.path else "the output"
            raise WeightsError(
                f"{self.weights} lacks {listed(lacking)}, which {where} of {self.name} needs: name a layer before by "
                "--set layer=..., or another file"
            ) from error

    def smooth(self) -> Callable[[Tensor], Tensor]:
        return lambda images: self.read(self.compute(images), images)

    @property
    def home(self) -> torch.device:
        return device_of(self.module)

    @cached_property
    def as_made(self) -> WeightsSeen:
        return WeightsSeen(self.module)

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, structure, layer, preprocessing and what is read of the output."""
        reading = [self.output, self.tokens, self.class_tokens, self.layout]
        return short_hash(
            [self.version, self.path, reading, asdict(self.preprocessing), repr(self.module), fingerprint(self.module)]
        )


@dataclass(frozen=True, eq=False)
class TorchModule(ModuleDoor):
    """torch:PACKAGE.MODULE:FACTORY: a layer (--set layer=...) of the torch module that a function of yours returns.

    FACTORY takes no arguments; it may be the module itself, or its class. Torch's seed is 0 while it works, so that
    random weights are the same every time. How the module is fed is read off its `pretrained_cfg` or `default_cfg`
    where it has one, as timm's have.
    """

    door: ClassVar[str] = "torch"

    def load(self) -> Loaded:
        factory = import_object(self.address, self.door)
        stamp = stamp_of(files_of(self.weights))
        module = unaltered(load_module, factory, self.name, self.weights, self.prefix, stamp)
        return Loaded(module, preprocessing_of(module), self.weights or "your module")

    @cached_property
    def fingerprint(self) -> str:
        """Of the module, and of your code: what it does with its weights may have changed."""
        return short_hash([super().fingerprint, *code_hashes(self.address)])


class Kept(NamedTuple):
    """A module that is kept for whoever asks for the same again, and its weights as they were then."""

    module: nn.Module
    as_loaded: WeightsSeen


@lru_cache(maxsize=2)
def load_module(factory: Any, name: str, weights: str, prefix: str, stamp: Stamp) -> Kept:  # noqa: ARG001 (the key's)
    """The module of a factory with the weights of a file; `stamp` tells one state of the file from another."""
    module = factory if isinstance(factory, nn.Module) else call_factory(factory, name)
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{name} gave {type(module).__name__}, expected a torch.nn.Module")
    if weights:
        fill_from_file(module, weights, prefix)
    return Kept(frozen(module), WeightsSeen(module))


def unaltered(load: Any, *arguments: Any) -> nn.Module:
    """The module kept by a cached function, loaded anew if someone has changed its weights since."""
    kept: Kept = load(*arguments)
    if kept.as_loaded.altered():
        load.cache_clear()
        kept = load(*arguments)
    return kept.module


class WeightsSeen:
    """The weights of a module as they were once, to tell whether any has been written to since.

    torch counts how often a tensor is written to, and that is looked at, not the values. Moving a module to another
    device keeps its parameters but replaces its buffers, such as the statistics of batch normalisation, whose counts
    begin anew: buffers are compared by value.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.seen = {name: Seen.of(value) for name, value in weights_of(module).items()}

    def altered(self) -> bool:
        """Whether any weight is another one, or has another type or other values."""
        now = weights_of(self.module)
        return now.keys() != self.seen.keys() or not all(self.unaltered(name, value) for name, value in now.items())

    def unaltered(self, name: str, value: Tensor) -> bool:
        before = self.seen[name]
        if value is before.tensor:
            return (writes(value), value.dtype) == (before.writes, before.dtype)
        after = Seen.of(value)
        if not after.digest or after.digest != before.digest:
            return False
        self.seen[name] = after
        return True


@dataclass(frozen=True)
class Seen:
    """A tensor, how often it had been written to, its type, and for a buffer a hash of its values."""

    tensor: Tensor
    writes: int
    dtype: torch.dtype
    digest: str

    @classmethod
    def of(cls, value: Tensor) -> Seen:
        return cls(value, writes(value), value.dtype, "" if isinstance(value, nn.Parameter) else values_hash(value))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers themselves, by name."""
    return {name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def writes(value: Tensor) -> int:
    """How often torch has seen a tensor written to; of inference mode's it keeps no count."""
    return 0 if value.is_inference() else value._version


def files_of(weights: str) -> list[Path]:
    """A file of weights, or none where none is named; raises `WeightsError` if it is not there."""
    if not weights:
        return []
    file = Path(weights).expanduser()
    if not file.is_file():
        raise WeightsError(f"there is no weights file {weights}")
    return [file]


def call_factory(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise SettingsError(
            f"{name} is {type(factory).__name__}, expected a torch.nn.Module or a function that gives one"
        )
    if needed := required_arguments(factory):
        raise SettingsError(
            f"{name} needs arguments: {', '.join(needed)}. Name a function without any, such as: "
            f"def make(): return {getattr(factory, '__name__', 'factory')}({needed[0]}=...)"
        )
    with seeded(0):
        return attempt(factory, f"{name} fails", SettingsError)


def required_arguments(factory: Callable[..., Any]) -> list[str]:
    """The names of the arguments that must be given; none where Python cannot tell."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:
        return []
    given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in given]


def fill_from_file(module: nn.Module, weights: str, prefix: str = "") -> None:
    """Fill a module from a file; warns of what either has and the other not, where that may be a head of its own.

    What the file lacks becomes NaN, so that nothing it is needed for can be taken for a feature. Raises `WeightsError`
    where the file holds another architecture.
    """
    file = Path(weights).expanduser()
    own = module.state_dict()
    state = under(prefix, read_weights(file), own, file)
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    lacking = [name for name in own if name not in fitting and own[name].is_floating_point()]
    left = [name for name in state if name not in fitting]
    parts, filled = ({part for name in names for part in parents(name)} for names in (own, fitting))
    held = (parents(name) if name in own else innermost(name, parts) for name in left)
    if len(fitting) < len(own) / 2 or any(filled.intersection(one) for one in held):
        load_into(module, state, file)  # says what is wrong
    for name in lacking:
        fitting[name] = torch.full_like(own[name], math.nan)
    module.load_state_dict({**own, **fitting})
    if lacking or left:
        beside = [f"{name} of {shapes(state[name], own[name])}" if name in own else name for name in left]
        told = {"lacks": listed(lacking), "has": f"{listed(beside)} beside it" if beside else ""}
        words = " and ".join(f"{verb} {what}" for verb, what in told.items() if what)
        warnings.warn(f"of this network {file} {words}", WeightsWarning, stacklevel=2)


def shapes(given: Tensor, wanted: Tensor) -> str:
    """`shape 1 x 50 x 64, expected 1 x 65 x 64`."""
    return f"shape {shape_in_words(given.shape)}, expected {shape_in_words(wanted.shape)}"


def under(prefix: str, state: dict[str, Tensor], own: Collection[str], file: Path) -> dict[str, Tensor]:
    """The part of a file that is a module's: what lies under `prefix`, by default where most names are its `own`."""
    found = Counter(
        ".".join(parts[:place])
        for parts in (name.split(".") for name in state)
        for place in range(len(parts))
        if ".".join(parts[place:]) in own
    )
    most = max(found.values(), default=0)
    likely = [one for one, count in found.items() if count >= most / 2]  # the others are parts of these
    if prefix and prefix not in found:
        raise WeightsError(f"{file} has nothing of this network under {prefix!r}, but under {listed(likely)}")
    if not prefix and "" not in likely:
        if len(likely) > 1:
            raise WeightsError(
                f"{file} holds several such networks: choose by --set prefix={' or prefix='.join(likely)}"
            )
        prefix = next(iter(likely), "")
    start = f"{prefix}." if prefix else ""
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def parents(name: str) -> list[str]:
    """`layer3.0.weight` -> `layer3`, `layer3.0`."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: place + 1]) for place in range(len(parts))]


def innermost(name: str, parts: Collection[str]) -> list[str]:
    """The part of a module that would have to hold a tensor of this name; none where that is the module itself."""
    return [part for part in parents(name) if part in parts][-1:]


def lacking_in(module: nn.Module) -> list[str]:
    """The weights of a module that its file lacked."""
    return [name for name, value in weights_of(module).items() if value.is_floating_point() and value.isnan().all()]


def preprocessing_of(module: nn.Module) -> Preprocessing | None:
    """How a module says it is fed, as timm's do."""
    for attribute in ("pretrained_cfg", "default_cfg"):
        facts = getattr(module, attribute, None)
        if isinstance(facts, Mapping) and "mean" in facts and "std" in facts:
            size = facts.get("input_size", (3, 224, 224))[-1]
            return Preprocessing(size, mean=tuple(facts["mean"]), deviation=tuple(facts["std"]))
    return None
