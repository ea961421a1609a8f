"""Every representation by name, and the doors to those of others. A new one is one new file and one line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preimage.errors import SettingsError, UnknownNameError
from preimage.interfaces import Representation
from preimage.networks import NETWORKS
from preimage.plain import build
from preimage.representations.foreign import Fed
from preimage.representations.hog import HOG
from preimage.representations.lbp import LBP
from preimage.representations.libraries import HuggingFace, OpenCLIP, Timm, Torchvision
from preimage.representations.modules import TorchModule
from preimage.representations.network import ModuleLayer, network_layer
from preimage.representations.onnx_graph import OnnxGraph
from preimage.representations.own import own_representation
from preimage.representations.programs import Command, PythonFunction
from preimage.representations.saved import PREFIX, SavedFeatures
from preimage.representations.sift import SparseSIFT

REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "hog": HOG,
    "lbp": LBP,
    "sift": SparseSIFT,
    **{f"{name}.{layer}": network_layer(name, layer) for name, network in NETWORKS.items() for layer in network.layers},
}


# What stands before the colon of a name -> what makes the representation at the address behind it.
DOORS: dict[str, Callable[..., Representation]] = {
    door.door: door
    for door in (TorchModule, Timm, Torchvision, HuggingFace, OpenCLIP, OnnxGraph, PythonFunction, Command)
}

# Doors behind which code of somebody's is run, whatever it does.
CODE_DOORS = (TorchModule.door, PythonFunction.door, Command.door)


def is_door(name: str) -> bool:
    """Whether a name leads to an encoder of somebody else's: `onnx:model.onnx`."""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and prefix in DOORS


def runs_code(name: str) -> bool:
    """Whether making the representation of that name runs code that does not come with a library."""
    return name.partition(":")[0] in CODE_DOORS


def get_representation(name: str, **settings: Any) -> Representation:
    """The representation of that name with the given settings: `get_representation("hog", cell_size=16)`.

    Warns where nobody says how an encoder is fed.
    """
    representation = get_known(name, **settings)
    if isinstance(representation, Fed):
        representation.warn_if_untold()
    return representation


def get_known(name: str, **settings: Any) -> Representation:
    """The same for an inverter that was trained on it: how it is fed was told then."""
    if not isinstance(name, str):
        raise SettingsError(
            f"a representation has a name, got {type(name).__name__}; a module at hand is read by "
            "ModuleLayer(module, layer, preprocessing)"
        )
    if name.startswith(PREFIX):
        return build(SavedFeatures, {"file": name.removeprefix(PREFIX)} | settings, PREFIX)
    if ":" in name:
        return open_door(name, settings)
    if name not in REPRESENTATIONS:
        raise UnknownNameError("representation", name, REPRESENTATIONS, overview())
    return build(REPRESENTATIONS[name], settings, name)


def has_setting(name: str, key: str) -> bool:
    """Whether a representation may have a setting of that name; of one behind a door, which may be a class, any."""
    return ":" in name or (name in REPRESENTATIONS and key in inspect.signature(REPRESENTATIONS[name]).parameters)


def overview() -> list[str]:
    """What can be named, layers and addresses left open."""
    networks = (f"{name.partition('.')[0]}.LAYER" if "." in name else name for name in REPRESENTATIONS)
    return [*dict.fromkeys(networks), *(f"{door}:..." for door in DOORS)]


def open_door(name: str, settings: dict[str, Any]) -> Representation:
    """`prefix:address` and settings -> the representation; raises `PreimageError` that names what there is."""
    prefix, _, address = name.partition(":")
    if prefix not in DOORS:
        if Path(prefix).suffix == ".py":
            raise SettingsError(f"a function in {prefix} is named python:{Path(prefix).stem}:{address}, not {name}")
        raise UnknownNameError("kind of encoder (what stands before the colon)", prefix, DOORS)
    address = str(settings.get("address", address))  # where it lies now
    settings = {key: value for key, value in settings.items() if key != "address"}
    if not address:
        raise SettingsError(f"expected {prefix}:ADDRESS as the name, got {name!r}")
    if prefix == PythonFunction.door and (own := own_representation(address, settings)) is not None:
        return own
    return build(DOORS[prefix], {"address": address, **settings}, name)


__all__ = [
    "DOORS",
    "HOG",
    "LBP",
    "REPRESENTATIONS",
    "ModuleLayer",
    "SavedFeatures",
    "SparseSIFT",
    "get_known",
    "get_representation",
    "has_setting",
    "is_door",
    "overview",
    "runs_code",
]
