"""Preimage shows what a visual representation keeps: features turned back into pictures, and measured.

    import preimage

    hog = preimage.get_representation("hog")
    features = hog.encode(images)                        # images (N, 3, 256, 256), RGB in [0, 1]
    reconstructions = preimage.load_inverter("hog").invert(features)

Importing this is instant: what a name stands for is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preimage.api import evaluate, load_inverter, resume, sample_photos, train
    from preimage.errors import PreimageError
    from preimage.images import Photos, save_image
    from preimage.interfaces import Inverter, Representation
    from preimage.inverters import UpConv
    from preimage.networks import Preprocessing
    from preimage.pairs import EncodedPhotos
    from preimage.representations import ModuleLayer, get_representation

__version__ = "0.1.0"

_HOMES = {
    "EncodedPhotos": "pairs",
    "Inverter": "interfaces",
    "ModuleLayer": "representations",
    "Photos": "images",
    "PreimageError": "errors",
    "Preprocessing": "networks",
    "Representation": "interfaces",
    "UpConv": "inverters",
    "evaluate": "api",
    "get_representation": "representations",
    "load_inverter": "api",
    "resume": "api",
    "sample_photos": "api",
    "save_image": "images",
    "train": "api",
}

__all__ = [
    "EncodedPhotos",
    "Inverter",
    "ModuleLayer",
    "Photos",
    "PreimageError",
    "Preprocessing",
    "Representation",
    "UpConv",
    "evaluate",
    "get_representation",
    "load_inverter",
    "resume",
    "sample_photos",
    "save_image",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"preimage.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'preimage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
