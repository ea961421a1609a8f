"""Features that no photograph has, drawn at random and inverted: what the inverter makes up where it must guess."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import encoded, inverted, records_of
from preimage.errors import ImageError, SettingsError
from preimage.findings import Analysis, Finding, Plot, Record, Sheet, mean_in_words, points, summarise
from preimage.interfaces import Inverter
from preimage.metrics import distances_between, mean_pairwise_distance

PHOTOGRAPHS = "of photographs"


@dataclass(frozen=True)
class RandomFeatures(Analysis):
    """`samples` feature arrays of two kinds beside those of the photographs, all multiplied by `contrast`.

    *Histograms*: every dimension drawn from its own values over the photographs, so that its sparsity is theirs.
    *Gaussian*: all dimensions from one normal distribution; where features are never negative, cut off below zero, its
    mean and deviation such that the share of zeros and the mean are those of the photographs.
    `nearest` is the distance to the nearest (other) picture from photographs' features, over their mean distance.
    """

    name: ClassVar[str] = "random-features"
    question: ClassVar[str] = "What does the inverter draw when its features belong to no photograph?"
    columns: ClassVar[Mapping[str, str]] = {
        "spread": "standard deviation of pixel values",
        "nearest": "distance to the nearest reconstruction, NRE",
    }
    samples: int = 6
    contrast: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.contrast > 0:
            raise SettingsError(f"samples and contrast are positive, got {self.samples} and {self.contrast}")

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        features = encoded(inverter.representation, images)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = {
            PHOTOGRAPHS: features,
            "histograms": from_histograms(features, self.samples, generator),
            "gaussian": from_gaussian(features, self.samples, generator),
        }
        pictures = {kind: inverted(inverter, own * self.contrast) for kind, own in drawn.items()}
        known = pictures[PHOTOGRAPHS]
        try:
            pairwise = mean_pairwise_distance(known)
        except ImageError:  # one picture for all features: nothing is near or far
            pairwise = math.nan
        records: list[Record] = []
        for kind, own in pictures.items():
            names = list(ids) if kind == PHOTOGRAPHS else [f"{kind}-{place + 1}" for place in range(len(own))]
            apart = distances_between(own, known)
            if kind == PHOTOGRAPHS:
                apart.fill_diagonal_(math.inf)
            values = {"spread": own.flatten(1).std(dim=1), "nearest": apart.amin(dim=1) / pairwise}
            records += records_of(names, {"condition": kind}, values)
        table = summarise(records, ["condition"], ["spread", "nearest"])
        series = {"pictures": points(table, "spread")}
        y_label = "standard deviation of pixel values"
        plot = Plot("features from", y_label, series, "bars", list(drawn))
        rows = min(self.samples, len(images))
        sheet = Sheet(
            {f"features:\n{kind}": own[:rows].cpu() for kind, own in pictures.items()},
            [f"{one}\nsample {place + 1}" for place, one in enumerate(ids[:rows])],
        )
        words = ", ".join(f"{row['condition']} {mean_in_words(row, 'spread', 3)} (n = {row['n']})" for row in table)
        answer = (
            f"Standard deviation of the pictures' pixels (in [0, 1]), by where the features came from: {words}; "
            f"all features multiplied by {self.contrast:g}."
        )
        return Finding(self.name, self.question, answer, table, records, [plot], [sheet])


def from_histograms(features: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Samples (samples, ...): every dimension takes the value it has in a photograph of its own choice."""
    flat = features.flatten(1)
    choices = torch.randint(len(flat), (samples, flat.shape[1]), generator=generator).to(flat.device)
    return flat.gather(0, choices).view(samples, *features.shape[1:])


def from_gaussian(features: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Samples (samples, ...) from one normal distribution for all dimensions, cut off at zero if features are."""
    noise = torch.randn((samples, *features.shape[1:]), generator=generator).to(features.device)
    if features.min() < 0:
        return noise * features.std() + features.mean()
    offset, deviation = rectified_gaussian(float((features == 0).float().mean()), float(features.mean()))
    return (noise + offset).clamp(min=0) * deviation


def rectified_gaussian(zeros: float, mean: float) -> tuple[float, float]:
    """(m, s) such that s * max(0, m + noise), noise standard normal, is 0 that often and has that mean."""
    share = min(max(zeros, 1e-4), 1 - 1e-4)
    offset = -NormalDist().inv_cdf(share)
    density = math.exp(-(offset**2) / 2) / math.sqrt(2 * math.pi)
    return offset, mean / (density + offset * (1 - share))
