"""Pictures for people: sheets of images and curves, as PNG. Knows tensors and titles, nothing else of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

CELL = 2.56  # inches: at 100 dots an inch a picture of 256 pixels is shown pixel by pixel


def sheet(columns: Mapping[str, Tensor], path: Path, captions: Sequence[str] = (), note: str = "") -> None:
    """Columns of images (N, 3, H, W) in [0, 1], a title over each, one row per image with its caption on the left.

    All pictures are shown at the size of the first column's.
    """
    size = next(iter(columns.values())).shape[2:]
    count = len(next(iter(columns.values())))
    cell_height = CELL * size[0] / size[1]
    left, top, gap, bottom = (0.3 if captions else 0.05), 0.35, 0.06, (0.3 if note else 0.05)
    width = left + len(columns) * (CELL + gap)
    height = top + count * (cell_height + gap) + bottom
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    for column, (title, images) in enumerate(columns.items()):
        shown = F.interpolate(images.float(), size, mode="nearest") if images.shape[2:] != size else images
        x = left + column * (CELL + gap)
        for row in range(count):
            y = height - top - (row + 1) * cell_height - row * gap
            axes = figure.add_axes((x / width, y / height, CELL / width, cell_height / height))
            axes.imshow(shown[row].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axes.axis("off")
            if row == 0:
                figure.text((x + CELL / 2) / width, 1 - 0.22 / height, title, ha="center", size=11)
            if column == 0 and captions:
                figure.text(
                    0.15 / width,
                    (y + cell_height / 2) / height,
                    captions[row],
                    rotation=90,
                    ha="center",
                    va="center",
                    size=9,
                )
    if note:
        figure.text(left / width, 0.1 / height, note, size=8, color="0.35")
    figure.savefig(path)


def difference(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Signed differences (N, 3, H, W) around mid-grey: brighter where the reconstruction is too bright."""
    return (0.5 + 0.5 * (reconstructions - photographs)).clamp(0, 1)


def curve(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, x_label: str, y_label: str
) -> None:
    """Lines y over x, one for each name."""
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in series.items():
        axes.plot(x, y, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(frameon=False)
    figure.savefig(path)
