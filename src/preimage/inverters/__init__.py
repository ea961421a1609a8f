"""Every inverter by name, and the one file they are kept in. A new one is one new file and one line here.

A file of inverters is safetensors: tensors named `inverter.tensor` (of a confidence map `confidence.inverter.tensor`),
and in its metadata, as JSON, the representation and the settings of every inverter. Reading one runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from preimage.cache import cached
from preimage.errors import UnknownNameError, WeightsError
from preimage.interfaces import Inverter, Representation
from preimage.inverters.autoencoder import Autoencoder
from preimage.inverters.confidence import Confidence
from preimage.inverters.dictionary import PairedDictionary
from preimage.inverters.linear import MeanImage, Ridge
from preimage.inverters.optimization import GradientDescent
from preimage.inverters.retrieval import Nearest
from preimage.inverters.upconv import UpConv
from preimage.plain import build
from preimage.representations import get_representation

INVERTERS: dict[str, type[Any]] = {
    kind.name: kind for kind in (UpConv, Autoencoder, MeanImage, Nearest, Ridge, GradientDescent, PairedDictionary)
}

FORMAT = 1


def make_inverter(name: str, representation: Representation, settings: Mapping[str, Any] | None = None) -> Inverter:
    """An inverter by name, yet to be fitted, with the given settings."""
    if name not in INVERTERS:
        raise UnknownNameError("inverter", name, INVERTERS)
    inverter: Inverter = build(INVERTERS[name], {"representation": representation, **(settings or {})}, name)
    return inverter


def save_inverters(inverters: Sequence[Inverter], file: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write fitted inverters of one representation; floating-point tensors are stored as `dtype`, if not vectors.

    Vectors are small, and some (the features' means and deviations) go beyond what float16 can hold.
    """
    representation = inverters[0].origin
    tensors = {
        name: value.to(dtype if value.is_floating_point() and value.ndim > 1 else value.dtype)
        for inverter in inverters
        for name, value in with_confidence(inverter).items()
    }
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    description = {
        "format": FORMAT,
        "representation": {"name": representation.name, **representation.settings},
        "fingerprint": representation.fingerprint,
        "inverters": {inverter.name: inverter.settings for inverter in inverters},
        "confidence": {
            one.name: one.confidence.settings for one in inverters if isinstance(one.confidence, Confidence)
        },
    }
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_bytes(save(tensors, metadata={"preimage": json.dumps(description)}))


def load_inverters(file: str | Path) -> dict[str, Inverter]:
    """The inverters of a file by name, the main one first; raises `WeightsError` where the file is none of ours."""
    try:
        with safe_open(file, framework="pt") as content:
            description = json.loads((content.metadata() or {}).get("preimage", "null"))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(f"{file} is missing, damaged, or not a file of inverters: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise WeightsError(f"{file} was not written by this version of preimage: save the inverter again")
    representation = cached(get_representation(**description["representation"]))
    if representation.fingerprint != description["fingerprint"]:
        raise WeightsError(
            f"{file} belongs to another version of the representation {representation.name!r}: "
            "its features have changed since, train again"
        )
    inverters = {}
    for name, settings in description["inverters"].items():
        if name not in INVERTERS:
            raise UnknownNameError("inverter", name, INVERTERS)
        inverters[name] = INVERTERS[name](representation, **settings).restore(beginning_with(f"{name}.", tensors))
    for name, settings in description.get("confidence", {}).items():
        own = beginning_with(f"confidence.{name}.", tensors)
        inverters[name].confidence = Confidence(inverters[name], **settings).restore(own)
    return inverters


def with_confidence(inverter: Inverter) -> dict[str, Tensor]:
    """What was learnt, by its name in a file."""
    tensors = {f"{inverter.name}.{name}": value for name, value in inverter.state().items()}
    if isinstance(inverter.confidence, Confidence):
        learnt = inverter.confidence.state()
        tensors |= {f"confidence.{inverter.name}.{name}": value for name, value in learnt.items()}
    return tensors


def beginning_with(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Some of the tensors of a file, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


__all__ = [
    "INVERTERS",
    "Autoencoder",
    "Confidence",
    "GradientDescent",
    "MeanImage",
    "Nearest",
    "PairedDictionary",
    "Ridge",
    "UpConv",
    "load_inverters",
    "make_inverter",
    "save_inverters",
]
