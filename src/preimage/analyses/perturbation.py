"""Features changed on purpose, then inverted: what does the picture depend on? (Dosovitskiy & Brox 2016, 4 to 6.)"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import MEAN, SHOWN, encoded, inverted, mean_of_others, records_of
from preimage.errors import FeatureError, SettingsError
from preimage.findings import Analysis, Finding, Plot, Record, Sheet, mean_in_words, points, summarise
from preimage.interfaces import Inverter
from preimage.metrics import NRE_AXIS, distance, mean_pairwise_distance
from preimage.representations import SavedFeatures

LOGITS = ("logits", "fc8")  # layers that hold class scores
TIMES = "\N{MULTIPLICATION SIGN}"
SPARSE = 0.02  # share of zeros from which features count as a code of zeros and non-zeros


@dataclass(frozen=True)
class Brightness(Analysis):
    """Pixel values multiplied before the features are computed; the photograph as it was is what is asked for."""

    name: ClassVar[str] = "brightness"
    question: ClassVar[str] = "Does the representation keep how bright the photograph is?"
    factors: tuple[float, ...] = (10.0, 100.0)

    def __post_init__(self) -> None:
        if not all(0 < factor < math.inf for factor in self.factors):
            raise SettingsError(f"factors are positive, got {self.factors}")

    def unavailable(self, inverter: Inverter) -> str:
        if isinstance(inverter.representation, SavedFeatures):
            return f"{inverter.representation.name} has no encoder that brighter photographs could be given to"
        if inverter.representation.brightened(1) is None:
            return f"{inverter.representation.name} takes pixel values in [0, 1] only: there is no scale to multiply"
        return ""

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        pictures = {f"{TIMES}1": inverted(inverter, encoded(inverter.representation, images))}
        for factor in self.factors:
            brighter = inverter.representation.brightened(factor)
            assert brighter is not None
            pictures[f"{TIMES}{factor:g}"] = inverted(inverter, encoded(brighter, images))
        return compared(self, ids, images, pictures, "pixel values multiplied by")


@dataclass(frozen=True)
class Code(Analysis):
    """Which features are on, their exact values, or the weak ones: does the picture live in them?

    `binarised` keeps signs only, with one absolute value for all that are not zero; `dropped` sets a random `share` to
    zero; the others do both, the last one dropping the smallest that are not zero instead of random ones. The
    Euclidean norm of every image's features is restored.
    """

    name: ClassVar[str] = "code"
    question: ClassVar[str] = "Does the picture depend on which features are on, or on their values?"
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise SettingsError(f"share is between 0 and 1, got {self.share}")

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        features = encoded(inverter.representation, images)
        if features.ndim > 2 and (features == 0).float().mean() < SPARSE and features.min() < 0:
            name = inverter.representation.name
            raise FeatureError(f"{name} is a signed map without zeros: there is no code of zeros and non-zeros in it")
        share, dropped = self.share, dropout(features, self.share, torch.Generator().manual_seed(self.seed))
        conditions = {
            "unchanged": features,
            "binarised": binarise(features),
            f"{share:.0%} dropped": with_norm_of(features, dropped),
            f"binarised, {share:.0%} dropped": with_norm_of(features, binarise(dropped)),
            f"binarised, least {share:.0%} dropped": with_norm_of(features, binarise(drop_least(features, share))),
        }
        pictures = {title: inverted(inverter, changed) for title, changed in conditions.items()}
        return compared(self, ids, images, pictures, "features")


@dataclass(frozen=True)
class DarkKnowledge(Analysis):
    """Class scores as they are; only the `k` largest; all but the `k` largest. What is left out becomes 0."""

    name: ClassVar[str] = "dark-knowledge"
    question: ClassVar[str] = "Is the picture in the scores of the likeliest classes, or in all the others?"
    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingsError(f"k is at least 1, got {self.k}")

    def unavailable(self, inverter: Inverter) -> str:
        name = inverter.representation.name
        if name.rpartition(".")[2] not in LOGITS:
            return f"{name} holds no class scores; the analysis belongs to layers called {' or '.join(LOGITS)}"
        return ""

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        features = encoded(inverter.representation, images)
        if self.k >= features.shape[1]:
            raise SettingsError(f"k is less than the {features.shape[1]} classes, got {self.k}")
        largest = torch.zeros_like(features).scatter(1, features.topk(self.k, dim=1).indices, 1.0)
        conditions = {
            "all scores": features,
            f"only the {self.k} largest": features * largest,
            f"all but the {self.k} largest": features * (1 - largest),
        }
        pictures = {title: inverted(inverter, changed) for title, changed in conditions.items()}
        return compared(self, ids, images, pictures, "class scores")


# --- what is done to features (N, ...); each image on its own ---------------------------------------------------------


def binarise(features: Tensor) -> Tensor:
    """Signs, with one absolute value for all non-zero entries of an image, such that its norm stays."""
    return with_norm_of(features, features.sign())


def dropout(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A random `share` of the entries set to zero; norms are not restored."""
    kept = torch.rand(features.shape, generator=generator) >= share
    return features * kept.to(features.device)


def drop_least(features: Tensor, share: float) -> Tensor:
    """Of each image's non-zero entries, the `share` with the least absolute values set to zero."""
    flat = features.flatten(1)
    sizes = torch.where(flat == 0, torch.inf, flat.abs())
    ranks = sizes.argsort(dim=1).argsort(dim=1)
    count = (share * (flat != 0).sum(dim=1, keepdim=True)).round()
    return (flat * (ranks >= count)).view_as(features)


def with_norm_of(features: Tensor, changed: Tensor) -> Tensor:
    """`changed`, each image scaled to the Euclidean norm of its `features`."""
    wanted, have = (torch.linalg.vector_norm(each.flatten(1), dim=1) for each in (features, changed))
    factors = wanted / have.clamp(min=1e-12)
    scaled: Tensor = changed * factors.view(-1, *[1] * (features.ndim - 1))
    return scaled


# --- what came of it --------------------------------------------------------------------------------------------------


def compared(
    analysis: Analysis,
    ids: Sequence[str],
    images: Tensor,
    pictures: Mapping[str, Tensor],
    x_label: str,
) -> Finding:
    """The error of reconstructions under several conditions, the first of which is the unchanged one.

    `difference` is that from the unchanged one, photograph by photograph: its standard error is free of how much harder
    one photograph is than another. What knows nothing, the mean of the other photographs, is measured too.
    """
    judged = dict(pictures) if len(images) < 2 else {**pictures, MEAN: mean_of_others(images)}
    pairwise = mean_pairwise_distance(images)
    errors = {condition: distance(images, own).double() / pairwise for condition, own in judged.items()}
    unchanged = next(iter(errors.values()))
    records = [
        record
        for condition, own in errors.items()
        for record in records_of(ids, {"condition": condition}, {"nre": own, "difference": own - unchanged})
    ]
    table = summarise(records, ["condition"], ["nre", "difference"])
    knows_nothing = float(table[-1]["nre"]) if MEAN in judged else None
    plot = Plot(
        x_label,
        NRE_AXIS,
        {"NRE": points(table[: len(pictures)], "nre")},
        "bars",
        list(pictures),
        level=knows_nothing,
        level_name=MEAN,
    )
    shown = {"photograph": images, **pictures}
    sheet = Sheet({title: own[:SHOWN].cpu() for title, own in shown.items()}, list(ids[:SHOWN]))
    return Finding(analysis.name, analysis.question, errors_in_words(table), table, records, [plot], [sheet])


def errors_in_words(table: Sequence[Record]) -> str:
    """The table of `compared` as a sentence."""
    unchanged = table[0]
    if not unchanged["n"]:
        return "One photograph has no NRE, which is relative to the distance between two: give more."
    errors = [f"{mean_in_words(row, 'nre', 3)} ({row['condition']}{against(row)})" for row in table[1:]]
    return (
        f"NRE {mean_in_words(unchanged, 'nre', 3)} ({unchanged['condition']}), {', '.join(errors)}; "
        f"differences are from {unchanged['condition']}, on the same photographs (n = {unchanged['n']})."
    )


def against(row: Record) -> str:
    """`: +0.041 ± 0.015`, but for the mean image, which is a mark to compare with."""
    return "" if row["condition"] == MEAN else f": {mean_in_words(row, 'difference', 3, sign='+')}"
