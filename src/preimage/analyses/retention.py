"""What is kept, in numbers: colour and brightness here; detail, place, identity and class in files of their own.

Every figure stands beside that of the mean image and that of the *control*: the inverter given the features of another
photograph, which shows what it makes up by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from preimage.analyses.conditions import (
    CONTROL,
    KEPT,
    MEAN,
    SHOWN,
    conditions,
    percent,
    records_of,
)
from preimage.findings import Analysis, Finding, Plot, Point, Record, Sheet, mean_in_words, points, summarise
from preimage.images import grey
from preimage.interfaces import Inverter
from preimage.metrics import COLOURLESS, ab

LIGHTNESS_SHOWN = 65.0  # CIELAB's L of a picture that shows colour alone
FEWEST = 4  # photographs for a correlation
GROUPS = 5  # of photographs, from the darkest to the brightest


# --- colour -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Colour(Analysis):
    """Distances in the a, b plane of CIELAB (an eye tells about 2.3 apart), beside having no colour at all."""

    name: ClassVar[str] = "colour"
    question: ClassVar[str] = "Is the colour of the photograph kept?"
    columns: ClassVar[Mapping[str, str]] = {
        "ab_error": "colour error, CIELAB units ↓",
        "ab_correlation": "correlation of colour (a and b) over places ↑",
    }

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        compared = conditions(inverter, images)
        wanted, found = ab(images.cpu()), {name: ab(own) for name, own in compared.items()}
        found = {KEPT: found[KEPT], "grey": torch.zeros_like(wanted), **found}
        records: list[Record] = []
        for condition, own in found.items():
            error = (own - wanted).norm(dim=1).mean(dim=(1, 2))
            values = {"ab_error": error, "ab_correlation": correlation(own, wanted)}
            records += records_of(ids, {"condition": condition}, values)
        table = summarise(records, ["condition"], ["ab_error", "ab_correlation"])
        shown = {
            "photograph": images[:SHOWN].cpu(),
            "photograph's colour": colour_alone(wanted[:SHOWN]),
            "reconstruction": compared[KEPT][:SHOWN],
            "reconstruction's colour": colour_alone(found[KEPT][:SHOWN]),
        }
        return Finding(
            self.name,
            self.question,
            colour_answer(table),
            table,
            records,
            [bar_plot("error in CIELAB's a, b plane (lower is better)", table, "ab_error")],
            [Sheet(shown, list(ids[:SHOWN]))],
        )


def colour_alone(planes: Tensor) -> Tensor:
    """a, b (N, 2, H, W) -> images (N, 3, H, W) of the same lightness everywhere."""
    from skimage.color import lab2rgb

    lightness = torch.full_like(planes[:, :1], LIGHTNESS_SHOWN)
    lab = torch.cat([lightness, planes], dim=1).permute(0, 2, 3, 1).double().numpy()
    # What no screen can show is cut off; scikit-image would warn of every such pixel.
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(lab2rgb(lab).clip(0, 1)).permute(0, 3, 1, 2).float()


def correlation(own: Tensor, wanted: Tensor) -> Tensor:
    """How far two fields (N, C, H, W) vary alike over the places of an image: Pearson's r of all channels together.

    Every channel is taken from its mean. NaN where one of them does not vary.
    """
    first, second = ((field - field.mean(dim=(2, 3), keepdim=True)).double().flatten(1) for field in (own, wanted))
    scale = first.norm(dim=1) * second.norm(dim=1)
    flat = 1e-4 * math.sqrt(first.shape[1])  # rounding noise varies too
    varied = torch.minimum(first.norm(dim=1), second.norm(dim=1)) > flat
    return torch.where(varied, (first * second).sum(dim=1) / scale.clamp(min=1e-12), torch.nan)


def colour_answer(table: Sequence[Record]) -> str:
    rows = {str(row["condition"]): row for row in table}
    own, none = rows[KEPT], rows["grey"]
    if float(none["ab_error"]) < COLOURLESS:
        return (
            f"The photographs have no colour to keep: {mean_in_words(none, 'ab_error')} in the a, b plane of CIELAB is "
            f"rounding (n = {own['n']})."
        )
    return (
        f"Mean error in the a, b plane of CIELAB {mean_in_words(own, 'ab_error')}, {saved(own, none)} "
        f"({mean_in_words(none, 'ab_error')}); mean of the other photographs {mean_in_words(rows[MEAN], 'ab_error')}, "
        f"another photograph's features {mean_in_words(rows[CONTROL], 'ab_error')} (n = {own['n']}). "
        f"{alike_over_places(own, rows[CONTROL])}"
    )


def alike_over_places(own: Record, control: Record) -> str:
    if math.isnan(float(own["ab_correlation"])):
        return "Over the places of a reconstruction the colour does not vary."
    return (
        f"Over the places of a picture a and b correlate by {own['ab_correlation']:.2f} "
        f"(another photograph's features: {control['ab_correlation']:.2f})."
    )


def saved(own: Record, none: Record) -> str:
    """By how much the error is less than that of a picture without colour."""
    error, without = float(own["ab_error"]), float(none["ab_error"])
    share = 1 - error / without if without else math.nan
    return f"{percent(share)} less than without any colour" if share >= 0.005 else "no closer than without any colour"


# --- lightness --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lightness(Analysis):
    """How bright the whole picture is, in levels from 0 to 255 (mean of the grey picture)."""

    name: ClassVar[str] = "lightness"
    question: ClassVar[str] = "Can one tell from the features how bright the whole photograph is?"
    columns: ClassVar[Mapping[str, str]] = {
        "level_error": "error of the mean level, of 255 ↓",
        "correlation": "correlation with the photograph's level ↑",
    }

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        wanted = mean_level(images.cpu())
        levels = {name: mean_level(own) for name, own in conditions(inverter, images).items()}
        records: list[Record] = []
        for condition, own in levels.items():
            values = {"photograph": wanted, "level": own, "level_error": (own - wanted).abs()}
            records += records_of(ids, {"condition": condition}, values)
        table = summarise(records, ["condition"], ["level_error"])
        for row in table:
            own = levels[str(row["condition"])]
            # The mean of the others falls exactly as a photograph rises: that it "correlates" by -1 says nothing.
            r = math.nan if row["condition"] == MEAN or len(own) < FEWEST else pearson(own, wanted)
            row |= {"correlation": r, "correlation_sem": (1 - r**2) / math.sqrt(len(own) - 1)}
        plots = [
            bar_plot("error of the mean level, of 255 (lower is better)", table, "level_error"),
            Plot(
                "mean level of the photograph, 0 to 255",
                "mean level of the picture, 0 to 255",
                {"photograph": by_brightness(wanted, wanted)}
                | {name: by_brightness(wanted, own) for name, own in levels.items()},
            ),
        ]
        return Finding(self.name, self.question, lightness_answer(table), table, records, plots)


def mean_level(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) -> the mean of their grey pictures (N,), 0 to 255."""
    return grey(images, rounded=False).double().mean(dim=(1, 2))


def pearson(first: Tensor, second: Tensor) -> float:
    """The correlation of two rows of numbers (N,); NaN where one is constant."""
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    scale = float(first.norm() * second.norm())
    # Rounding must not push it beyond 1, where its standard error is no number.
    return max(-1.0, min(1.0, float(first @ second) / scale)) if scale > 1e-9 else math.nan


def by_brightness(wanted: Tensor, own: Tensor) -> list[Point]:
    """Groups of photographs in order of brightness: mean of theirs, mean and standard error of the pictures'."""
    points: list[Point] = []
    for group in torch.tensor_split(wanted.argsort(), min(GROUPS, len(wanted))):
        sem = float(own[group].std() / math.sqrt(len(group))) if len(group) > 1 else math.nan
        points.append((float(wanted[group].mean()), float(own[group].mean()), sem))
    return points


def lightness_answer(table: Sequence[Record]) -> str:
    rows = {str(row["condition"]): row for row in table}
    own, guess, control = rows[KEPT], rows[MEAN], rows[CONTROL]
    return (
        f"The mean level is off by {mean_in_words(own, 'level_error', 1)} of 255, by "
        f"{mean_in_words(guess, 'level_error', 1)} when always guessing the mean of the others; "
        f"{correlates(own)} (another photograph's features: {correlates(control)}, error"
        f" {mean_in_words(control, 'level_error', 1)}; n = {own['n']})."
    )


def correlates(row: Record) -> str:
    if math.isnan(float(row["correlation"])):
        return "it is the same for all" if float(row["n"]) >= FEWEST else f"for a correlation {FEWEST} are needed"
    return f"it correlates with the photograph's by {mean_in_words(row, 'correlation')}"


def bar_plot(y_label: str, table: Sequence[Record], value: str) -> Plot:
    """A bar for each row of a table."""
    series = {value: points(table, value)}
    return Plot("", y_label, series, "bars", [str(row["condition"]) for row in table])
