"""Features changed on purpose, then inverted: what does the picture depend on? (Dosovitskiy & Brox 2016, 4 to 6.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from preimage.findings import Analysis, Finding, Plot, Record, Sheet, summarise
from preimage.interfaces import Inverter, Representation
from preimage.metrics import distance, mean_pairwise_distance

SHOWN = 6  # photographs on a sheet
BATCH = 32


@dataclass(frozen=True)
class Brightness(Analysis):
    """Pixel values multiplied before the features are computed; the photograph as it was is what is asked for."""

    name: ClassVar[str] = "brightness"
    question: ClassVar[str] = "Does the representation keep how bright the photograph is?"
    factors: tuple[float, ...] = (10.0, 100.0)

    def unavailable(self, inverter: Inverter) -> str:
        if inverter.representation.brightened(1) is None:
            return f"{inverter.representation.name} takes pixel values in [0, 1] only: there is no scale to multiply"
        return ""

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        pictures = {"as it is": inverted(inverter, inverter.representation, images)}
        for factor in self.factors:
            brighter = inverter.representation.brightened(factor)
            assert brighter is not None
            pictures[f"x{factor:g}"] = inverted(inverter, brighter, images)
        return compared(self, ids, images, pictures, "pixel values multiplied by")


def inverted(inverter: Inverter, representation: Representation, images: Tensor) -> Tensor:
    """Reconstructions (N, 3, S, S) from a representation's features of images, batch by batch."""
    parts = [inverter.invert(representation.encode(part)) for part in torch.split(images, BATCH)]
    return torch.cat(parts)


def compared(
    analysis: Analysis, ids: Sequence[str], images: Tensor, pictures: Mapping[str, Tensor], x_label: str
) -> Finding:
    """The error of reconstructions under several conditions, the first of which is the unchanged one."""
    pairwise = mean_pairwise_distance(images)
    records: list[Record] = []
    for condition, own in pictures.items():
        errors = (distance(images, own) / pairwise).tolist()
        records += [{"id": name, "condition": condition, "nre": error} for name, error in zip(ids, errors, strict=True)]
    table = summarise(records, ["condition"], ["nre"])
    points = [(float(place), float(row["nre"]), float(row["nre_sem"])) for place, row in enumerate(table)]
    plot = Plot(analysis.question, x_label, "NRE (lower is better)", {"NRE": points}, "bars", list(pictures))
    shown = {"photograph": images, **pictures}
    sheet = Sheet(analysis.question, {title: own[:SHOWN].cpu() for title, own in shown.items()}, list(ids[:SHOWN]))
    return Finding(analysis.name, analysis.question, answer(table), table, records, [plot], [sheet])


def answer(table: Sequence[Record]) -> str:
    """The table of `compared` in words."""
    first, *others = (f"{row['condition']} {row['nre']:.3f} ± {row['nre_sem']:.3f}" for row in table)
    return f"NRE {first}; {', '.join(others)} (n = {table[0]['n']})."
