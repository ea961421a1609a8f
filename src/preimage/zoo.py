"""The inverters that come with the package: one safetensors file and one card (JSON) each, found by name."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from preimage.errors import UnknownNameError, WeightsError
from preimage.interfaces import Inverter
from preimage.inverters import load_inverters

FOLDER = Path(str(resources.files("preimage") / "zoo"))


def shipped() -> list[str]:
    """The names of the shipped inverters, which are those of their representations."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def card(name: str) -> dict[str, Any]:
    """How a shipped inverter was made and how good it is: data, licence note, steps, cost, table."""
    if name not in shipped():
        raise UnknownNameError("shipped inverter", name, shipped())
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def load_shipped(name: str) -> dict[str, Inverter]:
    """A shipped inverter and the baselines fitted with it, by name; raises `WeightsError` if the file was altered."""
    expected = card(name)["sha256"]
    file = FOLDER / f"{name}.safetensors"
    if (found := sha256(file)) != expected:
        raise WeightsError(f"{file} is damaged: its SHA-256 is {found}, the card says {expected}; reinstall preimage")
    return load_inverters(file)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def summary(name: str) -> dict[str, Any]:
    """The few facts of a card that a list shows."""
    full = card(name)
    row = full["evaluation"]["rows"][0]
    return {
        "size_bytes": (FOLDER / f"{name}.safetensors").stat().st_size,
        "trained_on": f"{full['photos']['n']} photographs",
        "nre": row["nre"],
        "nre_sem": row["nre_sem"],
        "n": row["n"],
    }
