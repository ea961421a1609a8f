"""What the networks here classify into: the 1,000 classes of ILSVRC 2012 (Russakovsky et al. 2015).

They are sets of synonyms in WordNet 3.0 (Princeton University), in the order of its numbers; `classes.txt` holds the
first word of each.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SHOWN = 5


@cache
def class_names() -> list[str]:
    """Their names, in the order of the networks' outputs; two occur twice (crane, maillot)."""
    return files("preimage.networks").joinpath("classes.txt").read_text(encoding="utf-8").splitlines()


def draw_classes(probabilities: Tensor, size: int) -> list[Image.Image]:
    """The likeliest classes of each row of probabilities (N, 1000), in words over bars, on pictures of size x size."""
    shares, numbers = probabilities.topk(SHOWN)
    return [draw_bars(*row, size) for row in zip(numbers.tolist(), shares.tolist(), strict=True)]


def draw_bars(numbers: list[int], shares: list[float], size: int) -> Image.Image:
    """Shares of classes, a row each."""
    picture = Image.new("RGB", (size, size))
    pen = ImageDraw.Draw(picture)
    row, margin = size / SHOWN, size / 32
    font = ImageFont.load_default(size / 16)
    for place, (number, share) in enumerate(zip(numbers, shares, strict=True)):
        top = place * row + margin
        pen.text((margin, top), f"{class_names()[number]} {100 * share:.0f} %", "white", font)
        pen.rectangle((margin, top + row / 2, margin + (size - 2 * margin) * share, top + row / 2 + margin), "white")
    return picture
