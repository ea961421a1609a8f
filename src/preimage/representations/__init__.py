"""Every representation by name. A new one is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from preimage.errors import UnknownNameError
from preimage.interfaces import Representation
from preimage.networks import NETWORKS
from preimage.plain import build
from preimage.representations.hog import HOG
from preimage.representations.lbp import LBP
from preimage.representations.network import ModuleLayer, network_layer
from preimage.representations.saved import PREFIX, SavedFeatures
from preimage.representations.sift import SparseSIFT

REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "hog": HOG,
    "lbp": LBP,
    "sift": SparseSIFT,
    **{f"{name}.{layer}": network_layer(name, layer) for name, network in NETWORKS.items() for layer in network.layers},
}


def get_representation(name: str, **settings: Any) -> Representation:
    """The representation of that name with the given settings: `get_representation("hog", cell_size=16)`."""
    if name.startswith(PREFIX):
        return build(SavedFeatures, {"file": name.removeprefix(PREFIX)} | settings, PREFIX)
    if name not in REPRESENTATIONS:
        raise UnknownNameError("representation", name, REPRESENTATIONS)
    return build(REPRESENTATIONS[name], settings, name)


__all__ = ["HOG", "LBP", "REPRESENTATIONS", "ModuleLayer", "SavedFeatures", "SparseSIFT", "get_representation"]
