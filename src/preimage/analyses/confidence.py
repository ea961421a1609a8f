"""Does an inverter know where it guesses? Its confidence map against its errors on photographs it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.perturbation import BATCH, SHOWN
from preimage.analyses.retention import anothers, percent, plus_minus
from preimage.errors import ImageError
from preimage.figures import heat
from preimage.findings import Analysis, Finding, Plot, Point, Record, Sheet, summarise
from preimage.interfaces import Inverter
from preimage.inverters.confidence import CONSTANT, GRADIENT, LEVELS, MAP, Confidence, log_likelihood
from preimage.metrics import mean_and_sem

OTHER = "map of another"  # photograph: what a map is worth that looks right and belongs elsewhere
NORMAL = tuple(math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64))) for level in LEVELS)
TOP = 0.25  # of the pixel range: yellow on the sheet
BINS = 10  # pixels by expected error, as many in each


@dataclass(frozen=True)
class ConfidenceMap(Analysis):
    """Log-likelihoods of the errors, in nats per colour value, and how many errors lie within an interval.

    Intervals are `covered` as calibrated on training photographs, and `normal` as a normal distribution has them.
    """

    name: ClassVar[str] = "confidence"
    question: ClassVar[str] = "Does the inverter know which pixels it guesses?"

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
        shown = {
            "photograph": images[:SHOWN].cpu(),
            "reconstruction": own[:SHOWN],
            f"expected error, 0 to {TOP:g}": heat(deviations[MAP][:SHOWN], TOP),
            "actual error, same scale": heat(size[:SHOWN], TOP),
        }
        return Finding(
            self.name,
            self.question,
            answer(table, records),
            table,
            records,
            [likelihood_plot(table), coverage_plot(table), reliability_plot(size, deviations)],
            [Sheet(self.question, shown, list(ids[:SHOWN]))],
        )

    def predicted(self, inverter: Inverter, confidence: Confidence, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstructions, and by kind the deviations (N, 1, H, W), on the CPU."""
        pictures: list[Tensor] = []
        parts: dict[str, list[Tensor]] = {}
        for batch in torch.split(images, BATCH):
            features = inverter.representation.encode(batch)
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


def gain(records: Sequence[Record], rival: str) -> tuple[float, float]:
    """By how much the map is likelier than a rival, photograph by photograph: mean and standard error."""
    of_kind = [[float(r["log_likelihood"]) for r in records if r["deviation"] == kind] for kind in (MAP, rival)]
    return mean_and_sem([own - other for own, other in zip(*of_kind, strict=True)])


def answer(table: Sequence[Record], records: Sequence[Record]) -> str:
    own = next(row for row in table if row["deviation"] == MAP)
    gains = {kind: "{:+.3f} ± {:.3f}".format(*gain(records, kind)) for kind in (CONSTANT, GRADIENT, OTHER)}
    covered = ", ".join(f"{percent(own[f'covered_{100 * level:.0f}'])} of {percent(level)}" for level in LEVELS)
    return (
        f"Log-likelihood {plus_minus(own, 'log_likelihood', 3)} nats per colour value: {gains[CONSTANT]} against one "
        f"deviation for all pixels, {gains[GRADIENT]} against one that grows with the reconstruction's gradient, "
        f"{gains[OTHER]} against the map of another photograph. Calibrated intervals hold {covered} of the errors "
        f"(n = {own['n']})."
    )


def likelihood_plot(table: Sequence[Record]) -> Plot:
    points: list[Point] = [
        (float(place), float(row["log_likelihood"]), float(row["log_likelihood_sem"]))
        for place, row in enumerate(table)
    ]
    y_label = "log-likelihood, nats per\ncolour value (higher is better)"
    groups = [str(row["deviation"]) for row in table]
    return Plot("How likely the errors are", "", y_label, {"log-likelihood": points}, "bars", groups)


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
    return Plot("Errors within the interval", "central interval", "errors within it, %", series, "bars", groups)


def reliability_plot(size: Tensor, deviations: dict[str, Tensor]) -> Plot:
    """Pixels in groups by expected error: is the actual one as large? Root mean squares, of all three colours."""
    found = {kind: reliability(size, deviations[kind]) for kind in (MAP, GRADIENT)}
    ends = [end(point[0] for points in found.values() for point in points) for end in (min, max)]
    series: dict[str, list[Point]] = {"as expected": [(end, end, math.nan) for end in ends], **found}
    return Plot(
        "Expected and actual error", "expected error (pixels in [0, 1])", "actual error, root mean square", series
    )


def reliability(size: Tensor, expected: Tensor) -> list[Point]:
    """(expected, actual, standard error over photographs) of each of `BINS` groups of pixels."""
    edges = expected.flatten()[::7].sort().values
    inner = edges[torch.linspace(0, len(edges) - 1, BINS + 1)[1:-1].long()]
    group = torch.bucketize(expected.contiguous(), inner)
    points: list[Point] = []
    for number in range(BINS):
        inside = group == number
        counts, sums = inside.flatten(1).sum(dim=1), (size.square() * inside).double().flatten(1).sum(dim=1)
        if not counts.any():
            continue
        mean = float(sums.sum() / counts.sum())
        own = (sums - mean * counts) / counts.double().mean()  # linearised, as of a ratio of means
        sem = float(own.std()) / math.sqrt(len(own)) / (2 * math.sqrt(mean)) if mean > 0 else math.nan
        points.append((float(expected[inside].square().double().mean().sqrt()), math.sqrt(mean), sem))
    return points
