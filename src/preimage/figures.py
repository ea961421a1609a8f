"""Pictures for people: sheets of images and curves, as PNG. Knows tensors and titles, nothing else of the project."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All lengths are in dots, so that every pixel of a picture becomes the same whole number of dots.
SIDE = 512
GAP = 12
LETTERS = 28  # height of the letters of a title
DOTS_PER_INCH = 200
LEGIBLE = 1 / 96  # of a sheet's width: letters so high are 11 pixels where a page shows the sheet 1056 pixels wide
LETTER_WIDTH = 0.56  # of a letter's height, on average
LINE = 1.3  # of a letter's height, from line to line
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#000000",
)  # Okabe & Ito: colour-blind-safe
MARKERS = "os^Dv*P"
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
WIDE = 60  # characters of tick labels that fit side by side
BREAK = "\u200b"  # where a name such as network.layer may go on in the next line
TALL = 40  # characters of a label that fit along y, whatever else a plot must hold


def sheet(columns: Mapping[str, Tensor], path: Path, captions: Sequence[str] = (), wide: int = SIDE) -> None:
    """Columns of images (N, 3, H, W) in [0, 1], a title over each, one row per image with its caption on the left.

    All pictures are shown as wide as each other, `wide` dots.
    """
    first = next(iter(columns.values()))
    rows, side = len(first), round(wide * first.shape[2] / first.shape[3])
    letters = letter_height(columns.keys(), wide)
    titles = [wrapped(title, wide, letters) for title in columns]
    captions = ["\n".join(shortened(line, side, letters) for line in caption.split("\n")) for caption in captions]
    top, left = (GAP + round(LINE * letters * lines_of(texts)) if texts else 0 for texts in (titles, captions))
    top, left = top + GAP, left + GAP
    width, height = left + len(columns) * (wide + GAP), top + rows * (side + GAP)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    look: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "size": letters * 72 / DOTS_PER_INCH,
        "linespacing": LINE / 1.2,
    }
    for column, (title, images) in enumerate(zip(titles, columns.values(), strict=True)):
        x = left + column * (wide + GAP)
        figure.text((x + wide / 2) / width, 1 - top / 2 / height, title, **look)
        for row, image in enumerate(images):
            y = height - top - row * (side + GAP) - side
            axes = figure.add_axes((x / width, y / height, wide / width, side / height))
            axes.imshow(image.permute(1, 2, 0).float().clamp(0, 1).numpy())  # smoothed only where it must shrink
            axes.axis("off")
    for row, caption in enumerate(captions):
        middle = height - top - row * (side + GAP) - side / 2
        figure.text(left / 2 / width, middle / height, caption, rotation=90, **look)
    figure.savefig(path)


def letter_height(titles: Collection[str], wide: int) -> int:
    """Dots: legible with all columns on a page, unless the longest word of a title would leave its column."""
    words = [word for title in titles for word in title.split()]
    wanted = max(LETTERS * wide / SIDE, LEGIBLE * len(titles) * (wide + GAP))
    return int(min(wanted, wide / LETTER_WIDTH / max(map(len, words))))


def wrapped(title: str, room: int, letters: int) -> str:
    """A title on as many lines as it needs."""
    characters = max(1, int(room / LETTER_WIDTH / letters))
    return "\n".join(part for line in title.split("\n") for part in wrap(line, characters, break_long_words=False))


def shortened(line: str, room: int, letters: int) -> str:
    """A caption's end, which tells photographs of one folder apart."""
    characters = max(2, int(room / LETTER_WIDTH / letters))
    return line if len(line) <= characters else f"…{line[1 - characters :]}"


def lines_of(texts: Iterable[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)


def difference(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Signed differences (N, 3, H, W) around mid-grey: brighter where the reconstruction is too bright."""
    return (0.5 + 0.5 * (reconstructions - photographs)).clamp(0, 1)


def heat(values: Tensor, top: float) -> Tensor:
    """Maps (N, 1, H, W) -> images (N, 3, H, W): 0 is dark violet, `top` and more is yellow (viridis)."""
    from matplotlib import colormaps

    colours = colormaps["viridis"]((values[:, 0] / top).clamp(0, 1).numpy())
    return torch.from_numpy(colours[..., :3]).permute(0, 3, 1, 2).float()


Points = Sequence[tuple[float, float, float]]  # x, y, standard error of y (NaN or, read from JSON, None: there is none)


def curve(
    series: Mapping[str, Points],
    path: Path,
    x_label: str,
    y_label: str,
    groups: Sequence[str] = (),
    log: bool = False,
) -> None:
    """Lines y over x with their standard errors, one for each name; told apart by marker too, not by colour alone.

    `groups` names x = 0, 1, 2 ...; `log`: equal steps to the right are equal factors.
    """
    figure, axes = plain_axes(x_label, y_label)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    for place, (name, points) in enumerate(series.items()):
        x, y, error = np.array(points, dtype=float).T
        marker = MARKERS[place % len(MARKERS)] if len(x) < 30 else None
        axes.errorbar(x, y, error, label=name, color=COLOURS[place % len(COLOURS)], marker=marker, capsize=2)
    name_groups(axes, groups)
    finish(figure, axes, len(series), path)


def bars(
    series: Mapping[str, Points],
    groups: Sequence[str],
    path: Path,
    x_label: str,
    y_label: str,
    level: float | None = None,
) -> None:
    """Bars with their standard errors, side by side in groups; a point's x is the place of its group.

    `level`: a dashed line across, to compare them with.
    """
    figure, axes = plain_axes(x_label, y_label)
    width = 0.8 / max(1, len(series))
    for place, (name, points) in enumerate(series.items()):
        x, y, error = np.array(points, dtype=float).T
        centres = x - 0.4 + (place + 0.5) * width
        colour, hatch = COLOURS[place % len(COLOURS)], HATCHES[place % len(HATCHES)]
        axes.bar(centres, y, width * 0.9, yerr=error, label=name, color=colour, hatch=hatch, edgecolor="white",
                 error_kw={"capsize": 2, "linewidth": 1})  # fmt: skip
    if level is not None:
        axes.axhline(level, color=COLOURS[-1], linestyle="--", linewidth=1)
    name_groups(axes, groups)
    finish(figure, axes, len(series), path)


def name_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Names instead of numbers along x: on several lines where they are long, slanted where that does not help."""
    if not groups:
        return
    room = WIDE // len(groups)
    lines = [wrap(group.replace(".", f".{BREAK} "), room, break_long_words=False) for group in groups]
    if max(len(line.replace(BREAK, "")) for name in lines for line in name) <= room:
        names = ["\n".join(name).replace(f"{BREAK} ", "").replace(BREAK, "") for name in lines]
        axes.set_xticks(range(len(groups)), names)
    else:
        axes.set_xticks(range(len(groups)), groups, rotation=30, ha="right")


def plain_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel("\n".join(map(in_equal_lines, y_label.split("\n"))))
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def in_equal_lines(label: str) -> str:
    """On as few lines as fit along y, about as long as each other."""
    lines = -(-len(label) // TALL)
    return "\n".join(wrap(label, min(TALL, len(label) // lines + 6)))


def finish(figure: Figure, axes: Axes, series: int, path: Path) -> None:
    if series > 1:
        handles, labels = axes.get_legend_handles_labels()
        # Outside, where it cannot hide what it explains.
        figure.legend(handles, labels, loc="outside upper center", ncols=min(series, 2), frameon=False)
    figure.savefig(path)
