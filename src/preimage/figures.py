"""Pictures for people: sheets of images, and curves. Knows images and titles, nothing else of the project."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from preimage.images import to_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JPEG_QUALITY = 90
PNG = {"compress_type": zlib.Z_RLE}  # sheets of photographs in 40 % of the usual time, no larger; plots would double

# All lengths are in dots, so that every pixel of a picture becomes the same whole number of dots.
SIDE = 512
GAP = 12
LETTERS = 34  # height of the letters of a title
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
LEVEL = "#000000"
# Colours begin anew after the seventh series; markers, lines and hatches tell the first fourteen apart without them.
MARKERS = "os^Dv*PX<p>dh8"
LINES = ("-", "--", "-.", ":")  # one for each round of colours
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "||", "--", "**", "OO", "/|", "\\-", "o-")
MARKED = 15  # points of a line with a marker, at most
TICKS = 7  # on a logarithmic axis, at most
NARROW = 1.1  # from one end of a logarithmic axis to the other, at least
LEGEND_ROW = 0.22  # inches
WIDE = 60  # characters of tick labels that fit side by side
BREAK = "\u200b"  # where a name such as network.layer may go on in the next line
TALL = 40  # characters of a label that fit along y, whatever else a plot must hold


def sheet(columns: Mapping[str, Tensor], path: Path, captions: Sequence[str] = (), wide: int = SIDE) -> None:
    """Columns of images (N, 3, H, W) in [0, 1], a title over each, one row per image with its caption on the left.

    The suffix of `path` says whether as .png or .jpg.

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    look: dict[str, Any] = {
        "parse_math": False,  # a name may hold dollars
        "ha": "center",
        "va": "center",
        "size": letters * 72 / DOTS_PER_INCH,
        "linespacing": LINE / 1.2,
    }
    pictures = {}  # by the place of their left upper corner
    for column, (title, images) in enumerate(zip(titles, columns.values(), strict=True)):
        x = left + column * (wide + GAP)
        figure.text((x + wide / 2) / width, 1 - top / 2 / height, title, **look | {"va": "center_baseline"})
        for row, image in enumerate(images):
            pictures[x, top + row * (side + GAP)] = scaled(image, (wide, side))
    for row, caption in enumerate(captions):
        middle = height - top - row * (side + GAP) - side / 2
        figure.text(left / 2 / width, middle / height, caption, rotation=90, **look)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    page = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    for place, picture in pictures.items():  # as they are: matplotlib would resample them, and take twice the time
        page.paste(picture, place)
    how: dict[str, Any] = {"quality": JPEG_QUALITY} if path.suffix in (".jpg", ".jpeg") else PNG
    page.save(path, dpi=(DOTS_PER_INCH, DOTS_PER_INCH), **how)


def scaled(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """An image (3, H, W) at (width, height) dots: pixels are squares where equal or large, else smoothed."""
    picture = to_picture(image)
    squares = size[0] % picture.width == 0 or size[0] >= 3 * picture.width
    return picture.resize(size, Image.Resampling.NEAREST if squares else Image.Resampling.HAMMING)


def letter_height(titles: Collection[str], wide: int) -> int:
    """Dots: legible with all columns on a page, unless the longest word of a title would leave its column."""
    words = [word for title in titles for word in title.split()]
    wanted = max(LETTERS * wide / SIDE, LEGIBLE * len(titles) * (wide + GAP))
    return int(min(wanted, wide / LETTER_WIDTH / max(map(len, words), default=1)))


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


Numbers = npt.NDArray[np.float64]
# x, y, and the standard error of y or its interval (low, high). NaN or, read from JSON, None: there is none.
Points = Sequence[tuple[float, float, float | tuple[float, float]]]


def curve(
    series: Mapping[str, Points],
    path: Path,
    x_label: str,
    y_label: str,
    groups: Sequence[str] = (),
    log: bool = False,
    level: float | None = None,
    level_name: str = "",
) -> None:
    """Lines y over x with their errors, one for each name; told apart by marker too, not by colour alone.

    `groups` names x = 0, 1, 2 ...; a line is broken where they go on with another network: between `caffenet.fc8` and
    `efficientnet_lite0.stage2`, say. `log`: equal steps to the right are equal factors; `level`: a dashed line across.
    """
    figure, axes = plain_axes(x_label, y_label)
    if log:
        axes.set_xscale("log")
    for place, (name, points) in enumerate(series.items()):
        x, y, error = with_errors(points)
        look: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markevery": -(-len(x) // MARKED) or 1,
            "linestyle": LINES[place // len(COLOURS) % len(LINES)],
        }
        for part in unbroken([network_of(groups[int(place)]) for place in x] if groups else [""] * len(x)):
            once = plain(name) if part.start == 0 else None  # in the legend
            axes.errorbar(x[part], y[part], error[:, part], label=once, capsize=2, **look)
    draw_level(axes, level, level_name)
    name_groups(axes, groups)
    if log:
        name_factors(axes)
    finish(figure, axes, path)


def bars(
    series: Mapping[str, Points],
    groups: Sequence[str],
    path: Path,
    x_label: str,
    y_label: str,
    level: float | None = None,
    level_name: str = "",
) -> None:
    """Bars with their errors, side by side in groups; a point's x is the place of its group.

    `level`: a dashed line across, to compare them with.
    """
    figure, axes = plain_axes(x_label, y_label)
    width = 0.8 / max(1, len(series))
    for place, (name, points) in enumerate(series.items()):
        x, y, error = with_errors(points)
        centres = x - 0.4 + (place + 0.5) * width
        colour, hatch = COLOURS[place % len(COLOURS)], HATCHES[place % len(HATCHES)]
        axes.bar(centres, y, width * 0.9, yerr=error, label=plain(name), color=colour, hatch=hatch, edgecolor="white",
                 error_kw={"capsize": 2, "linewidth": 1})  # fmt: skip
    draw_level(axes, level, level_name)
    name_groups(axes, groups)
    finish(figure, axes, path)


def with_errors(points: Points) -> tuple[Numbers, Numbers, Numbers]:
    """x (N,), y (N,), and how far the errors reach below and above y (2, N)."""
    x, y = np.array([point[:2] for point in points], dtype=float).reshape(-1, 2).T
    errors = [error if isinstance(error, Sequence) else (error, error) for _, _, error in points]
    below, above = np.array(errors, dtype=float).reshape(-1, 2).T
    ends = np.array([isinstance(error, Sequence) for _, _, error in points], dtype=bool)
    # Rounding must not turn an interval that begins at y into one that begins above it.
    reach = np.where(ends, np.maximum([y - below, above - y], 0), [below, above])
    return x, y, reach


def draw_level(axes: Axes, level: float | None, name: str) -> None:
    if level is not None:
        axes.axhline(level, color=LEVEL, linestyle="--", linewidth=1, label=name or None)


def network_of(group: str) -> str:
    """`caffenet` of `caffenet.fc8`; empty for what is not named like the layer of a network."""
    network, _, layer = group.partition(".")
    return network if layer and not layer[0].isdigit() else ""


def unbroken(networks: Sequence[str]) -> list[slice]:
    """The runs of equal names, one after the other."""
    starts = [place for place, own in enumerate(networks) if place == 0 or own != networks[place - 1]]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(networks)], strict=True)]


def name_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Names instead of numbers along x: on several lines where they are long, slanted where that does not help.

    Of layers alone the networks stand above, each over its own.
    """
    if not groups:
        return
    if all(map(network_of, groups)):
        name_networks(axes, [network_of(group) for group in groups])
        groups = [group.partition(".")[2] for group in groups]
    room = max(1, WIDE // len(groups))
    lines = [wrap(group.replace(".", f".{BREAK} "), room, break_long_words=False) for group in groups]
    if max(len(line.replace(BREAK, "")) for name in lines for line in name) <= room:
        names = ["\n".join(name).replace(f"{BREAK} ", "").replace(BREAK, "") for name in lines]
        axes.set_xticks(range(len(groups)), names)
    else:
        axes.set_xticks(range(len(groups)), groups, rotation=30, ha="right")


def name_networks(axes: Axes, networks: Sequence[str]) -> None:
    """Each above the middle of its groups, with a line between two of them."""
    parts = unbroken(networks)
    above = axes.secondary_xaxis("top")
    above.set_xticks([(part.start + part.stop - 1) / 2 for part in parts], [networks[part.start] for part in parts])
    above.tick_params(length=0)
    for part in parts[1:]:
        axes.axvline(part.start - 0.5, color="grey", linewidth=0.8)


def name_factors(axes: Axes) -> None:
    """Plain numbers along a logarithmic x, where they do not overlap."""
    from matplotlib.ticker import NullLocator

    low, high = axes.get_xlim()
    if high < NARROW * low:  # all at one place: matplotlib would show nothing at all
        axes.set_xlim(low / NARROW, high * NARROW)
    ticks = log_ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [np.format_float_positional(tick, precision=12, trim="-") for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers from `low` to `high` that read well on a logarithmic axis: 1, 2, 5, 10 ..., or equal steps if narrow."""
    from matplotlib.ticker import MaxNLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = -(-len(decades) // TICKS)
    choices = [[first * 10.0**decade for decade in decades for first in firsts] for firsts in ((1, 2, 5), (1, 3), (1,))]
    choices.append([10.0**decade for decade in decades if decade % every == 0])
    inside = [[tick for tick in ticks if low <= tick <= high] for ticks in choices]
    if len(inside[0]) < 3:
        equal = MaxNLocator(TICKS - 2, steps=[1, 2, 5, 10]).tick_values(low, high)
        return [float(tick) for tick in equal if low <= tick <= high]
    return next(ticks for ticks in inside if len(ticks) <= TICKS)


def plain_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel("\n".join(map(in_equal_lines, y_label.split("\n"))))
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def plain(name: str) -> str:
    """A name in which matplotlib sees no mathematics."""
    return name.replace("$", r"\$")


def in_equal_lines(label: str) -> str:
    """On as few lines as fit along y, about as long as each other."""
    lines = -(-len(label) // TALL)
    return "\n".join(wrap(label, min(TALL, len(label) // lines + 6)))


def finish(figure: Figure, axes: Axes, path: Path) -> None:
    from matplotlib.container import Container

    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        handles.sort(key=lambda handle: not isinstance(handle, Container))  # series first, then the level
        # Outside, where it cannot hide what it explains, nor take its room.
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * ((len(handles) - 1) // 2))
    figure.savefig(path)
