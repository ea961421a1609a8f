"""Every inverter by name, and the one file they are kept in. A new one is one new file and one line here.

A file of inverters is safetensors: tensors named `inverter.tensor` (of a confidence map `confidence.inverter.tensor`),
and in its metadata, as JSON, the representation and the settings of every inverter. With them it keeps what the
representation makes of a probe picture, by which another network than the one it was made for is found out. It names no
file of weights. Reading one runs no code: where the encoder is somebody's code (`python:`, `torch:`, `command:`), only
a reader who says that the file is trusted gets its inverters.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from preimage.cache import cached
from preimage.errors import PreimageError, SettingsError, UnknownNameError, WeightsError, WeightsWarning
from preimage.files import replace
from preimage.interfaces import Inverter, Representation
from preimage.inverters.autoencoder import Autoencoder
from preimage.inverters.confidence import Confidence
from preimage.inverters.dictionary import PairedDictionary
from preimage.inverters.linear import MeanImage, Ridge
from preimage.inverters.optimization import GradientDescent
from preimage.inverters.retrieval import Nearest
from preimage.inverters.upconv import UpConv
from preimage.plain import build, convert
from preimage.probe import LIMIT, SAME_ARITHMETIC, VERSION, Probe
from preimage.representations import get_known, runs_code
from preimage.representations.saved import PREFIX

INVERTERS: dict[str, type[Any]] = {
    kind.name: kind for kind in (UpConv, Autoencoder, MeanImage, Nearest, Ridge, GradientDescent, PairedDictionary)
}

FORMAT = 1


@dataclass(frozen=True)
class Description:
    """What a file of inverters says of itself, as JSON in its metadata."""

    format: int
    representation: dict[str, Any]  # name and settings
    fingerprint: str
    inverters: dict[str, dict[str, Any]]  # settings by name, the main one first
    confidence: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings by the name of the inverter
    probe: dict[str, Any] = field(default_factory=dict)  # version and feature shape; none where none can be computed


def make_inverter(name: str, representation: Representation, settings: Mapping[str, Any] | None = None) -> Inverter:
    """An inverter by name, yet to be fitted, with the given settings."""
    if name not in INVERTERS:
        raise UnknownNameError("inverter", name, INVERTERS)
    inverter: Inverter = build(INVERTERS[name], {"representation": representation, **(settings or {})}, name)
    return inverter


def settings_of(name: str) -> list[str]:
    """The names of an inverter's settings; none of one that does not exist."""
    kind = INVERTERS.get(name)
    return [] if kind is None else [key for key in inspect.signature(kind).parameters if key != "representation"]


def main_of(inverters: Mapping[str, Inverter]) -> Inverter:
    """The inverter itself, which stands before the baselines kept with it."""
    return next(iter(inverters.values()))


def check_file_name(file: str | Path) -> None:
    """Raise `SettingsError` for a name that inverters are not written to: before the work, not after it."""
    if Path(file).suffix != ".safetensors":
        raise SettingsError(f"inverters are written to a .safetensors file, not {file}")


def save_inverters(inverters: Sequence[Inverter], file: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write fitted inverters of one representation, floating-point tensors that are wider than `dtype` in `dtype`.

    Not vectors, which are small, and some (the features' means and deviations) go beyond what float16 can hold.
    """
    representation = inverters[0].origin
    tensors = {
        name: value.to(dtype) if wider(value, dtype) and value.ndim > 1 else value
        for inverter in inverters
        for name, value in with_confidence(inverter).items()
    }
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    description = Description(
        FORMAT,
        portable(representation.description),
        representation.fingerprint,
        {inverter.name: inverter.settings for inverter in inverters},
        {one.name: one.confidence.settings for one in inverters if isinstance(one.confidence, Confidence)},
    )
    try:
        probe = Probe.of(representation)
    except PreimageError:  # it cannot encode a picture it has never seen: the fingerprint alone must do
        probe = None
    if probe is not None:
        description.probe.update(version=VERSION, feature_shape=probe.feature_shape)
        tensors |= probe.tensors
    replace(Path(file), save(tensors, metadata={"preimage": json.dumps(asdict(description))}))


def wider(value: Tensor, dtype: torch.dtype) -> bool:
    return value.is_floating_point() and value.element_size() > dtype.itemsize


def portable(description: Mapping[str, Any]) -> dict[str, Any]:
    """A representation's description, less the places of its weights and of saved features on this machine."""
    kept = {key: value for key, value in description.items() if key != "weights"}
    if kept["name"].startswith(PREFIX):
        kept["file"] = Path(kept["file"]).name
    return kept


def load_inverters(file: str | Path, *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:
    """The inverters of a file by name, the main one first; raises `WeightsError` where the file is none of ours.

    `settings` go to the representation: `weights="FILE"` for a network whose weights a file cannot name. Only where it
    is `trusted` may a file name an encoder that is code to be run.
    """
    description, tensors = read_inverters(file)
    kept = description.representation
    encoder = kept["name"]
    if runs_code(encoder) and trusted is not True:
        raise WeightsError(
            f"{file} inverts {encoder!r}, and loading it would run that code on this machine. If you know where the "
            "file comes from: --set trusted=true, in Python trusted=True"
        )
    representation = get_known(**{**kept, **settings})
    if other := {key: value for key, value in settings.items() if kept.get(key, value) != value}:
        raise WeightsError(
            f"{file} inverts {encoder!r} with {', '.join(f'{key}={kept[key]}' for key in other)}, not with "
            f"{', '.join(f'{key}={value}' for key, value in other.items())}: train one for these settings"
        )
    if representation.fingerprint != description.fingerprint:
        with complete(file):
            different = probe_difference(description, tensors, representation)
        tell_difference(different, file, representation)
    representation = cached(representation)
    with complete(file):
        inverters = {
            name: make_inverter(name, representation, own).restore(beginning_with(f"{name}.", tensors))
            for name, own in description.inverters.items()
        }
        for name, own in description.confidence.items():
            learnt = beginning_with(f"confidence.{name}.", tensors)
            made = build(Confidence, {"inverter": inverters[name], **own}, "confidence")
            inverters[name].confidence = made.restore(learnt)
    return inverters


@contextlib.contextmanager
def complete(file: str | Path) -> Iterator[None]:
    """What is looked for in here and missing was missing in the file: `WeightsError`."""
    try:
        yield
    except KeyError as error:
        raise WeightsError(f"{file} is damaged: it lacks {error}") from error


def read_inverters(file: str | Path) -> tuple[Description, dict[str, Tensor]]:
    """The description in a file and its tensors; raises `WeightsError`."""
    description = read_description(file)
    try:
        return description, load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} is damaged: {error}") from error


def read_description(file: str | Path) -> Description:
    """What a file of inverters says of itself; its tensors stay where they are. Raises `WeightsError`."""
    if not Path(file).is_file():
        raise WeightsError(f"there is no file {file}")
    try:
        with safe_open(file, framework="pt") as content:
            kept = json.loads((content.metadata() or {}).get("preimage", "null"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(f"{file} is missing, damaged, or not a file of inverters: {error}") from error
    try:
        description: Description = convert(kept, Description, "its description")
    except PreimageError as error:
        raise WeightsError(f"{file} was not written by this version of preimage: {error}") from error
    if description.format != FORMAT or "name" not in description.representation or not description.inverters:
        raise WeightsError(f"{file} was not written by this version of preimage: save the inverter again")
    return description


def probe_difference(
    description: Description, tensors: Mapping[str, Tensor], representation: Representation
) -> float | None:
    """How far a representation is from the one a file was made for, relative, by their features of the probe picture.

    None where the file keeps no features of this version's probe picture.
    """
    kept = description.probe
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
    if different > SAME_ARITHMETIC:
        warnings.warn(
            f"{Path(file).name} was made for other weights of {name!r}: features of the probe picture differ by "
            f"{100 * different:.2f} %, as rounded or quantised weights do",
            WeightsWarning,
            stacklevel=3,
        )


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
    "beginning_with",
    "load_inverters",
    "main_of",
    "make_inverter",
    "portable",
    "probe_difference",
    "read_description",
    "read_inverters",
    "save_inverters",
    "settings_of",
]
