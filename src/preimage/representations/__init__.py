"""Every representation by name. A new one is one new file and one line here."""

from __future__ import annotations

from typing import Any

from preimage.errors import SettingsError, UnknownNameError
from preimage.interfaces import Representation, field_names
from preimage.representations.hog import HOG
from preimage.representations.lbp import LBP

REPRESENTATIONS: dict[str, type[Representation]] = {kind.name: kind for kind in (HOG, LBP)}


def get_representation(name: str, **settings: Any) -> Representation:
    """The representation of that name with the given settings: `get_representation("hog", cell_size=16)`."""
    if name not in REPRESENTATIONS:
        raise UnknownNameError("representation", name, REPRESENTATIONS)
    kind = REPRESENTATIONS[name]
    for key in settings:
        if key not in field_names(kind):
            raise UnknownNameError(f"setting of {name!r}", key, field_names(kind))
    try:
        return kind(**settings)
    except TypeError as error:  # a text where a number belongs
        raise SettingsError(f"{name}: {error}") from error


__all__ = ["HOG", "LBP", "REPRESENTATIONS", "get_representation"]
