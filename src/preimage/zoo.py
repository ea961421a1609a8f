"""The inverters that come with the package: one safetensors file and one card (JSON) each, found by name.

A card says how its inverter was made and how good the file is as it stands, baselines and licence included. `export`
writes both for any run.
"""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from preimage import runs
from preimage.errors import NotShippedError, RunError, UnknownNameError, WeightsError
from preimage.evaluation import Contender, evaluate, fit_baselines
from preimage.interfaces import Inverter
from preimage.inverters import Nearest, load_inverters, save_inverters
from preimage.networks.weights import file_hash
from preimage.representations import REPRESENTATIONS
from preimage.runs import Run, write_json

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


def load_shipped(name: str, **settings: Any) -> dict[str, Inverter]:
    """A shipped inverter and the baselines fitted with it, by name; raises `WeightsError` if the file was altered.

    `settings` go to the representation, such as `weights` where they cannot come with the package.
    """
    if name not in shipped() and name in REPRESENTATIONS:
        raise NotShippedError(name)
    expected = card(name)["sha256"]
    file = FOLDER / f"{name}.safetensors"
    if (found := file_hash(file)) != expected:
        raise WeightsError(f"{file} is damaged: its SHA-256 is {found}, the card says {expected}; reinstall preimage")
    return load_inverters(file, **settings)


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


def export(
    run: str | Path, file: str | Path, *, licence: str = "", half: bool = True, device: str = "cpu"
) -> dict[str, Any]:
    """A run -> one file of inverters (the trained one, the mean image and the ridge of its photographs) and its card.

    The card's table is measured on the file itself, weights rounded to float16 if `half`, on the run's validation
    photographs; without any there is no table. Returns the card.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix != ".safetensors":
        raise RunError(f"inverters are written to a .safetensors file, not {file}")
    inverter = runs.load_inverter(run)
    representation, origin = inverter.representation, Run.open(run)
    settings = origin.settings
    train_photos, validation = runs.open_photos(settings, representation)
    words = f"the {len(train_photos)} training photographs"
    baselines = fit_baselines(representation, train_photos, words, device)
    nearest = next(contender for contender in baselines if contender.inverter.name == Nearest.name)
    kept = [inverter, *(contender.inverter for contender in baselines if contender is not nearest)]
    save_inverters(kept, file, torch.float16 if half else torch.float32)

    provenance = origin.provenance
    content: dict[str, Any] = {
        "representation": {"name": representation.name, **representation.settings},
        "sha256": file_hash(file),
        "size_bytes": file.stat().st_size,
        "licence": licence,
        "photos": {"n": len(train_photos), "fingerprint": provenance["photos_fingerprint"]},
        "decoder": dataclasses.asdict(settings.decoder) | {"parameters": provenance["parameters"]},
        "training": dataclasses.asdict(settings.training)
        | {"seed": settings.seed, "seconds": origin.checkpoint["seconds"]},
        "augmentation": dataclasses.asdict(settings.augmentation),
        "made_with": {key: provenance[key] for key in ("preimage", "torch", "device", "precision", "processes")},
        "curve": [
            {key: record[key] for key in ("step", "nre", "nre_sem", "n", "seconds")} for record in origin.validations
        ],
    }
    if validation is not None:
        contenders = [Contender(inverter, words) for inverter in load_inverters(file).values()] + [nearest]
        content["evaluation"] = evaluate(contenders, validation, "the validation photographs", device=device).to_json()
    write_json(file.with_suffix(".json"), content)
    return content
