"""What an analysis promises, and what it returns: records first, pictures second.

A finding is saved as `NAME/records.csv` (one line per photograph and condition), `NAME/finding.json` (question, answer,
the table, the numbers of every plot) and PNGs; `redraw` draws the plots again from those numbers.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage.errors import ImageError, PreimageError, RunError
from preimage.evaluation import Contender
from preimage.figures import bars, curve, sheet
from preimage.files import replace_text
from preimage.interfaces import Inverter, check_images
from preimage.metrics import mean_and_sem
from preimage.plain import to_csv, to_json
from preimage.words import plus_minus

Record = dict[str, str | float]  # one photograph under one condition
Point = tuple[float, float, float | tuple[float, float]]  # x, y, and y's standard error or 95 % interval (low, high)
JOINED_ROWS = 3  # photographs on a sheet of several inverters


@dataclass(frozen=True)
class Sheet:
    """Pictures in a grid: columns of images (N, 3, H, W) by title, a caption for each row."""

    columns: dict[str, Tensor]
    captions: list[str]


@dataclass(frozen=True)
class Plot:
    """Numbers to be drawn: lines over x, or bars. Where there are `groups`, x is the place of one among them.

    A point is (x, y, standard error) or, where errors are not the same both ways as those of shares, (x, y, 95 %
    interval): `(0.0, 0.95, (0.90, 0.98))`. `level` is a y to compare with, drawn dashed across and called `level_name`:
    `level=0.05, level_name="chance"`. `log`: equal steps along x are equal factors.
    """

    x_label: str
    y_label: str
    series: Mapping[str, Sequence[Point]]
    kind: Literal["line", "bars"] = "line"
    groups: list[str] = field(default_factory=list)
    log: bool = False
    level: float | None = None
    level_name: str = ""

    def draw(self, file: Path) -> None:
        if self.kind == "bars":
            bars(self.series, self.groups, file, self.x_label, self.y_label, self.level, self.level_name)
        else:
            curve(self.series, file, self.x_label, self.y_label, self.groups, self.log, self.level, self.level_name)


@dataclass(frozen=True)
class Finding:
    """What an analysis found for one inverter; `reason` says why it does not apply, and then there is nothing else."""

    analysis: str
    question: str
    answer: str = ""  # in words, numbers included
    table: list[Record] = field(default_factory=list)  # one row per condition: means, standard errors, n
    records: list[Record] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    reason: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)  # titles of the table's own ones, with their units

    @property
    def content(self) -> dict[str, Any]:
        """All but records and pictures, as plain values."""
        return {
            "analysis": self.analysis,
            "question": self.question,
            "answer": self.answer,
            "reason": self.reason,
            "table": self.table,
            "columns": dict(self.columns),
            "plots": [asdict(plot) for plot in self.plots],
            "sheets": [
                {"file": f"sheet-{place}.png", "columns": list(one.columns), "rows": len(one.captions)}
                for place, one in enumerate(self.sheets)
            ],
        }

    def save(self, folder: str | Path) -> None:
        """Write everything under `folder`/NAME."""
        own = Path(folder) / self.analysis
        if self.records:
            replace_text(own / "records.csv", to_csv(self.records))
        else:
            (own / "records.csv").unlink(missing_ok=True)
        replace_text(own / "finding.json", to_json(self.content) + "\n")
        for place, one in enumerate(self.sheets):
            sheet(one.columns, own / f"sheet-{place}.png", captions=one.captions)
        redraw(own)


def redraw(folder: str | Path, suffix: str = ".png") -> list[Path]:
    """Draw the plots of a saved finding from its numbers, as `.pdf` or `.svg` for a paper; returns the files."""
    folder, files = Path(folder), []
    for place, described in enumerate(read_finding(folder)["plots"]):
        file = folder / f"plot-{place}{suffix}"
        described.pop("title", None)  # of older findings
        Plot(**described).draw(file)
        files.append(file)
    return files


def read_finding(folder: str | Path) -> dict[str, Any]:
    """The content of a saved finding; raises `RunError` where there is none."""
    try:
        content: dict[str, Any] = json.loads((Path(folder) / "finding.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{folder} holds no finding that can be read: {error}") from error
    return content


class Analysis(ABC):
    """A question about what an inverter makes of features. Subclasses are frozen dataclasses: fields are settings."""

    name: ClassVar[str]
    question: ClassVar[str]
    columns: ClassVar[Mapping[str, str]] = {}  # of its table, where their names are no titles

    def unavailable(self, inverter: Inverter) -> str:  # noqa: ARG002 (by default it always applies)
        """Why this question cannot be asked of an inverter; empty where it can."""
        return ""

    def against(self, rivals: Callable[[], Iterable[Contender]]) -> Analysis:  # noqa: ARG002 (most look at one alone)
        """The same question where other inverters of the same features take part; `rivals` gets them when called."""
        return self

    def with_weights(self, files: Mapping[str, str]) -> Analysis:  # noqa: ARG002 (most need no other network)
        """The same question where weights files of networks, by network, are at hand."""
        return self

    @abstractmethod
    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        """Ask it of photographs (N, 3, S, S) in [0, 1], at the size of the inverter's representation."""

    def __call__(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        """`analyse` where it applies, else a finding that says why not.

        Raises `ImageError` for what are no images of the inverter's size, an id each. Whatever else a reader could mend
        is a reason: it must not cost the answers to all other questions.
        """
        check_images(images)
        size = inverter.representation.image_size
        if tuple(images.shape[2:]) != (size, size) or len(ids) != len(images):
            raise ImageError(
                f"expected images of {size} x {size} pixels, and an id for each, got {len(ids)} ids and images of "
                f"shape {tuple(images.shape)}"
            )
        try:
            reason = self.unavailable(inverter)
            if not reason:
                return replace(self.analyse(inverter, ids, images), columns=self.columns)
            return Finding(self.name, self.question, reason=reason)
        except PreimageError as error:
            return Finding(self.name, self.question, reason=str(error))


def joined(findings: Mapping[str, Finding]) -> Finding:
    """What one analysis found for several inverters, by what they are called: one table, one plot, one sheet of all.

    Plots of several series are left to the inverters' own findings, where they can be told apart; so are sheets whose
    columns are not the same. A finding that does not apply takes no part; raises `RunError` where none does.
    """
    found = {title: finding for title, finding in findings.items() if not finding.reason}
    if not found:
        raise RunError(f"no finding to join: {'; '.join(finding.reason for finding in findings.values())}")
    first = next(iter(found.values()))

    def together(records: str) -> list[Record]:
        return [
            {"inverter": title} | row | ({"inverter": f"{title}: {row['inverter']}"} if "inverter" in row else {})
            for title, finding in found.items()
            for row in getattr(finding, records)
        ]

    plots = [joined_plot(found, same) for same in zip(*(finding.plots for finding in found.values()), strict=False)]
    sheets = [joined_sheet(found, same) for same in zip(*(finding.sheets for finding in found.values()), strict=False)]
    return Finding(
        first.analysis,
        first.question,
        " ".join(f"{title}: {finding.answer}" for title, finding in found.items()),
        together("table"),
        together("records"),
        [plot for plot in plots if plot is not None],
        [sheet for sheet in sheets if sheet is not None],
        columns=first.columns,
    )


def joined_plot(titles: Iterable[str], plots: Sequence[Plot]) -> Plot | None:
    """One plot with a series for each title; None where there are several in one, or the groups differ."""
    if any(len(plot.series) != 1 or plot.groups != plots[0].groups for plot in plots):
        return None
    series = {title: next(iter(plot.series.values())) for title, plot in zip(titles, plots, strict=True)}
    return replace(plots[0], series=series)


def joined_sheet(titles: Iterable[str], sheets: Sequence[Sheet]) -> Sheet | None:
    """The first rows of several sheets, one below the other for each photograph; None where their columns differ."""
    columns = {title: images.shape[1:] for title, images in sheets[0].columns.items()}
    if any({title: images.shape[1:] for title, images in sheet.columns.items()} != columns for sheet in sheets):
        return None
    rows = min(JOINED_ROWS, *(len(images) for sheet in sheets for images in sheet.columns.values()))
    stacked = {
        title: torch.stack([sheet.columns[title][:rows] for sheet in sheets], dim=1).flatten(0, 1) for title in columns
    }
    captions = [f"{caption}\n{title}" for caption in sheets[0].captions[:rows] for title in titles]
    return Sheet(stacked, captions)


def summarise(records: Sequence[Record], by: Sequence[str], values: Sequence[str]) -> list[Record]:
    """A row for each combination of the `by` entries, in order of appearance: n, means and standard errors of `values`.

    Values that are NaN are left out, and n counts the rest of the first value.
    """
    groups: dict[tuple[str | float, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in by), []).append(record)
    rows = []
    for key, members in groups.items():
        row: Record = dict(zip(by, key, strict=True))
        for value in values:
            numbers = [float(member[value]) for member in members if not math.isnan(float(member[value]))]
            row.setdefault("n", len(numbers))
            row[value], row[f"{value}_sem"] = mean_and_sem(numbers)
        rows.append(row)
    return rows


def mean_in_words(row: Record, value: str, digits: int = 2, sign: str = "") -> str:
    """A mean in a row of `summarise`, with its standard error: `12.34 ± 0.56`."""
    return plus_minus(float(row[value]), float(row[f"{value}_sem"]), digits, sign)


def points(table: Sequence[Record], value: str, x: str | None = None) -> list[Point]:
    """A point for each row of `summarise`: its `x`, by default its place; the mean and its standard error."""
    return [
        (float(row[x] if x else place), float(row[value]), float(row[f"{value}_sem"]))
        for place, row in enumerate(table)
    ]


def errors_by(key: str, records: Iterable[Record], error: str = "nre") -> dict[str, dict[str, float]]:
    """An error of records with an `id` by one more of their fields, then photograph."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        found.setdefault(str(record[key]), {})[str(record["id"])] = float(record[error])
    return found
