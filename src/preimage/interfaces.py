"""READ FIRST. The two directions, and what every implementation promises.

    features        = representation.encode(images)       # images (N, 3, H, W), RGB float32 in [0, 1]
    reconstructions = inverter.invert(features)           # (N, 3, H, W) in [0, 1]

A trained network, gradient descent, the nearest neighbour and the mean image are all inverters: same calls, same
images, same metrics. Whatever a representation needs beyond RGB in [0, 1] (grey, BGR, mean subtraction, 0..255) it
does inside `encode`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from preimage.errors import FeatureError, ImageError, NotFittedError

ROUNDING = 1e-5  # by which pixel values may be out of range

Learnt = TypeVar("Learnt")


def short_hash(content: object, sort_keys: bool = False) -> str:
    """A hash of plain values, as text; what has none of JSON's types is an error."""
    return hashlib.sha256(json.dumps(content, sort_keys=sort_keys).encode()).hexdigest()[:16]


class Representation(ABC):
    """A map from images to features (Phi in the paper). Subclasses are frozen dataclasses, their fields the settings.

    `encode` computes on the device the images are on, and treats every image on its own.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the same settings begin to give other features
    differentiable: ClassVar[bool] = False
    log_scale: ClassVar[bool] = False  # whether decoders should read the logarithm, as of probabilities near 1e-6
    costly: ClassVar[bool] = False  # tens of milliseconds an image: worth keeping on disk
    ahead: ClassVar[bool] = False  # the processor's work, safe from several threads: done while a GPU trains
    source: ClassVar[str] = ""  # where what it computes comes from
    image_size: int  # pixels; photographs are brought to image_size x image_size

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> features (N, *feature_shape)."""

    def encode_photos(self, ids: Sequence[str], images: Tensor) -> Tensor:  # noqa: ARG002 (pixels are enough to encode)
        """`encode` for photographs known by their ids; saved features are looked up by these."""
        return self.encode(images)

    def batch(self, ids: list[str], images: Tensor) -> Batch:
        """Photographs with their features, computed when asked for."""
        return Batch(ids, images, self.encode_photos)

    @abstractmethod
    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of one image's features; raises `ImageError` for a size that cannot be encoded."""

    @property
    def grid(self) -> int | None:
        """Pixels between the places of a map, if images of any size can be encoded whole; else None."""
        return None

    def image_size_of(self, features: Tensor) -> tuple[int, int]:
        """(height, width) of the images these features came from."""
        if self.grid is None or tuple(features.shape[1:]) == self.feature_shape:
            return (self.image_size, self.image_size)
        return (features.shape[2] * self.grid, features.shape[3] * self.grid)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of the features of one image of the representation's own size."""
        return self.feature_shape_at(self.image_size, self.image_size)

    def brightened(self, factor: float) -> Representation | None:  # noqa: ARG002 (what is behind is not always known)
        """The same representation of images whose pixel values are `factor` times as large; None if there is no way."""
        return None

    def smooth(self) -> Callable[[Tensor], Tensor] | None:
        """A function like `encode`, but unrounded, for any pixel values and with gradients; None where there is none.

        Gradient descent needs it: on its way, pixels leave [0, 1].
        """
        return None

    def draw(self, features: Tensor) -> Tensor | None:  # noqa: ARG002 (by default there is nothing to draw)
        """Features -> pictures (N, 3, H, W) for people to look at; None where there is no established picture."""
        return None

    def check(self, features: Tensor) -> None:
        """Raise `FeatureError` unless these are its features: maps of any size where it has a grid."""
        own = self.feature_shape
        check_features(features, own if self.grid is None else (own[0], None, None))

    @property
    def uncached(self) -> Representation:
        """The representation that computes: this one, or the one behind a cache on disk."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Everything needed to build this representation again, as plain values."""
        if not is_dataclass(self):
            raise NotImplementedError(f"{type(self).__name__} is not a dataclass: override `settings`")
        return asdict(self)

    @property
    def description(self) -> dict[str, Any]:
        """Name and settings: `get_representation(**description)` makes it again."""
        return {"name": self.name, **self.settings}

    @property
    def file_name(self) -> str:
        """The name as part of a file's: what does not belong there becomes a dash."""
        return re.sub(r"[^\w.+-]+", "-", self.name).strip("-")[-80:]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the features could: a hash of name, version and settings."""
        return short_hash([self.name, self.version, self.settings], sort_keys=True)


class Wrapped(Representation):
    """A representation around another one, `inner`, whose settings and properties it shares."""

    inner: Representation

    @property
    def settings(self) -> dict[str, Any]:
        return self.inner.settings

    @property
    def image_size(self) -> int:  # type: ignore[override]
        return self.inner.image_size

    @property
    def source(self) -> str:  # type: ignore[override]
        return self.inner.source

    @property
    def log_scale(self) -> bool:  # type: ignore[override]
        return self.inner.log_scale

    @property
    def costly(self) -> bool:  # type: ignore[override]
        return self.inner.costly

    @property
    def ahead(self) -> bool:  # type: ignore[override]
        return self.inner.ahead

    @property
    def grid(self) -> int | None:
        return self.inner.grid

    def brightened(self, factor: float) -> Representation | None:
        return self.inner.brightened(factor)

    def smooth(self) -> Callable[[Tensor], Tensor] | None:
        return self.inner.smooth()

    def draw(self, features: Tensor) -> Tensor | None:
        return self.inner.draw(features)


@dataclass(frozen=True)
class Batch:
    """Some photographs, `images` (N, 3, H, W) in [0, 1], and their `features` (N, ...), computed when asked for."""

    ids: list[str]
    images: Tensor
    encode: Callable[[Sequence[str], Tensor], Tensor]  # of ids and images

    @cached_property
    def features(self) -> Tensor:
        with torch.no_grad():
            return self.encode(self.ids, self.images)

    def part(self, chosen: Sequence[bool]) -> Batch:
        """Some of the photographs."""
        ids = [own for own, wanted in zip(self.ids, chosen, strict=True) if wanted]
        return Batch(ids, self.images[torch.tensor(chosen, device=self.images.device)], self.encode)


class Pairs(Protocol):
    """Photographs and their features, in batches and in a fixed order; iterating again starts over."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int:
        """How many photographs."""
        ...

    def images(self, indices: Sequence[int]) -> Tensor:
        """Images (N, 3, H, W) of some of the photographs, read again."""
        ...


class DeviationMap(Protocol):
    """What tells of each pixel of a reconstruction how far off it is expected to be."""

    def predict(self, features: Tensor) -> Tensor:
        """Features (N, *feature_shape) -> standard deviations (N, 1, H, W); pixels are in [0, 1]."""
        ...


class Inverter(ABC):
    """A map from features back to images. Fitted on pairs, saved as one safetensors file."""

    confidence: DeviationMap | None = None  # where it was learnt; inverting takes no notice of it

    name: ClassVar[str]
    representation: Representation
    settings: dict[str, Any]  # what the constructor takes beside the representation

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.representation.name}"

    @property
    def origin(self) -> Representation:
        """The representation it was made for, by whose name it is saved: its own, unless it trains the encoder too."""
        return self.representation

    @abstractmethod
    def fit(self, pairs: Pairs) -> Self:
        """Learn from photographs and their features."""

    @abstractmethod
    def invert(self, features: Tensor) -> Tensor:
        """Features (N, *feature_shape) -> reconstructions (N, 3, H, W) in [0, 1]; raises `FeatureError`."""

    def perfect(self, images: Tensor) -> Tensor | None:  # noqa: ARG002 (by default any image can be reached)
        """Images scaled to the size this inverter works at, and back; None where no scaling is needed."""
        return None

    @property
    def remark(self) -> str:
        """What a reader of its row in a table must know beside its name and what it was fitted on."""
        return ""

    def learnt(self, value: Learnt | None) -> Learnt:
        """What fitting has found; raises `NotFittedError` before that."""
        if value is None:
            raise NotFittedError(self.name)
        return value

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What was learnt, by name; `restore` takes it back."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> Self:
        """Take back what `state` gave."""


def ignore(*_: object) -> None:
    """The callback of someone who does not listen."""


def never() -> bool:
    """The question that is always answered no."""
    return False


def check_images(images: Tensor) -> None:
    """Raise `ImageError` unless this is a batch of RGB images (N, 3, H, W), floating point, in [0, 1].

    The range is checked on the CPU only, and with `ROUNDING` of slack, as resizing needs.
    """
    if not isinstance(images, Tensor):
        raise ImageError(
            f"expected a torch tensor of images (N, 3, H, W), got {type(images).__name__}: of 8-bit arrays "
            "(N, H, W, 3) give torch.from_numpy(array).permute(0, 3, 1, 2) / 255; preimage.images.Photos reads files"
        )
    if images.ndim != 4 or images.shape[1] != 3:
        hint = "; add a batch dimension with images[None]" if images.ndim == 3 else ""
        raise ImageError(f"expected images of shape (N, 3, H, W), got {tuple(images.shape)}{hint}")
    if images.shape[0] == 0 or 0 in images.shape[2:]:
        raise ImageError(f"expected at least one image and one pixel, got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ImageError(f"expected float pixel values in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    if images.dtype != torch.float32:
        raise ImageError(f"expected pixel values of float32, got {images.dtype}: give images.float()")
    if images.device.type != "cpu":
        return  # looking at values on a GPU would make it wait; photographs come from the CPU and were in range there
    low, high = (bound.item() for bound in torch.aminmax(images.detach()))
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # written so that NaN fails too
        if low < -0.5:
            advice = "; give them as they are, without mean subtracted: a representation feeds its encoder itself"
        elif high > 2:
            advice = "; divide 8-bit images by 255"
        else:
            advice = "" if math.isnan(low) else "; images.clamp(0, 1) brings them there"
        raise ImageError(f"expected pixel values in [0, 1], got [{low:.6g}, {high:.6g}]{advice}")


def check_features(features: Tensor, feature_shape: Iterable[int | None]) -> None:
    """Raise `FeatureError` unless this is a finite float batch (N, *feature_shape); None stands for any length."""
    expected = tuple(feature_shape)
    if not isinstance(features, Tensor):
        raise FeatureError(
            f"expected a torch tensor of features, got {type(features).__name__}: of an array give "
            "torch.from_numpy(array).float()"
        )
    described = "(N, " + ", ".join("any" if length is None else str(length) for length in expected) + ")"
    if features.ndim != len(expected) + 1 or any(
        want not in (None, have) for want, have in zip(expected, features.shape[1:], strict=True)
    ):
        hint = "; add a batch dimension with features[None]" if features.ndim == len(expected) else ""
        raise FeatureError(f"expected features of shape {described}, got {tuple(features.shape)}{hint}")
    if not features.is_floating_point():
        raise FeatureError(f"expected floating-point features, got {features.dtype}")
    finite = torch.isfinite(features.float())  # as inverters read them
    if not finite.all():
        bad = (~finite.flatten(1).all(dim=1)).nonzero().flatten().tolist()
        rows = f"{bad[:8]}{'...' if len(bad) > 8 else ''}"
        raise FeatureError(f"features must be finite; rows {rows} hold NaN or infinity in float32")
