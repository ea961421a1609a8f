"""The page of results, from the cards of what ships: every number on it comes from a card or is computed here.

The exception are the values of the paper, which are recalled and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from preimage import paper, zoo
from preimage.api import sample_files
from preimage.config import SAME_SHAPES
from preimage.errors import PreimageError
from preimage.evaluation import CONTROL, FLOOR, measured
from preimage.figures import bars, curve
from preimage.files import replace_text
from preimage.gallery import draw_together, exhibits
from preimage.images import Sources
from preimage.interfaces import ignore
from preimage.inverters import GradientDescent, MeanImage, Nearest, PairedDictionary, Ridge, UpConv
from preimage.metrics import METRICS, NRE_AXIS
from preimage.networks import NETWORKS
from preimage.pages import render
from preimage.representations import get_representation
from preimage.words import duration, mebibytes, plus_minus, shape_in_words, span

COLUMNS = (UpConv.name, FLOOR, Ridge.name, Nearest.name, MeanImage.name, CONTROL)
DRAWN = (UpConv.name, Ridge.name, Nearest.name, MeanImage.name)
SLOW_COLUMNS = (UpConv.name, Ridge.name, GradientDescent.name, PairedDictionary.name)
SHEET_PHOTOS = 12
RIVALS = {PairedDictionary.name: "HOGgles", GradientDescent.name: "HOG⁻¹ (Mahendran & Vedaldi)"}  # of HOG, in the paper

Cards = Mapping[str, dict[str, Any]]


def write(
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    tell: Callable[[str], None] = ignore,
) -> Path:
    """Write the page of results as Markdown, and its pictures beside it under `images/`.

    `overrides` are settings of representations, such as `alexnet:weights=FILE`, for the sheet of sample photographs.
    """
    output = Path(output)
    cards = {name: zoo.card(name) for name in zoo.shipped()}
    if not cards:
        raise PreimageError("nothing ships, so there are no results: preimage zoo train, preimage zoo export")
    parts = [part for card in cards.values() for part in zoo.trainings(card)]
    folder = output.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    shown = list(exhibits(sample_files(), overrides=overrides, device=device, tell=tell))
    if shown:
        draw_together(shown, folder / "results-samples.jpg")
    page = render(
        "results.md",
        families=[draw_family(family, own, folder) for family, own in by_family(cards).items()],
        measures=[table(cards, measure) for measure in METRICS],
        slow=slow_table(cards),
        comparison=comparison(cards),
        rivals={RIVALS[name]: paper.NRE["hog"][name] for name in RIVALS} if "hog" in cards else {},
        costs=[cost(name, card) for name, card in cards.items()],
        notes={name: card["note"] for name, card in cards.items() if card.get("note")},
        licences=list(dict.fromkeys(card["licence"] for card in cards.values())),
        missing=[name for name in zoo.PLANNED if name not in cards],
        sample_columns=[exhibit.name for exhibit in shown],
        sample_photographs=[path.name for path in sample_files()],
        recalled_photographs=f"{paper.PHOTOGRAPHS:,}",
        photographs=span(card["photos"]["n"] for card in cards.values()),
        evaluated=span(card["evaluation"]["n"] for card in cards.values()),
        pairwise=span(round(card["evaluation"]["pairwise_distance"]) for card in cards.values()),
        widths=span(card["decoder"]["width"] for card in cards.values()),
        hours=duration(sum(map(zoo.seconds_of, parts))),
        hardware=list(dict.fromkeys(part["made_with"]["device"] for part in parts)),
    )
    replace_text(output, page)
    return output


def draw_sheets(
    folder: str | Path,
    images: Sources,
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    tell: Callable[[str], None] = ignore,
) -> list[Path]:
    """A sheet of the first twelve of some photographs for every shipped inverter, and one of all side by side."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = list(exhibits(images, overrides=overrides, device=device, limit=SHEET_PHOTOS, tell=tell))
    files = [folder / f"{exhibit.name}.png" for exhibit in shown]
    for exhibit, file in zip(shown, files, strict=True):
        exhibit.draw(file)
    if shown:
        files.append(folder / "together.png")
        draw_together(shown, files[-1])
    return files


# --- tables -----------------------------------------------------------------------------------------------------------


def row_of(card: Mapping[str, Any], inverter: str) -> dict[str, Any] | None:
    """The row of an inverter in a card's table; None where it has none."""
    rows: list[dict[str, Any]] = card["evaluation"]["rows"]
    return next((row for row in rows if row["inverter"] == inverter), None)


def table(cards: Cards, measure: str) -> dict[str, Any]:
    """One measure over all that ships, by inverter; columns that nothing has are left out."""
    columns = [name for name in COLUMNS if any(row_of(card, name) for card in cards.values())]
    rows = []
    for name, card in cards.items():
        found = [row_of(card, column) for column in columns]
        cells = ["" if row is None else measured(row, measure) for row in found]
        rows.append({"name": name, "shape": shape(name, card), "n": card["evaluation"]["n"], "cells": cells})
    return {"title": METRICS[measure].title, "columns": columns, "rows": rows}


def slow_table(cards: Cards) -> dict[str, Any]:
    """NRE of baselines that take long, and how far they are behind the trained inverter on the same photographs."""
    found = {name: {row["inverter"]: row for row in card["slow_baselines"]} for name, card in cards.items()
             if "slow_baselines" in card}  # fmt: skip
    columns = [inverter for inverter in SLOW_COLUMNS if any(inverter in rows for rows in found.values())]
    rows = [
        {"name": name, "n": own[UpConv.name]["n"], "cells": [slow_cell(own.get(column)) for column in columns]}
        for name, own in found.items()
    ]
    remarks: dict[str, list[str]] = {}
    for name, own in found.items():
        for row in own.values():
            if row["remark"]:
                remarks.setdefault(f"`{row['inverter']}`: {row['remark']}", []).append(name)
    return {"columns": columns, "rows": rows, "remarks": remarks}


def slow_cell(row: Mapping[str, Any] | None) -> str:
    """An error, and in brackets the difference from that of the trained inverter."""
    if row is None:
        return ""
    error = measured(row, "nre")
    if row["inverter"] == UpConv.name:
        return error
    return f"{error} ({plus_minus(row['difference'], row['difference_sem'], sign='+')})"


def shape(name: str, card: Mapping[str, Any]) -> str:
    """The size of the features, in words; empty where neither the card knows it nor this machine."""
    try:
        known = card.get("feature_shape") or get_representation(name).feature_shape
    except PreimageError:
        return ""
    return shape_in_words(known)


def comparison(cards: Cards) -> list[dict[str, str]]:
    """Ours beside the paper's recalled value, for what both have."""
    rows = []
    for name, card in cards.items():
        recalled = paper.recalled(name).get(UpConv.name)
        ours, mean = row_of(card, UpConv.name), row_of(card, MeanImage.name)
        if recalled is None or ours is None:
            continue
        rows.append(
            {
                "name": name,
                "recalled": f"{recalled:.2f}",
                "ours": measured(ours, "nre"),
                "mean": "" if mean is None else measured(mean, "nre"),
                "n": card["evaluation"]["n"],
                "pairwise": f"{card['evaluation']['pairwise_distance']:.1f}",
            }
        )
    return rows


def cost(name: str, card: Mapping[str, Any]) -> dict[str, str]:
    """What an inverter cost to train, and what it weighs."""
    parts = zoo.trainings(card)
    training = card["training"]
    return {
        "name": name,
        "decoder": card["decoder"]["name"],
        "weights": f"{card['decoder']['parameters'] / 1e6:.1f} M",
        "size": mebibytes(card["size_bytes"]),
        "photographs": f"{card['photos']['n']:,}",
        "steps": " + ".join(f"{part['training']['steps']:,}" for part in parts),
        "seen": f"{sum(map(photographs_seen, parts)):,}",
        "time": duration(sum(map(zoo.seconds_of, parts))),
        "pace": f"{training['images_per_second']:.0f}" if "images_per_second" in training else "",
        "waiting": f"{100 * training['waiting']:.0f} %" if "waiting" in training else "",
        "device": ", then ".join(dict.fromkeys(map(device_of, parts))),
    }


def photographs_seen(card: Mapping[str, Any]) -> int:
    """In its last training, one seen twice counted twice."""
    return int(card["training"]["steps"] * card["training"]["batch_size"])


def device_of(card: Mapping[str, Any]) -> str:
    return f"{card['made_with']['device']}, {card['made_with']['precision']}"


# --- figures ----------------------------------------------------------------------------------------------------------


def by_family(cards: Cards) -> Mapping[str, Cards]:
    """Cards by network, all forms of AlexNet together; those of no network as "hand-made"."""
    families: dict[str, dict[str, dict[str, Any]]] = {}
    for name, card in cards.items():
        network = name.partition(".")[0]
        family = SAME_SHAPES.get(network, network) if network in NETWORKS else "hand-made"
        families.setdefault(family, {})[name] = card
    return families


def curve_of(card: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """(photographs seen, NRE, standard error) over all trainings of an inverter."""
    points, before = [], 0
    for part in zoo.trainings(card):
        size = part["training"]["batch_size"]
        points += [(before + size * one["step"], one["nre"], one["nre_sem"]) for one in part["curve"]]
        before += photographs_seen(part)
    return points


def draw_family(family: str, cards: Cards, folder: Path) -> dict[str, Any]:
    """Errors layer by layer beside the baselines', and how they fell in training."""
    errors, training = folder / f"results-{family}-errors.png", folder / f"results-{family}-training.png"
    series = {}
    for inverter in DRAWN:
        rows = [(place, row_of(card, inverter)) for place, card in enumerate(cards.values())]
        points = [(float(place), row["nre"], row["nre_sem"]) for place, row in rows if row is not None]
        if points:
            series[inverter] = points
    layers = [name.partition(".")[2] for name in cards]
    shared = all(layers) and len({name.partition(".")[0] for name in cards}) == 1
    bars(series, layers if shared else list(cards), errors, family if shared else "", NRE_AXIS)
    curves = {name: points for name, card in cards.items() if (points := curve_of(card))}
    drawn = [errors]
    if curves:
        curve(curves, training, "photographs seen in training", NRE_AXIS)
        drawn.append(training)
    return {"name": family, "members": list(cards), "files": [f"images/{file.name}" for file in drawn]}
