"""Encoders this package does not know: what all doors to them have in common.

Whatever comes out of an encoder becomes float32 features, and is distrusted: it must be finite, of the same shape every
time, and the same for the same image. So a probe, a picture made by a formula, is encoded when an encoder is first used
(alone, then beside another picture), and again from time to time.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from preimage.errors import (
    FeatureError,
    ImageError,
    PreimageError,
    PreimageWarning,
    PreprocessingWarning,
    SettingsError,
)
from preimage.images import to_tensor
from preimage.interfaces import Representation, check_features, check_images
from preimage.networks.preprocessing import Preprocessing
from preimage.probe import probe_picture
from preimage.words import shape_in_words

IMAGE_SIZE = 224  # pixels, where neither the encoder nor its user names a size
REPEATED = 1e-4  # of the largest feature: how far the same image may come out differently, encoded again
COMPANY = 1e-2  # the same, in another company; sums run in another order then
PROBE_EVERY = 64  # calls, after those whose number is a power of two
CLASS_TOKENS = (0, 1, 2, 5)  # before the places: none, the class, DeiT's distillation, DINOv2's four registers

Layout = Literal["nchw", "nhwc"]
Tokens = Literal["auto", "map", "class", "mean", "flat"]
Output = str | int | None
Size = tuple[str, int, int]  # device type, height, width


@dataclass
class Watch:
    """What an encoder gave for the probe, by size; and how often it has been called."""

    seen: dict[Size, Tensor] = field(default_factory=dict)
    shapes: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    row: tuple[int, ...] | None = None  # the shape of one image's row as the encoder gives it
    calls: int = 0
    finite: dict[torch.device, Tensor] = field(default_factory=dict)  # whether features on a GPU were, since last asked

    def due(self) -> bool:
        """Whether to look again before the call that begins; the first one has just been looked at."""
        self.calls += 1
        return self.calls > 1 and (self.calls & (self.calls - 1) == 0 or self.calls % PROBE_EVERY == 0)


@dataclass(frozen=True, eq=False)
class Foreign(Representation):
    """An encoder behind a door, at an `address`; the other fields are its settings, with the name all that makes it.

    Of several outputs `output` names one: a key, a position, or a path of them such as `hidden_states.3`. Features
    (N, D) and (N, C, h, w) stay as they are, (N,) becomes (N, 1), (N, T, D) are read as `tokens`, anything else is
    flattened. Tokens become a `map` of their places if T less the `class_tokens` before them (by default 0, 1, 2 or 5,
    the first that makes it work) is a square, or the `class` token, the `mean` over places, or are kept `flat`; `auto`
    is `map` where that is possible, else `flat`.
    """

    address: str
    output: Output = None
    tokens: Tokens = "auto"
    class_tokens: int | None = None

    door: ClassVar[str]
    advice: ClassVar[str] = ""  # for encoders that do not give a row for each image

    def __post_init__(self) -> None:
        if self.class_tokens is not None and self.class_tokens < 0:
            raise SettingsError(f"class_tokens is not negative, got {self.class_tokens}")

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.door}:{self.address}"

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that are not as they are by default."""
        chosen = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "address"}
        usual = {entry.name: entry.default for entry in fields(self) if entry.default is not MISSING}
        return {name: value for name, value in chosen.items() if value != usual[name]}

    @abstractmethod
    def compute(self, images: Tensor) -> Any:
        """What the encoder gives for images (N, 3, H, W) in [0, 1]: a tensor, an array, or several by key or place."""

    def chosen(self, given: Any) -> Any:
        """The one output that is asked for."""
        return pick(given, self.output, self.name)

    @property
    def channels_last(self) -> bool:
        """Whether maps come as (N, h, w, C)."""
        return False

    @property
    def prefixes(self) -> Sequence[int]:
        """How many tokens may come before those of the places, likeliest first."""
        return CLASS_TOKENS if self.class_tokens is None else [self.class_tokens]

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        self.meet(images.device, *images.shape[2:])
        shape = self.feature_shape_at(*images.shape[2:])
        if self.watch.due():
            self.look_again(images.device, *images.shape[2:])
        features = self.read(self.compute(images), images)
        if tuple(features.shape[1:]) != shape:
            raise FeatureError(
                f"{self.name} gave features of shape {tuple(features.shape[1:])} after {shape} for images of the same "
                "size; an inverter needs them all alike"
            )
        return features

    def read(self, given: Any, images: Tensor) -> Tensor:
        """What the encoder gave -> features (N, ...) on the images' device, checked."""
        array = as_tensor(self.chosen(given), self.name)
        if array.ndim == 0 or len(array) != len(images):
            raise FeatureError(
                f"{self.name} gave an array of shape {tuple(array.shape)} for a batch of {len(images)}: expected "
                f"as many rows, one an image{self.advice}"
            )
        features = arrange(array, self.tokens, self.prefixes, self.channels_last, self.name)
        if features.numel() == 0:
            raise FeatureError(f"{self.name} gave an empty array of shape {tuple(array.shape)}")
        self.check_finite(features)
        return features.to(images.device)

    def check_finite(self, features: Tensor) -> None:
        """Raise `FeatureError` unless features are finite.

        On a GPU, which would have to be waited for, the answer is only noted: `ask_whether_finite` reads it when the
        probe is encoded.
        """
        if features.device.type != "cpu":
            finite = torch.isfinite(features.detach()).all()
            self.watch.finite[features.device] = finite & self.watch.finite.get(features.device, finite)
            return
        try:
            check_features(features, features.shape[1:])
        except FeatureError as error:
            raise FeatureError(f"{self.name}: {error}") from error

    def ask_whether_finite(self) -> None:
        """Raise `FeatureError` if features on a GPU were not finite since this was asked last."""
        answers = list(self.watch.finite.values())
        self.watch.finite.clear()
        if not all(answers):
            raise FeatureError(
                f"{self.name}: features must be finite; those of one of the last {PROBE_EVERY} batches hold NaN or "
                "infinity. On the CPU the rows are named"
            )

    @cached_property
    def watch(self) -> Watch:
        return Watch()

    @property
    def home(self) -> torch.device:
        """The device that the encoder computes on where no images say which."""
        return torch.device("cpu")

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        """Found by encoding the probe."""
        self.meet(self.home, height, width)
        return self.watch.shapes[height, width]

    def meet(self, device: torch.device, height: int, width: int) -> None:
        """Have the `first_look` at images of this size, unless it has been had."""
        if (height, width) not in self.watch.shapes:
            try:
                self.first_look(device, height, width)
            except PreimageError as error:
                if height == width == self.image_size:
                    raise
                raise ImageError(
                    f"{self.name} cannot encode images of {width} x {height} pixels, only its own of "
                    f"{self.image_size}: {error}"
                ) from error

    @torch.no_grad()
    def first_look(self, device: torch.device, height: int, width: int) -> None:
        """Encode the probe alone and in company, and remember what came out."""
        images = probe_and_another(height, width).to(device)
        alone = self.read(self.compute(images[:1]), images[:1])
        together = self.read(self.compute(images), images)
        self.ask_whether_finite()
        if (apart := difference(alone, together[:1])) > COMPANY:
            size = f"{100 * apart:.1f} % of the largest" if apart < 1 else "as much as they are"
            raise FeatureError(
                f"{self.name} gives one image different features from call to call, or beside another image (by "
                f"{size}): it draws random numbers, keeps a state, looks at the whole batch, or is in training mode. "
                "Features must depend on the image alone"
            )
        if len(together) > 1 and torch.equal(together[0], together[1]):
            warnings.warn(
                f"{self.name} gives two very different pictures the same features: is this the output you want?",
                PreimageWarning,
                stacklevel=1,
            )
        self.watch.seen[device.type, height, width] = alone
        self.watch.shapes[height, width] = tuple(alone.shape[1:])

    @torch.no_grad()
    def look_again(self, device: torch.device, height: int, width: int) -> None:
        """Raise `FeatureError` if the probe no longer gives what it gave."""
        before = self.watch.seen.get((device.type, height, width))
        if before is None:
            self.first_look(device, height, width)
            return
        image = probe_and_another(height, width)[:1].to(device)
        again = self.read(self.compute(image), image)
        self.ask_whether_finite()
        if again.shape != before.shape or difference(before, again) > REPEATED:
            raise FeatureError(
                f"{self.name} has changed: the same image gives other features than at first. Its weights or its state "
                "were altered meanwhile; encode everything with one encoder"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Foreign) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


@dataclass(frozen=True, eq=False)
class Fed(Foreign):
    """An encoder that takes (image * white - mean) / deviation: one number, or one a channel in its own order.

    Where these are not given, they are what the encoder itself says (`found`), else mean 0, deviation 1, white 1.
    """

    image_size: int = 0
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    white: float = 0.0
    bgr: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 0:
            raise SettingsError(f"image_size is a number of pixels, got {self.image_size}")
        object.__setattr__(self, "image_size", self.preprocessing.image_size)  # whoever asks gets pixels

    def warn_if_untold(self) -> None:
        """Warn where neither the encoder nor its user says how pixel values are fed to it."""
        if not (self.told or self.mean or self.deviation or self.white):
            warnings.warn(
                f"nothing says how {self.name} is fed, so it gets RGB in [0, 1] at {self.image_size} pixels. If it was "
                "trained on something else, its features are not what they should be: --set mean=... --set "
                "deviation=..., or --set mean=0 if this is right",
                PreprocessingWarning,
                stacklevel=1,  # here: Python repeats none of one place
            )

    @property
    def told(self) -> bool:
        """Whether the encoder itself says how pixel values are fed to it."""
        return self.found is not None

    @property
    @abstractmethod
    def found(self) -> Preprocessing | None:
        """What the encoder itself says about how it is fed; None if nothing."""

    @cached_property
    def preprocessing(self) -> Preprocessing:
        found = self.found or Preprocessing(self.image_size or IMAGE_SIZE)
        if any(value <= 0 for value in self.deviation) or self.white < 0:
            raise SettingsError(f"deviation and white are positive, got {self.deviation} and {self.white}")
        return replace(
            found,
            image_size=self.image_size or found.image_size,
            white=self.white or found.white,
            mean=three_of(self.mean, found.mean, "mean"),
            deviation=three_of(self.deviation, found.deviation, "deviation"),
            bgr=self.bgr or found.bgr,
        )

    def brightened(self, factor: float) -> Self | None:
        if not factor > 0:
            raise SettingsError(f"images are made brighter by a positive factor, got {factor}")
        return replace(self, white=self.preprocessing.white * factor)


def three_of(given: tuple[float, ...], otherwise: tuple[float, float, float], where: str) -> tuple[Any, ...]:
    """One number or three -> three."""
    if len(given) not in (0, 1, 3):
        raise SettingsError(f"{where} is one number or three, one a channel; got {given}")
    return given * 3 if len(given) == 1 else given or otherwise


# --- what an encoder gives -> features --------------------------------------------------------------------------------


def pick(given: Any, output: Output, name: str) -> Any:
    """The array that `output` names among several; the only one needs no name. Raises `FeatureError` with the names."""
    path = "" if output is None else str(output)
    while path:
        choices = parts(given)
        step, rest = (path, "") if path in choices else path.partition(".")[::2]
        if step not in choices:
            there = f"it gives {described(choices)}" if choices else f"there is only {describe(given)}"
            raise FeatureError(f"{name} has no output {str(output)!r}: {there}. Choose by --set output=...")
        given, path = choices[step], rest
    while choices := parts(given):
        if len(choices) > 1:
            raise FeatureError(
                f"{name} gives several outputs: {described(choices)}. Choose one by --set output={next(iter(choices))}"
            )
        given = next(iter(choices.values()))
    return given


def parts(given: Any) -> dict[str, Any]:
    """What several outputs are called: keys, or positions from 0; nothing for an array. Outputs that are None are none.

    A list of numbers is an array.
    """
    named: Mapping[Any, Any] = {}
    if isinstance(given, Mapping):
        named = given
    elif is_dataclass(given) and not isinstance(given, type):
        named = vars(given)
    elif isinstance(given, tuple) and hasattr(given, "_asdict"):  # a named one
        named = given._asdict()
    elif isinstance(given, tuple) or (isinstance(given, list) and any(is_array(one) for one in given)):
        named = dict(enumerate(given))
    return {str(key): value for key, value in named.items() if value is not None}


def is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def described(choices: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} ({describe(value)})" for key, value in choices.items())


def describe(value: Any) -> str:
    return shape_in_words(value.shape) or "a number" if is_array(value) else type(value).__name__


def as_tensor(given: Any, name: str) -> Tensor:
    """An array of any kind of number -> a float32 tensor; raises `FeatureError`."""
    if not isinstance(given, Tensor):
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise FeatureError(f"{name} gave rows of different lengths, expected one array of numbers") from error
        if array.dtype.kind not in "biuf":
            raise FeatureError(f"{name} gave {type(given).__name__} of {array.dtype}, expected an array of numbers")
        given = torch.from_numpy(np.array(array, dtype=np.float32))
    if given.is_complex():
        raise FeatureError(f"{name} gave complex numbers: take their absolute values, or both parts side by side")
    numbers: Tensor = (given if given.layout == torch.strided else given.to_dense()).float()
    return numbers


def arrange(array: Tensor, tokens: Tokens, prefixes: Sequence[int], channels_last: bool, name: str) -> Tensor:
    """(N, ...) -> a vector (N, D) or a map (N, C, h, w); see `Foreign`."""
    if array.ndim == 3:
        return arrange_tokens(array, tokens, prefixes, name)
    if tokens not in ("auto", "flat"):
        raise FeatureError(f"{name} gave an array of {describe(array)}: tokens={tokens!r} is for N x T x D")
    if array.ndim == 4 and tokens != "flat":
        return array.permute(0, 3, 1, 2).contiguous() if channels_last else array
    return array.flatten(1) if array.ndim > 1 else array[:, None]


def before_places(count: int, prefixes: Sequence[int], fewest: int = 1) -> int | None:
    """Which of `prefixes` leaves a square of `fewest` tokens or more; None if none does."""
    return next((k for k in prefixes if count - k >= fewest and math.isqrt(count - k) ** 2 == count - k), None)


def arrange_tokens(array: Tensor, tokens: Tokens, prefixes: Sequence[int], name: str) -> Tensor:
    """(N, T, D) -> (N, D, s, s) with T = s * s + one of `prefixes`, or (N, D), or (N, T * D)."""
    count = array.shape[1]
    prefix = before_places(count, prefixes)
    if tokens == "class":
        return array[:, 0]
    if tokens == "mean":  # a number of tokens before the places that was given holds for any number of places
        before = prefix or (prefixes[0] if len(prefixes) == 1 else 0)
        if before >= count:
            raise FeatureError(f"{name} gave {count} tokens: class_tokens={before} leaves none of the places")
        return array[:, before:].mean(dim=1)
    if tokens == "auto" and prefix is None and prefixes:
        warnings.warn(
            f"{name} gave {count} tokens, which make no square of places: they are read as one vector. If some come "
            "before the places, say how many by --set class_tokens=K",
            PreimageWarning,
            stacklevel=1,  # here: Python repeats none of one place
        )
    if tokens == "flat" or (tokens == "auto" and prefix is None):
        return array.flatten(1)
    if prefix is None:
        raise FeatureError(
            f"{name} gave {count} tokens, which less {' or '.join(map(str, prefixes))} before them are no square: name "
            "their number by --set class_tokens=K, or choose tokens=class, mean or flat"
        )
    side = math.isqrt(count - prefix)
    return array[:, prefix:].transpose(1, 2).reshape(len(array), -1, side, side)


# --- the probe --------------------------------------------------------------------------------------------------------


def probe_and_another(height: int, width: int) -> Tensor:
    """Two pictures (2, 3, height, width) in [0, 1]: the probe, and its negative upside down."""
    picture = to_tensor([probe_picture(height, width)])
    return torch.cat([picture, (1 - picture).flip(2)])


def difference(a: Tensor, b: Tensor) -> float:
    """The greatest difference, relative to the greatest value; 0 for nothing but zeros."""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


def attempt(action: Callable[[], Any], failed: str, kind: type[PreimageError] = FeatureError) -> Any:
    """What code that is not ours returns; whatever it raises becomes an error of this kind that says what `failed`."""
    try:
        return action()
    except PreimageError:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{failed}: {type(error).__name__}: {error}") from error
