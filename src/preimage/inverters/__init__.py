"""Every inverter by name, and the one file they are kept in. A new one is one new file and one line here.

A file of inverters is safetensors: tensors named `inverter.tensor`, and in its metadata, as JSON, the representation
and the settings of every inverter. Reading one runs no code. With them it keeps what the representation makes of a
probe picture, by which another network than the one it was made for is found out. It names no file of weights.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from preimage.cache import cached
from preimage.errors import PreimageError, UnknownNameError, WeightsError, WeightsWarning
from preimage.interfaces import Inverter, Representation
from preimage.inverters.linear import MeanImage, Ridge
from preimage.inverters.retrieval import Nearest
from preimage.inverters.upconv import UpConv
from preimage.probe import LIMIT, ROUNDING, VERSION, Probe
from preimage.representations import get_representation

INVERTERS: dict[str, type[Any]] = {kind.name: kind for kind in (UpConv, MeanImage, Nearest, Ridge)}

FORMAT = 1


def save_inverters(inverters: Sequence[Inverter], file: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write fitted inverters of one representation; floating-point tensors are stored as `dtype`."""
    representation = inverters[0].representation
    tensors = {
        f"{inverter.name}.{name}": (value.to(dtype) if value.is_floating_point() else value).cpu().contiguous()
        for inverter in inverters
        for name, value in inverter.state().items()
    }
    description = {
        "format": FORMAT,
        "representation": portable(representation),
        "fingerprint": representation.fingerprint,
        "inverters": {inverter.name: inverter.settings for inverter in inverters},
    }
    try:
        probe = Probe.of(representation)
    except PreimageError:  # it cannot encode a picture it has never seen: the fingerprint alone must do
        probe = None
    if probe is not None:
        description["probe"] = {"version": VERSION, "feature_shape": probe.feature_shape}
        tensors |= {"probe.positions": probe.positions, "probe.features": probe.features}
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_bytes(save(tensors, metadata={"preimage": json.dumps(description)}))


def portable(representation: Representation) -> dict[str, Any]:
    """Name and settings, less the place of its weights on this machine."""
    settings = {key: value for key, value in representation.settings.items() if key != "weights"}
    return {"name": representation.name, **settings}


def load_inverters(file: str | Path, **settings: Any) -> dict[str, Inverter]:
    """The inverters of a file by name, the main one first; raises `WeightsError` where the file is none of ours.

    `settings` go to the representation: `weights="FILE"` for a network whose weights a file cannot name.
    """
    description, tensors = read_inverters(file)
    representation = get_representation(**{**description["representation"], **settings})
    if representation.fingerprint != description["fingerprint"]:
        tell_difference(probe_difference(file, representation), file, representation)
    representation = cached(representation)
    inverters = {}
    for name, settings in description["inverters"].items():
        if name not in INVERTERS:
            raise UnknownNameError("inverter", name, INVERTERS)
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        inverters[name] = INVERTERS[name](representation, **settings).restore(own)
    return inverters


def read_inverters(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description in a file and its tensors; raises `WeightsError`."""
    try:
        with safe_open(file, framework="pt") as content:
            description = json.loads((content.metadata() or {}).get("preimage", "null"))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(f"{file} is missing, damaged, or not a file of inverters: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise WeightsError(f"{file} was not written by this version of preimage: save the inverter again")
    return description, tensors


def probe_difference(file: str | Path, representation: Representation) -> float | None:
    """How far a representation is from the one a file was made for, relative, by their features of the probe picture.

    None where the file keeps no features of this version's probe picture.
    """
    description, tensors = read_inverters(file)
    kept = description.get("probe", {})
    if kept.get("version") != VERSION:
        return None
    probe = Probe(tuple(kept["feature_shape"]), tensors["probe.positions"], tensors["probe.features"])
    return probe.difference(representation)


def tell_difference(different: float | None, file: str | Path, representation: Representation) -> None:
    """Raise `WeightsError` where a representation is not the one a file was made for; warn where it is not quite."""
    name = representation.name
    if different is None:
        raise WeightsError(
            f"{file} belongs to another version of the representation {name!r}: its features have changed since, "
            "train again"
        )
    if not different <= LIMIT:
        size = f"differ by {100 * different:.1f} %" if different < math.inf else "have another shape"
        raise WeightsError(
            f"{file} belongs to another network or to other settings than this {name!r}: features of the probe "
            f"picture {size} (up to {100 * LIMIT:.0f} % would be rounding). Name the weights it was made for by "
            "--set weights=FILE, or train again"
        )
    if different > ROUNDING:
        warnings.warn(
            f"{Path(file).name} was made for other weights of {name!r}: features of the probe picture differ by "
            f"{100 * different:.2f} %, as rounded or quantised weights do",
            WeightsWarning,
            stacklevel=3,
        )


__all__ = [
    "INVERTERS",
    "MeanImage",
    "Nearest",
    "Ridge",
    "UpConv",
    "load_inverters",
    "portable",
    "probe_difference",
    "save_inverters",
]
