"""Pictures for people: sheets of images and curves, as PNG. Knows tensors and titles, nothing else of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

# All lengths are in dots, so that every pixel of a picture becomes the same whole number of dots.
SIDE = 512
GAP = 12
TITLE = 70
CAPTION = 60
DOTS_PER_INCH = 200


def sheet(columns: Mapping[str, Tensor], path: Path, captions: Sequence[str] = ()) -> None:
    """Columns of images (N, 3, H, W) in [0, 1], a title over each, one row per image with its caption on the left.

    All pictures are shown as wide as each other.
    """
    first = next(iter(columns.values()))
    rows, side = len(first), round(SIDE * first.shape[2] / first.shape[3])
    left = CAPTION if captions else GAP
    width, height = left + len(columns) * (SIDE + GAP), TITLE + rows * (side + GAP)
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    for column, (title, images) in enumerate(columns.items()):
        x = left + column * (SIDE + GAP)
        figure.text((x + SIDE / 2) / width, 1 - TITLE / 2 / height, title, ha="center", va="center", size=10)
        for row, image in enumerate(images):
            y = height - TITLE - row * (side + GAP) - side
            axes = figure.add_axes((x / width, y / height, SIDE / width, side / height))
            axes.imshow(image.permute(1, 2, 0).float().clamp(0, 1).numpy())  # smoothed only where it must shrink
            axes.axis("off")
    for row, caption in enumerate(captions):
        middle = height - TITLE - row * (side + GAP) - side / 2
        figure.text(CAPTION / 2 / width, middle / height, caption, rotation=90, ha="center", va="center", size=8)
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
