"""Does an inverter know where it guesses? Its confidence map against its errors on photographs it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import BATCH, SHOWN, anothers, encoded, percent
from preimage.errors import ImageError
from preimage.evaluation import FAR
from preimage.figures import heat
from preimage.findings import Analysis, Finding, Plot, Point, Record, Sheet, mean_in_words, points, summarise
from preimage.interfaces import Inverter
from preimage.inverters.confidence import CONSTANT, GRADIENT, KINDS, LEVELS, MAP, Confidence, log_likelihood
from preimage.metrics import mean_and_sem
from preimage.words import plus_minus

OTHER = "map of another"  # photograph: what a map is worth that looks right and belongs elsewhere
PERCENTS = tuple(f"{100 * level:.0f}" for level in LEVELS)
NORMAL = tuple(NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS)
BINS = 10  # pixels by expected error, as many in each


@dataclass(frozen=True)
class ConfidenceMap(Analysis):
    """Log-likelihoods of the errors, in nats per colour value, and how many errors lie within an interval.

    Intervals are `covered` as calibrated on training photographs, and `normal` as a normal distribution has them. The
    records hold, of every photograph and group of pixels too, `pixels`, and the root mean squares of the `expected` and
    the `actual` error.
    """

    name: ClassVar[str] = "confidence"
    question: ClassVar[str] = "Does the inverter know which pixels it guesses?"
    columns: ClassVar[Mapping[str, str]] = {
        "deviation": "expected error by",
        "log_likelihood": "log-likelihood, nats per colour value ↑",
        **{f"covered_{level}": f"errors within the {level} % interval (calibrated), share" for level in PERCENTS},
        **{
            f"normal_{level}": f"errors within the {level} % interval (normal distribution), share"
            for level in PERCENTS
        },
    }

    def unavailable(self, inverter: Inverter) -> str:
        if isinstance(inverter.confidence, Confidence):
            return ""
        return (
            f"the inverter {inverter.name!r} of {inverter.representation.name} has learnt no confidence map: fit one "
            "by `preimage confidence RUN-OR-NAME --images PHOTOS -o FILE.safetensors`, then analyse FILE.safetensors"
        )

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        if len(images) < 2:
            raise ImageError("a confidence map is judged beside that of another photograph: give at least two")
        confidence = inverter.confidence
        assert isinstance(confidence, Confidence)
        own, deviations = self.predicted(inverter, confidence, images)
        errors = images.cpu() - own
        deviations[OTHER] = anothers(deviations[MAP])
        records: list[Record] = []
        for kind, expected in deviations.items():
            reach = confidence.reach(MAP if kind == OTHER else kind)
            for one, error, deviation in zip(ids, errors, expected, strict=True):
                records.append({"id": one, "deviation": kind, **judged(error, deviation, reach)})
        values = [name for name in records[0] if name not in ("id", "deviation")]
        table = summarise(records, ["deviation"], values)
        size = errors.square().mean(dim=1, keepdim=True).sqrt()
        found = {kind: reliability(size, deviations[kind]) for kind in KINDS}
        records += reliability_records(ids, found)
        shown = {
            "photograph": images[:SHOWN].cpu(),
            "reconstruction": own[:SHOWN],
            f"expected error, 0 to {FAR:g}": heat(deviations[MAP][:SHOWN], FAR),
            "actual error, same scale": heat(size[:SHOWN], FAR),
        }
        return Finding(
            self.name,
            self.question,
            answer(table, records),
            table,
            records,
            [likelihood_plot(table), coverage_plot(table), reliability_plot(found)],
            [Sheet(shown, list(ids[:SHOWN]))],
        )

    def predicted(self, inverter: Inverter, confidence: Confidence, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstructions, and by kind the deviations (N, 1, H, W), on the CPU."""
        pictures: list[Tensor] = []
        parts: dict[str, list[Tensor]] = {}
        for batch in torch.split(images, BATCH):
            features = encoded(inverter.representation, batch)
            pictures.append(inverter.invert(features))
            for kind, own in confidence.deviations(features, pictures[-1]).items():
                parts.setdefault(kind, []).append(own.cpu())
        return torch.cat(pictures).cpu(), {kind: torch.cat(own) for kind, own in parts.items()}


def judged(error: Tensor, deviation: Tensor, reach: Sequence[float]) -> dict[str, float]:
    """One photograph's errors (3, H, W) under deviations (1, H, W)."""
    values = {"log_likelihood": float(log_likelihood(error.square(), deviation.square()).double().mean())}
    relative = error.abs() / deviation
    for level, calibrated, normal in zip(LEVELS, reach, NORMAL, strict=True):
        for name, factor in (("covered", calibrated), ("normal", normal)):
            values[f"{name}_{100 * level:.0f}"] = float((relative <= factor).double().mean())
    return values


def gain(records: Sequence[Record], rival: str) -> str:
    """By how much the map is likelier than a rival, photograph by photograph: `+0.123 ± 0.004`."""
    of_kind = [
        [float(one["log_likelihood"]) for one in records if one["deviation"] == kind and "log_likelihood" in one]
        for kind in (MAP, rival)
    ]
    return plus_minus(*mean_and_sem([own - other for own, other in zip(*of_kind, strict=True)]), 3, sign="+")


def answer(table: Sequence[Record], records: Sequence[Record]) -> str:
    own = next(row for row in table if row["deviation"] == MAP)
    gains = {kind: gain(records, kind) for kind in (CONSTANT, GRADIENT, OTHER)}
    covered = ", ".join(f"{percent(own[f'covered_{100 * level:.0f}'])} of {percent(level)}" for level in LEVELS)
    return (
        f"Log-likelihood {mean_in_words(own, 'log_likelihood', 3)} nats per colour value: {gains[CONSTANT]} against "
        f"one deviation for all pixels, {gains[GRADIENT]} against one that grows with the reconstruction's gradient, "
        f"{gains[OTHER]} against the map of another photograph. Calibrated intervals hold {covered} of the errors "
        f"(n = {own['n']})."
    )


def likelihood_plot(table: Sequence[Record]) -> Plot:
    series = {"log-likelihood": points(table, "log_likelihood")}
    y_label = "log-likelihood, nats per\ncolour value (higher is better)"
    groups = [str(row["deviation"]) for row in table]
    return Plot("", y_label, series, "bars", groups)


def coverage_plot(table: Sequence[Record]) -> Plot:
    """Of the map alone: its rivals are in the table."""
    own = next(row for row in table if row["deviation"] == MAP)
    series: dict[str, list[Point]] = {"wanted": [(float(i), 100 * level, math.nan) for i, level in enumerate(LEVELS)]}
    for name, words in (("covered", "calibrated"), ("normal", "normal distribution")):
        keys = [f"{name}_{100 * level:.0f}" for level in LEVELS]
        series[words] = [
            (float(i), 100 * float(own[key]), 100 * float(own[f"{key}_sem"])) for i, key in enumerate(keys)
        ]
    groups = [percent(level) for level in LEVELS]
    return Plot("central interval", "errors within it, %", series, "bars", groups)


@dataclass(frozen=True)
class Reliability:
    """Pixels in groups by expected error, of every photograph (N, groups): how many, sums of squared errors."""

    pixels: Tensor
    expected: Tensor
    actual: Tensor

    def ratios(self) -> list[Point]:
        """(expected, actual / expected, standard error over photographs) of each group, root mean squares."""
        points: list[Point] = []
        for count, expected, actual in zip(self.pixels.T, self.expected.T, self.actual.T, strict=True):
            if not count.any():
                continue
            ratio = float(actual.sum() / expected.sum())
            own = (actual - ratio * expected) / expected.mean()  # linearised, as of a ratio of means
            sem = float(own.std()) / math.sqrt(len(own)) / (2 * math.sqrt(ratio)) if ratio > 0 else math.nan
            points.append((float((expected.sum() / count.sum()).sqrt()), math.sqrt(ratio), sem))
        return points


def reliability(size: Tensor, expected: Tensor) -> Reliability:
    """Errors (N, 1, H, W) and what was expected of them, in `BINS` groups of as many pixels."""
    edges = expected.flatten()[::7].sort().values
    inner = edges[torch.linspace(0, len(edges) - 1, BINS + 1)[1:-1].long()]
    group = torch.bucketize(expected.contiguous(), inner)

    def sums(values: Tensor) -> Tensor:
        return torch.stack([(values * (group == number)).flatten(1).sum(dim=1) for number in range(BINS)], dim=1)

    return Reliability(sums(torch.ones_like(group)), sums(expected.double().square()), sums(size.double().square()))


def reliability_records(ids: Sequence[str], found: Mapping[str, Reliability]) -> list[Record]:
    """A record for every photograph, kind of deviation and group of pixels that it has."""
    records: list[Record] = []
    for kind, own in found.items():
        expected, actual = ((sums / own.pixels).sqrt().tolist() for sums in (own.expected, own.actual))
        for place, (one, counts) in enumerate(zip(ids, own.pixels.tolist(), strict=True)):
            for group, pixels in enumerate(counts):
                if pixels:
                    key: Record = {"id": one, "deviation": kind, "group": group + 1, "pixels": pixels}
                    records.append(key | {"expected": expected[place][group], "actual": actual[place][group]})
    return records


def reliability_plot(found: Mapping[str, Reliability]) -> Plot:
    """Is the error of pixels as large as expected? Of kinds that tell pixels apart, which needs two groups."""
    ratios = {kind: own.ratios() for kind, own in found.items()}
    return Plot(
        "expected error (pixels in [0, 1])",
        "actual over expected error",
        {kind: points for kind, points in ratios.items() if len(points) > 1},
        level=1.0,
        level_name="as expected",
    )
