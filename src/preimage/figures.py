"""Pictures for people: sheets of images and curves, as PNG. Knows tensors and titles, nothing else of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All lengths are in dots, so that every pixel of a picture becomes the same whole number of dots.
SIDE = 512
GAP = 12
TITLE = 70
CAPTION = 60
DOTS_PER_INCH = 200
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
WIDE = 48  # characters of tick labels that fit side by side


def sheet(columns: Mapping[str, Tensor], path: Path, captions: Sequence[str] = (), wide: int = SIDE) -> None:
    """Columns of images (N, 3, H, W) in [0, 1], a title over each, one row per image with its caption on the left.

    All pictures are shown as wide as each other, `wide` dots.
    """
    first = next(iter(columns.values()))
    rows, side = len(first), round(wide * first.shape[2] / first.shape[3])
    left = CAPTION if captions else GAP
    letters = 10 if wide >= SIDE else 6
    width, height = left + len(columns) * (wide + GAP), TITLE + rows * (side + GAP)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    for column, (title, images) in enumerate(columns.items()):
        x = left + column * (wide + GAP)
        figure.text((x + wide / 2) / width, 1 - TITLE / 2 / height, title, ha="center", va="center", size=letters)
        for row, image in enumerate(images):
            y = height - TITLE - row * (side + GAP) - side
            axes = figure.add_axes((x / width, y / height, wide / width, side / height))
            axes.imshow(image.permute(1, 2, 0).float().clamp(0, 1).numpy())  # smoothed only where it must shrink
            axes.axis("off")
    for row, caption in enumerate(captions):
        middle = height - TITLE - row * (side + GAP) - side / 2
        figure.text(CAPTION / 2 / width, middle / height, caption, rotation=90, ha="center", va="center", size=8)
    figure.savefig(path)


def difference(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Signed differences (N, 3, H, W) around mid-grey: brighter where the reconstruction is too bright."""
    return (0.5 + 0.5 * (reconstructions - photographs)).clamp(0, 1)


def heat(values: Tensor, top: float) -> Tensor:
    """Maps (N, 1, H, W) -> images (N, 3, H, W): 0 is dark violet, `top` and more is yellow (viridis)."""
    from matplotlib import colormaps

    colours = colormaps["viridis"]((values[:, 0] / top).clamp(0, 1).numpy())
    return torch.from_numpy(colours[..., :3]).permute(0, 3, 1, 2).float()


Points = Sequence[tuple[float, float, float]]  # x, y, standard error of y (NaN where there is none)


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
    for place, (name, points) in enumerate(series.items()):
        x, y, error = zip(*points, strict=True)
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
        x, y, error = zip(*points, strict=True)
        centres = [group - 0.4 + (place + 0.5) * width for group in x]
        colour, hatch = COLOURS[place % len(COLOURS)], HATCHES[place % len(HATCHES)]
        axes.bar(centres, y, width * 0.9, yerr=error, label=name, color=colour, hatch=hatch, edgecolor="white",
                 error_kw={"capsize": 2, "linewidth": 1})  # fmt: skip
    if level is not None:
        axes.axhline(level, color=COLOURS[-1], linestyle="--", linewidth=1)
    name_groups(axes, groups)
    finish(figure, axes, len(series), path)


def name_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Names instead of numbers along x."""
    if groups:
        wide = max(map(len, groups)) * len(groups) > WIDE
        axes.set_xticks(range(len(groups)), groups, rotation=30 if wide else 0, ha="right" if wide else "center")


def plain_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def finish(figure: Figure, axes: Axes, series: int, path: Path) -> None:
    if series > 1:
        handles, labels = axes.get_legend_handles_labels()
        # Outside, where it cannot hide what it explains.
        figure.legend(handles, labels, loc="outside upper center", ncols=min(series, 2), frameon=False)
    figure.savefig(path)
