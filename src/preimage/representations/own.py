"""A representation of the user's own, written as the ones here are: `python:package.module:Class`.

It is what the class says, under the name that finds it again, and distrusted like every other encoder behind a door.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from preimage.errors import FeatureError, SettingsError
from preimage.interfaces import Representation, Wrapped, short_hash
from preimage.plain import build
from preimage.representations.code import code_hashes, import_object
from preimage.representations.foreign import Foreign, attempt


@dataclass(frozen=True, eq=False)
class OwnRepresentation(Wrapped, Foreign):
    """The `Representation` at an address, whose settings, facts and promises these are."""

    inner: Representation = field(kw_only=True)

    door: ClassVar[str] = "python"

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise SettingsError(
                f"{self.name} must say by image_size of how many pixels its images are, as in `image_size: int = 64`; "
                f"it says {self.image_size}"
            )
        try:
            json.dumps(self.settings)
        except (NotImplementedError, TypeError) as error:
            raise SettingsError(
                f"{self.name} must have settings of plain values, from which it can be made again: make it a frozen "
                f"dataclass of numbers and texts. {error}"
            ) from error

    @property
    def image_size(self) -> int:  # type: ignore[override]
        size: int = getattr(self.inner, "image_size", 0)
        return size

    @property
    def source(self) -> str:  # type: ignore[override]
        return self.inner.source or "your class"

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return self.inner.differentiable

    def compute(self, images: Tensor) -> Any:
        images = images if self.differentiable else images.detach()
        return attempt(lambda: self.inner.encode(images), f"{self.name} fails on images {tuple(images.shape)}")

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        """What it says, which must be what it does."""
        told = attempt(
            lambda: tuple(self.inner.feature_shape_at(height, width)),
            f"{self.name} cannot tell the shape of its features for {width} x {height} pixels",
        )
        found = super().feature_shape_at(height, width)
        if told != found:
            raise FeatureError(f"{self.name} says by feature_shape_at that features are {told}, and they are {found}")
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Of name, version, settings, the code of the class, and its own fingerprint if it has one."""
        kind = type(self.inner)
        content = [self.name, self.inner.version, self.settings, *code_hashes(kind.__module__)]
        if kind.fingerprint is not Representation.fingerprint:
            content.append(self.inner.fingerprint)
        return short_hash(content, sort_keys=True)


def own_representation(address: str, settings: Mapping[str, Any]) -> OwnRepresentation | None:
    """What is at an address, made with these settings, if it is a representation or a class of them; else None."""
    found = import_object(address, OwnRepresentation.door)
    if isinstance(found, Representation) and not settings:
        return OwnRepresentation(address, inner=found)
    kind, usual = (type(found), found.settings) if isinstance(found, Representation) else (found, {})
    if not isinstance(kind, type) or not issubclass(kind, Representation):
        return None
    name = f"{OwnRepresentation.door}:{address}"
    if missing := sorted(kind.__abstractmethods__):
        raise SettingsError(f"{name} lacks {' and '.join(missing)}: see preimage.Representation for what they do")
    made = attempt(
        lambda: build(kind, {**usual, **settings}, name),
        f"{name} cannot be made (settings are given by --set representation.KEY=VALUE)",
        SettingsError,
    )
    return OwnRepresentation(address, inner=made)
