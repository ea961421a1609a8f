"""Results -> one self-contained HTML page, for phones and for paper, that loads nothing. Knows no method by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from preimage.evaluation import Evaluation
from preimage.findings import Record, read_finding
from preimage.pages import embedded, render


@dataclass(frozen=True)
class Figure:
    """A picture inside the page, and what it shows in words."""

    source: str  # data: URL
    alt: str
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


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def write_page(title: str, made: str, sections: Sequence[Section], file: Path) -> None:
    """Write the page; `made` says in a line what it was made of."""
    page = render("report.html", title=title, made=made, sections=sections)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


def finding_block(folder: Path) -> Block:
    """What a saved finding says and shows."""
    content = read_finding(folder)
    figures = [
        picture(folder / f"plot-{place}.png", plot_in_words(plot), plot=True)
        for place, plot in enumerate(content["plots"])
    ]
    figures += [
        picture(folder / one["file"], f"Pictures, from left to right: {', '.join(one['columns'])}".replace("\n", " "))
        for one in content["sheets"]
    ]
    columns, rows = cells(content["table"])
    words = [content["answer"]] if content["answer"] else []
    return Block(content["question"], words, columns, rows, figures, reason=content["reason"])


def plot_in_words(plot: Mapping[str, Any]) -> str:
    """What a plot shows, for those who do not see it: its axes, and its lines or bars by name."""
    y_label, x_label, series = plot["y_label"].replace("\n", " "), plot["x_label"], list(plot["series"])
    words = f"{y_label} against {x_label}" if x_label else y_label
    if plot["groups"]:
        words += f", for {', '.join(plot['groups'])}"
    return f"{words}: {'; '.join(series)}" if len(series) > 1 else words


def titled(block: Block, title: str) -> Block:
    """The same block under another title."""
    return replace(block, title=title)


def evaluation_block(result: Evaluation) -> Block:
    """The table of an evaluation with its company."""
    rows = [
        [
            row.inverter,
            f"{row.nre:.3f} ± {row.nre_sem:.3f}",
            f"{row.psnr:.2f} ± {row.psnr_sem:.2f}",
            f"{row.ssim:.3f} ± {row.ssim_sem:.3f}",
            str(row.n),
            row.fitted_on,
        ]
        for row in result.rows
    ]
    note = (
        f"Mean ± standard error. NRE is the distance to the photograph over N = {result.pairwise_distance:.1f}, the "
        f"mean distance between two of the {result.n} photographs ({result.images}, {result.image_size} pixels); lower "
        "is better. The mean image ignores the features; other-image is the control: the same inverter given the "
        "features of another photograph."
    )
    columns = ["inverter", "NRE ↓", "PSNR, dB ↑", "SSIM ↑", "n", "fitted on"]
    return Block("How good is it?", [], columns, rows, note=note)


def facts_block(title: str, facts: Iterable[tuple[str, str]]) -> Block:
    """Facts as a table of two columns."""
    return Block(title, rows=[[name, value] for name, value in facts])


def cells(table: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """(column titles, rows of text) of records; a value and its standard error share a cell."""
    names = [name for name in (table[0] if table else {}) if not name.endswith("_sem")]

    def text(row: Record, name: str) -> str:
        value, error = row[name], row.get(f"{name}_sem")
        if not isinstance(value, float):
            return "" if value is None else str(value)
        return f"{value:.3g}" if error is None else f"{value:.3g} ± {error:.2g}"

    return [name.replace("_", " ") for name in names], [[text(row, name) for name in names] for row in table]


def picture(file: Path, alt: str, plot: bool = False) -> Figure:
    """A PNG as part of the page; sheets of photographs become JPEG, and those of few columns do not fill its width."""
    if plot:
        return Figure(embedded(file, "png"), alt, plot)
    with Image.open(file) as sheet:
        return Figure(embedded(file, "jpeg"), alt, width=sheet.width // 2)
