"""Every representation by name. A new one is one new file and one line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from preimage.errors import SettingsError, UnknownNameError
from preimage.interfaces import Representation
from preimage.networks import NETWORKS
from preimage.representations.hog import HOG
from preimage.representations.lbp import LBP
from preimage.representations.network import ModuleLayer, network_layer

REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "hog": HOG,
    "lbp": LBP,
    **{
        f"{name}.{layer}": partial(network_layer, name, layer)
        for name, network in NETWORKS.items()
        for layer in network.layers
    },
}


def get_representation(name: str, **settings: Any) -> Representation:
    """The representation of that name with the given settings: `get_representation("hog", cell_size=16)`."""
    if name not in REPRESENTATIONS:
        raise UnknownNameError("representation", name, REPRESENTATIONS)
    make = REPRESENTATIONS[name]
    known = inspect.signature(make).parameters
    for key in settings:
        if key not in known:
            raise UnknownNameError(f"setting of {name!r}", key, known)
    try:
        return make(**settings)
    except TypeError as error:  # a text where a number belongs
        raise SettingsError(f"{name}: {error}") from error


__all__ = ["HOG", "LBP", "REPRESENTATIONS", "ModuleLayer", "get_representation"]
