"""Results -> one self-contained HTML page, for phones and for paper, that loads nothing. Knows no method by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from preimage.evaluation import Evaluation, measured, paired_in_words
from preimage.files import replace_text
from preimage.findings import Record, read_finding
from preimage.metrics import METRICS
from preimage.pages import embedded, render
from preimage.words import NOTHING, number, with_error, with_interval

# What the columns of any table are called on a page; an analysis says what its own are.
COLUMNS = {
    "n": "n",
    **{name: metric.title for name, metric in METRICS.items()},
    "other_image_nre": "NRE of another photograph's features",
    "mean_image_nre": "NRE of the mean image",
    "difference": "NRE less the first one's",
}
SHADES = {
    "difference": "Differences: mid-grey is 0, brighter is where the reconstruction is too bright.",
    "expected error": "Errors: dark violet is 0, yellow the end of the scale.",
}  # what must be known of a column of pictures to read it, by a part of its title
FOLDERS = re.compile(
    r"""
    (?<![^\s(])                # at the beginning of a word
    (?:~|\.{1,2}|[A-Za-z]:)?   # home, this folder or the one above, a drive
    [/\\](?=\S)
    (?:[^\s,;]*[/\\])?         # folders up to the last one,
    (?!\.?(?:[\s,;)]|$))       # unless nothing follows it
    """,
    re.VERBOSE,
)
LONG = 16  # rows of a table that is shown at once, at most


@dataclass(frozen=True)
class Figure:
    """A picture inside the page: `alt` describes it, the caption says what must be known to read it."""

    source: str  # data: URL
    alt: str
    caption: str = ""
    plot: bool = False
    width: int = 0  # pixels on a wide page; 0: as the page has it


@dataclass(frozen=True)
class Block:
    """A piece of a section: words, then a table, then figures."""

    title: str = ""
    paragraphs: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    note: str = ""
    reason: str = ""  # why what the title promises does not apply

    @property
    def folded(self) -> bool:
        """Whether the table is so long that a screen shows it only when asked."""
        return len(self.rows) > LONG


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    title: str
    blocks: list[Block]


def write_page(title: str, made: str, sections: Sequence[Section], file: Path) -> None:
    """Write the page; `made` says in a line what it was made of."""
    page = render("report.html", title=title, made=without_folders(made), sections=sections)
    replace_text(file, page)


def finding_block(folder: Path) -> Block:
    """What a saved finding says and shows."""
    content = read_finding(folder)
    n = numbers_of(content["table"])
    figures = [
        picture(folder / f"plot-{place}.png", plot_in_words(plot), plot_caption(plot, n), plot=True)
        for place, plot in enumerate(content["plots"])
    ]
    figures += [
        picture(
            folder / one["file"],
            f"Pictures, from left to right: {'; '.join(one['columns'])}.".replace("\n", " "),
            f"{one['rows']} examples, a row each." if "rows" in one else "",
        )
        for one in content["sheets"]
    ]
    columns, rows = cells(content["table"], content.get("columns", {}))
    words = [content["answer"]] if content["answer"] else []
    return Block(content["question"], words, columns, rows, figures, reason=content["reason"])


def numbers_of(table: Sequence[Record]) -> str:
    """`n = 20`, or `n = 12 to 20` where the rows differ; empty where there is none."""
    found = sorted({int(row["n"]) for row in table if row.get("n")})
    return f"n = {' to '.join(map(str, dict.fromkeys((found[0], found[-1]))))}" if found else ""


def axes_in_words(plot: Mapping[str, Any]) -> str:
    y_label, x_label = plot["y_label"].replace("\n", " "), plot["x_label"]
    return f"{y_label} against {x_label}" if x_label else y_label


def plot_in_words(plot: Mapping[str, Any]) -> str:
    """What a plot shows, for those who do not see it: its axes, and its lines or bars by name."""
    series = list(plot["series"])
    words = f"{'Bars' if plot['kind'] == 'bars' else 'Lines'}: {axes_in_words(plot)}"
    if plot["groups"]:
        words += f", for {'; '.join(plot['groups'])}"
    return f"{words}. Each has: {'; '.join(series)}." if len(series) > 1 else f"{words}."


def plot_caption(plot: Mapping[str, Any], n: str) -> str:
    """What is drawn, of how many, and what its error bars and its dashed line are."""
    errors = [point[2] for points in plot["series"].values() for point in points]
    intervals = any(isinstance(error, list) and None not in error for error in errors)
    deviations = any(isinstance(error, float | int) for error in errors)
    bars = " and ".join(
        words for words, drawn in (("95 % intervals", intervals), ("standard errors", deviations)) if drawn
    )
    notes = "; ".join(filter(None, [n, f"error bars: {bars}" if bars else ""]))
    dashed = f" Dashed: {plot['level_name']}, {number(plot['level'])}." if plot.get("level_name") else ""
    axes = axes_in_words(plot)
    return f"{axes[:1].upper()}{axes[1:]}.{f' {notes}.' if notes else ''}{dashed}"


def evaluation_block(result: Evaluation) -> Block:
    """The table of an evaluation with its company."""
    rows = [
        [
            row.inverter,
            *(measured(row, name) for name in METRICS),
            str(row.n),
            without_folders(row.basis),
        ]
        for row in result.rows
    ]
    note = (
        f"NRE is the distance to the photograph over N = {result.pairwise_distance:.1f}, the "
        f"mean distance between two of the {result.n} photographs ({without_folders(result.images)}, "
        f"{result.image_size} pixels). The mean image ignores the features; other-image is the control: the "
        "same inverter given the features of another photograph."
    )
    columns = ["inverter", *(COLUMNS[name] for name in (*METRICS, "n")), "fitted on"]
    return Block("How good is it?", paired_in_words(result), columns, rows, note=note)


def facts_block(title: str, facts: Iterable[tuple[str, str]]) -> Block:
    """Facts as a table of two columns."""
    return Block(title, rows=[[name, without_folders(value)] for name, value in facts])


def without_folders(text: str) -> str:
    """The same words with files and folders by their own names: where they lie on a machine is nobody's business."""
    return FOLDERS.sub("", text)


# --- tables of numbers ------------------------------------------------------------------------------------------------


def cells(table: Sequence[Record], titles: Mapping[str, str] | None = None) -> tuple[list[str], list[list[str]]]:
    """(column titles, rows of text) of records; a value shares its cell with its interval or its standard error.

    `titles` are those of columns that are not usual.
    """
    called = COLUMNS | dict(titles or {})
    every = list(dict.fromkeys(key for row in table for key in row))
    company = {f"{name}_{end}" for name in every for end in ("sem", "low", "high")}
    names = [name for name in every if name not in company]
    headings = [called.get(name, name.replace("_", " ")) for name in names]
    return headings, [[cell(row, name) for name in names] for row in table]


def cell(row: Record, name: str) -> str:
    """`0.95 (0.90 to 0.98)`, `0.652 ± 0.012`, `3.4`, words, or a dash where there is nothing."""
    value, low, high = row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")
    if value is None or value == "":
        return NOTHING
    if not isinstance(value, float):
        return str(value)
    if isinstance(low, float | int) and isinstance(high, float | int):
        return with_interval(value, low, high)
    error = row.get(f"{name}_sem")
    return with_error(value, float(error) if isinstance(error, float | int) else math.nan)


# --- pictures ---------------------------------------------------------------------------------------------------------


def picture(file: Path, alt: str, caption: str = "", plot: bool = False) -> Figure:
    """A PNG as part of the page; sheets of photographs become WebP, and those of few columns do not fill its width.

    Where what is shown has shades that do not explain themselves, the caption does.
    """
    if plot:
        return Figure(embedded(file, "png"), alt, caption, plot)
    notes = [note for title, note in SHADES.items() if title in alt]
    with Image.open(file) as sheet:
        return Figure(embedded(file, "webp"), alt, " ".join(filter(None, [caption, *notes])), width=sheet.width // 2)
