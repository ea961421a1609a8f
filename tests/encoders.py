"""Encoders as a user might have them, good and bad, for the tests of the doors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage.interfaces import Representation, check_images

Array = npt.NDArray[np.generic]


class Small(nn.Module):
    """A network with a bit of everything; fed (x - 0.5) / 0.25 as its `default_cfg` says."""

    default_cfg = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 24, 4, stride=4), nn.BatchNorm2d(24), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(24 * 8 * 8, 64))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.body(images))
        return features


class Tokens(nn.Module):
    """A class token and 4 x 4 places of 16 numbers, as a transformer has them; and a summary beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.start = nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, images: Tensor) -> Tensor:
        places = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.start.expand(len(images), -1, -1) + places.mean(dim=1, keepdim=True), places], dim=1)


class Outputs(Tokens):
    """Several outputs, by key."""

    def forward(self, images: Tensor) -> dict[str, object]:  # type: ignore[override]
        tokens = super().forward(images)
        return {"hidden": tokens, "summary": tokens[:, 0], "states": (tokens, tokens + 1), "loss": None}


class Pair(Tokens):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        tokens = super().forward(images)
        return tokens[:, 0], tokens


class NeedsWords(nn.Module):
    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        return images


def small() -> nn.Module:
    return Small()


def needs_width(width: int, depth: int = 2) -> nn.Module:
    return nn.Conv2d(3, width, depth)


def no_module() -> int:
    return 7


def broken() -> nn.Module:
    raise RuntimeError("out of luck")


ready = Small()


# --- functions --------------------------------------------------------------------------------------------------------


def thumbnails(images: Array) -> Array:
    """Means over blocks of 8 x 8 pixels, less the mean image's grey: vectors."""
    n, height, width, _ = images.shape
    blocks = images.reshape(n, height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4))
    return (blocks - 0.5).reshape(n, -1)


def blocks(images: Array) -> Array:
    """The same as a map (N, h, w, C)."""
    n, height, width, channels = images.shape
    return images.reshape(n, height // 8, 8, width // 8, 8, channels).mean(axis=(2, 4))


def histogram(image: Array) -> Array:
    """Of one image of bytes; integers."""
    return np.histogram(image, 16, (0, 256))[0]


def above_average(images: Array) -> Array:
    return images.mean(axis=-1) > 0.5


def constant(images: Array) -> Array:
    return np.ones((len(images), 3))


def scalar(images: Array) -> list[float]:
    return [float(image.mean()) for image in images]


def refuses_dark(images: Array) -> Array:
    if any(image.mean() < 0.1 for image in images):
        raise ValueError("it is too dark")
    return thumbnails(images)


def sorry(images: Array) -> Array:
    raise ValueError("sorry")


def not_finite(images: Array) -> Array:
    features = thumbnails(images)
    features[features.mean(axis=1) < -0.4] = np.nan
    return features


def random(images: Array) -> Array:
    return np.random.rand(len(images), 8)


def knows_its_company(images: Array) -> Array:
    return thumbnails(images) - thumbnails(images).mean(axis=0) + len(images)


class Drifting:
    """Changes after a while."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Array) -> Array:
        self.calls += 1
        return thumbnails(images) + (self.calls > 6)


drifting = Drifting()


def too_few_rows(images: Array) -> Array:
    return thumbnails(images)[:-1]


def ragged(images: Array) -> list[list[int]]:
    return [list(range(index + 1)) for index in range(len(images) + 1)]


def text(images: Array) -> list[str]:
    return ["a picture"] * len(images)


def two_arguments(images: Array, bins: int) -> Array:
    return images


def one_at_a_time(images: Array) -> Array:
    if len(images) > 1:
        raise ValueError("one at a time, please")
    return thumbnails(images)


# --- classes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thumbnails(Representation):
    """Means over blocks: maps (N, 3, side, side)."""

    differentiable: ClassVar[bool] = True

    side: int = 8
    image_size: int = 32

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (3, self.side, self.side)

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        return F.adaptive_avg_pool2d(images, self.side)


class Medians(Thumbnails):
    """By NumPy, through which no gradient passes."""

    differentiable: ClassVar[bool] = False

    def encode(self, images: Tensor) -> Tensor:
        check_images(images)
        return F.adaptive_avg_pool2d(torch.from_numpy(images.numpy()), self.side)


class Restless(Thumbnails):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) + torch.rand(1)


class Boastful(Thumbnails):
    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (7,)


class Moody(Thumbnails):
    def encode(self, images: Tensor) -> Tensor:
        if images[0].mean() < 0.1:
            raise ValueError("it is too dark")
        return super().encode(images)


class Unfinished(Representation):
    image_size = 32


class Sizeless(Representation):
    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (3,)

    def encode(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


made_thumbnails = Thumbnails(side=2)
