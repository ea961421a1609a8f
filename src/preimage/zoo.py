"""The inverters that come with the package: one safetensors file and one card (JSON) each, found by name.

A card says how its inverter was made and how good the file is as it stands, baselines and licence included. `export`
writes both for any run, `check` looks at what lies in a folder of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from preimage import runs
from preimage.config import settings_for
from preimage.errors import NotShippedError, PreimageError, RunError, UnknownNameError, WeightsError
from preimage.evaluation import Contender, evaluate_contenders, fit_baselines
from preimage.files import read_json, write_json
from preimage.interfaces import Inverter
from preimage.inverters import (
    Nearest,
    Ridge,
    check_file_name,
    complete,
    load_inverters,
    main_of,
    portable,
    probe_difference,
    read_description,
    read_inverters,
    save_inverters,
)
from preimage.networks import has_weights, needs_weights
from preimage.networks.weights import file_hash
from preimage.pairs import EncodedPhotos
from preimage.probe import LIMIT, SAME_ARITHMETIC
from preimage.representations import REPRESENTATIONS, is_door
from preimage.runs import Run

FOLDER = Path(str(resources.files("preimage") / "zoo"))
LARGEST_FILE = 8 * 2**20  # bytes
LARGEST_ZOO = 60 * 2**20

# What is meant to ship, in the order in which it is trained.
PLANNED = (
    "hog", "lbp", "efficientnet_lite0.stage5", "efficientnet_lite0.logits", "sift", "efficientnet_lite0.stage2",
    "efficientnet_lite0.stage3", "efficientnet_lite0.head", "efficientnet_lite0.pool", "efficientnet_lite0.prob",
    "alexnet.conv1", "alexnet.conv2", "alexnet.conv3", "alexnet.conv4", "alexnet.conv5",
    "bvlc_alexnet.fc6", "bvlc_alexnet.fc7", "bvlc_alexnet.fc8",
)  # fmt: skip


def in_order(names: Iterable[str]) -> list[str]:
    """Names as the table of representations has them, layers from the first to the last; then others."""
    known = {name: index for index, name in enumerate(REPRESENTATIONS)}
    return sorted(names, key=lambda name: (known.get(name, len(known)), name))


def names_in(folder: Path) -> list[str]:
    """The names of the files of inverters in a folder, in order."""
    return in_order(file.stem for file in folder.glob("*.safetensors"))


def shipped() -> list[str]:
    """The names of the shipped inverters, which are those of their representations."""
    return names_in(FOLDER)


def card(name: str) -> dict[str, Any]:
    """How a shipped inverter was made and how good it is: data, licence note, steps, cost, table."""
    if name not in shipped():
        meant = [f"./{place}" for place in (Path(name), Path("runs", name)) if Run(place).settings_file.is_file()]
        raise UnknownNameError("shipped inverter", name, [*shipped(), *meant])
    return read_json(FOLDER / f"{name}.json")


def load_shipped(name: str, **settings: Any) -> dict[str, Inverter]:
    """A shipped inverter and the baselines fitted with it, by name; raises `WeightsError` if the file was altered.

    `settings` go to the representation, such as `weights` where they cannot come with the package.
    """
    if name not in shipped() and (name in REPRESENTATIONS or is_door(name)):
        raise NotShippedError(name, settings)
    expected = card(name)["sha256"]
    file = FOLDER / f"{name}.safetensors"
    if (found := file_hash(file)) != expected:
        raise WeightsError(f"{file} is damaged: its SHA-256 is {found}, the card says {expected}; reinstall preimage")
    try:
        return load_inverters(file, **settings)
    except WeightsError as error:
        if remark := card(name).get("note"):  # the published weights may not be those that it reads
            raise WeightsError(f"{error}. {remark}") from error
        raise


def summary(name: str) -> dict[str, Any]:
    """The few facts of a card that a list shows."""
    full = card(name)
    row = trained_row(full)
    return {
        "size_bytes": (FOLDER / f"{name}.safetensors").stat().st_size,
        "note": full.get("note", ""),
        "trained_on": f"{full['photos']['n']} photographs",
        "nre": row["nre"],
        "nre_sem": row["nre_sem"],
        "n": row["n"],
    }


def trained_row(card: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the trained inverter in a card's table."""
    row: dict[str, Any] = card["evaluation"]["rows"][0]
    return row


def export(
    run: str | Path,
    file: str | Path,
    *,
    licence: str = "",
    note: str = "",
    half: bool = True,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """A run -> one file of inverters (the trained one, the mean image and the ridge of its photographs) and its card.

    An autoencoder's file goes without the ridge.

    The card's table is measured on the file itself, weights rounded to float16 if `half`, on the run's validation
    photographs; without any there is no table. `note` is what a reader of its numbers must know. `settings` are those
    of `load_inverter`. Returns the card.
    """
    file = Path(file)
    check_file_name(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    inverter = runs.load_inverter(run, **(settings or {}))
    representation, origin = inverter.representation, Run.open(run)
    train_photos, validation = runs.open_photos(origin.settings, representation)
    runs.check_same_photos(origin, train_photos, validation)
    words = f"the {len(train_photos)} training photographs"
    baselines = fit_baselines(EncodedPhotos(representation, train_photos, device=device), words)
    # The nearest neighbour is the photographs themselves; ridge regression reads features, and the file is loaded with
    # the encoder as it was, not the one that an autoencoder trained.
    left_out = {Nearest.name} if inverter.origin is representation else {Nearest.name, Ridge.name}
    kept = [inverter, *(one.inverter for one in baselines if one.inverter.name not in left_out)]
    save_inverters(kept, file, torch.float16 if half else torch.float32)

    content = describe(origin) | {
        "representation": portable(representation.description),
        "feature_shape": representation.feature_shape,
        "sha256": file_hash(file),
        "size_bytes": file.stat().st_size,
        "licence": licence,
        "note": note,
    }
    if validation is not None:
        again = load_inverters(file, trusted=True, **given_weights(representation.settings))
        contenders = [Contender(one, words) for one in again.values()]
        contenders += [one for one in baselines if one.inverter.name in left_out]
        for one in contenders:  # saved features are known only to the representation that read them
            if one.inverter.origin is one.inverter.representation:  # an autoencoder's file brings its encoder
                one.inverter.representation = representation
        content["evaluation"] = evaluate_contenders(
            contenders, validation, "the validation photographs", device=device
        ).to_json()
    write_json(file.with_suffix(".json"), content)
    return content


def given_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of a representation, the files of weights that no inverter's file names."""
    return {key: value for key, value in settings.items() if key == "weights"}


def describe(run: Run) -> dict[str, Any]:
    """How a run made its inverter: photographs, decoder, steps, cost, hardware."""
    settings, provenance = run.settings, run.provenance
    return {
        "representation": portable(settings.representation),
        "fingerprint": provenance["representation_fingerprint"],
        "photos": {
            "n": provenance["photos"],
            "fingerprint": provenance["photos_fingerprint"],
            "validation": provenance["validation_photos"],
        },
        "decoder": dataclasses.asdict(settings.decoder) | {"parameters": provenance["parameters"]},
        "training": dataclasses.asdict(settings.training)
        | {"steps": run.step, "seed": settings.seed, "seconds": run.checkpoint["seconds"], **pace(run)},
        "augmentation": dataclasses.asdict(settings.augmentation),
        "made_with": {
            **{key: provenance[key] for key in ("preimage", "torch", "python", "precision", "processes", "threads")},
            "device": hardware(provenance),
        },
        "curve": [
            {key: record[key] for key in ("step", "nre", "nre_sem", "n", "seconds")} for record in run.validations
        ],
        **({"encoder": "trained too, as an autoencoder"} if settings.autoencoder else {}),
        **({"started_from": provenance["started_from"]} if "started_from" in provenance else {}),
    }


def trainings(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is known of each training of an inverter, in order: one that others started from comes first."""
    before = card.get("started_from", {})
    return [*(trainings(before) if "training" in before else []), card]


def seconds_of(card: Mapping[str, Any]) -> float:
    return float(card["training"]["seconds"])


def pace(run: Run) -> dict[str, float]:
    """Images per second of a run's steps, and the share of their time spent waiting for photographs."""
    logged = [record for record in run.log_records() if "seconds_per_step" in record]
    seconds = sum(record["seconds_per_step"] for record in logged)
    if not seconds:
        return {}
    waited = sum(record["waiting"] * record["seconds_per_step"] for record in logged)
    per_step = seconds / len(logged)
    return {
        "images_per_second": round(run.settings.training.batch_size / per_step, 1),
        "waiting": round(waited / seconds, 4),
    }


def hardware(provenance: Mapping[str, Any]) -> str:
    """What a run ran on: more than one device, where it was resumed on another."""
    parts = [provenance, *provenance.get("resumed", [])]
    return ", then ".join(dict.fromkeys(part["device"] for part in parts))


# --- looking after ----------------------------------------------------------------------------------------------------


@dataclass
class Inspection:
    """What was found out about one file."""

    name: str
    size_bytes: int
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(folder: Path | None = None, overrides: Sequence[str] = ()) -> list[Inspection]:
    """Every file of inverters in a folder, by default what ships: hash, card, probe, size; then the sum of sizes.

    `overrides` are settings of representations, such as `alexnet:weights=FILE`.
    """
    folder = folder or FOLDER
    files = [folder / f"{name}.safetensors" for name in names_in(folder)]
    if not files:
        raise RunError(f"there is no folder of .safetensors files at {folder}")
    settings = {file: settings_for(encoder_of(file), overrides) for file in files}
    found = [check_file(file, own) for file, own in settings.items()]
    together = Inspection("together", sum(one.size_bytes for one in found))
    if together.size_bytes > LARGEST_ZOO:
        together.problems.append(f"more than {LARGEST_ZOO / 2**20:.0f} MiB")
    return [*found, together]


def check_file(file: Path, settings: Mapping[str, Any]) -> Inspection:
    found = Inspection(file.stem, file.stat().st_size)
    if found.size_bytes > LARGEST_FILE:
        found.problems.append(f"larger than {LARGEST_FILE / 2**20:.0f} MiB")
    try:
        content = read_json(file.with_suffix(".json"))
        if content.get("sha256") != file_hash(file):
            found.problems.append("its SHA-256 is not the one on its card")
        found.problems += [f"no {fact} on its card" for fact in ("licence", "evaluation") if not content.get(fact)]
        check_probe(file, settings, found)
    except PreimageError as error:
        found.problems.append(str(error))
    return found


def encoder_of(file: Path) -> str:
    """The representation that a file of inverters says it is for; the file's own name where it says nothing."""
    try:
        return str(read_description(file).representation["name"])
    except WeightsError:
        return file.stem


def check_probe(file: Path, settings: Mapping[str, Any], found: Inspection) -> None:
    """Load the file with the representation at hand, and compare features of the probe picture if it keeps any."""
    network = encoder_of(file).partition(".")[0]
    if needs_weights(network) and "weights" not in settings and not has_weights(network):
        found.notes.append(f"probe not compared: needs weights (--set {network}:weights=FILE)")
        return
    representation = main_of(load_inverters(file, **settings)).representation
    if representation.name != file.stem:
        found.notes.append(f"inverts {representation.name}")
    with complete(file):
        different = probe_difference(*read_inverters(file), representation)
    if different is None:
        found.notes.append("keeps no probe: goes by its fingerprint")
    elif different > SAME_ARITHMETIC:
        told = found.problems if different > LIMIT else found.notes
        told.append(f"features of the probe differ by {100 * different:.2f} %")
