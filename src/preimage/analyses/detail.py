"""How fine is what is kept? The share of the variance of every octave of spatial frequencies that comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import CONTROL, KEPT, SHOWN, anothers, percent, reconstructed
from preimage.findings import Analysis, Finding, Plot, Point, Record, Sheet
from preimage.images import grey
from preimage.interfaces import Inverter
from preimage.metrics import SAME, Z95

COARSEST = 2.0  # cycles per image: all below is one band, brightness and its slopes
LOWEST = -1.5  # on the plot: another photograph has -1 on average, and what is lower is noise, however low
SHEET_BANDS = (8.0, 32.0)  # cycles per image: what parts coarse, middle and fine on the sheet


@dataclass(frozen=True)
class Detail(Analysis):
    """Per octave: 1 - (mean squared error) / (variance over the photographs, unbiased: divided by n - 1).

    1 is a perfect band, less than 0 is worse than the mean image. The mean of all photographs there are scores 0 on
    average, however few are measured; so does nothing at all, in a band whose mean is 0. A share below its
    `noise_floor` is not told from nothing: features that keep nothing exceed one of all bands in 5 % of cases.

    Bands are those of the discrete cosine transform, which sees an image mirrored at its border: no window is needed,
    and the bands add up to all pixels. Half the variance is `level` = 0.5.
    """

    name: ClassVar[str] = "detail"
    question: ClassVar[str] = "Up to which fineness is the photograph kept, in luminance and in colour?"
    columns: ClassVar[Mapping[str, str]] = {
        "from": "from, cycles per image",
        "to": "to, cycles per image",
        "kept": "share of variance kept ↑",
    }
    level: float = 0.5

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        own, images = reconstructed(inverter, images), images.cpu()
        bands = octaves(min(images.shape[2:]))
        n = len(images)
        around = spectrum(opponent(images - images.mean(dim=0)), bands)
        if around["chroma"].sum(dim=1).mean() < SAME**2 * images[0, 0].numel():
            del around["chroma"]  # a share of rounding errors would be left
        # Whose mean over photographs is the unbiased variance: the mean image here is drawn towards each of them.
        variance = {channel: n / (n - 1) * energy for channel, energy in around.items()}
        errors = {
            name: spectrum(opponent(images - one), bands) for name, one in ((KEPT, own), (CONTROL, anothers(own)))
        }
        records: list[Record] = [
            {"id": one, "condition": condition, "channel": channel, "from": low, "to": high,
             "error": float(error[channel][i, band]), "variance": float(variance[channel][i, band])}
            for condition, error in errors.items()
            for channel in variance
            for band, (low, high) in enumerate(bands)
            for i, one in enumerate(ids)
        ]  # fmt: skip
        table: list[Record] = []
        floor = surely(n, len(bands) * len(variance))
        for condition, error in errors.items():
            for channel, total in variance.items():
                for band, (low, high) in enumerate(bands):
                    share, sem = share_kept(error[channel][:, band], total[:, band])
                    key: Record = {"condition": condition, "channel": channel, "from": low, "to": high}
                    table.append(key | {"n": n, "kept": share, "kept_sem": sem, "noise_floor": floor * sem})
        return Finding(
            self.name,
            self.question,
            self.answer(table, n),
            table,
            records,
            [self.plot(table)],
            [self.sheet(ids, images, own)],
        )

    def answer(self, table: Sequence[Record], n: int) -> str:
        if n < 3:
            return "Two photographs are too few to tell which fineness is kept: give more."
        parts = []
        for channel in dict.fromkeys(str(row["channel"]) for row in table):
            rows = [row for row in table if row["condition"] == KEPT and row["channel"] == channel]
            control = next(row for row in table if row["condition"] == CONTROL and row["channel"] == channel)
            parts.append(
                f"{reach(rows, self.level, channel)}, and {told(rows)} (of the coarsest band {kept_in_words(rows[0])}; "
                f"with another photograph's features {kept_in_words(control)})."
            )
        if len(parts) == 1:
            parts.append("The photographs have no colour by which they differ.")
        floors = [float(row["noise_floor"]) for row in table if row["condition"] == KEPT]
        return (
            f"{' '.join(parts)} 0 % is the mean image, below it worse than that. A share is told from nothing where it "
            f"is above the band's noise floor, of {percent(min(floors))} to {percent(max(floors))} (n = {n})."
        )

    def plot(self, table: Sequence[Record]) -> Plot:
        series: dict[str, list[Point]] = {}
        for row in table:
            points = series.setdefault(f"{row['channel']}{'' if row['condition'] == KEPT else f', {CONTROL}'}", [])
            share, margin = float(row["kept"]), Z95 * float(row["kept_sem"])
            low, drawn, high = (max(one, LOWEST) for one in (share - margin, share, share + margin))
            points.append((float(len(points)), drawn, (low, high)))
        bands = list(dict.fromkeys(f"{float(row['from']):.0f} to {float(row['to']):.0f}" for row in table))
        x_label = "spatial frequency, cycles per image"
        y_label = f"share of variance kept, 95 % intervals; what is below {LOWEST:g} is drawn there"
        nothing = "mean image; what reaches it is noise"
        return Plot(x_label, y_label, series, groups=bands, level=0.0, level_name=nothing)

    def sheet(self, ids: Sequence[str], images: Tensor, own: Tensor) -> Sheet:
        """Photograph and reconstruction, whole and in their middle and fine luminance alone (around mid-grey)."""
        columns = {"photograph": images[:SHOWN], "reconstruction": own[:SHOWN]}
        finest = min(images.shape[2:]) / 2
        edges = [0.0, *(edge for edge in SHEET_BANDS if edge < finest), math.inf]
        for low, high in list(pairwise(edges))[1:]:
            words = f"{low:g} to {high:g} cycles" if high < math.inf else f"above {low:g} cycles"
            for title, pictures in (("photograph", images), ("reconstruction", own)):
                columns[f"{title}, {words}"] = between(pictures[:SHOWN], low, high)
        return Sheet(columns, list(ids[:SHOWN]))


def octaves(size: int) -> list[tuple[float, float]]:
    """(from, to) in cycles per image: all below 2, then octaves up to size / 2, and what is finer along diagonals."""
    bands = [(0.0, COARSEST)]
    while bands[-1][1] * 2 < size / 2:
        bands.append((bands[-1][1], bands[-1][1] * 2))
    return [*bands, (bands[-1][1], size / math.sqrt(2))]


def opponent(images: Tensor) -> dict[str, Tensor]:
    """RGB (N, 3, H, W), or differences of such, -> luminance (N, 1, H, W) and chroma (N, 2, H, W) of ITU-R BT.601."""
    luminance = grey(images.double(), scale=1, rounded=False)[:, None]
    red, blue = (images[:, 0:1] - luminance) / 1.402, (images[:, 2:3] - luminance) / 1.772
    return {"luminance": luminance, "chroma": torch.cat([blue, red], dim=1)}


def spectrum(channels: dict[str, Tensor], bands: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
    """Squared values by band (N, bands); over all bands they add up to those of the pixels."""
    energies = {}
    for name, images in channels.items():
        squares = cosine_transform(images).square().sum(dim=1)  # (N, H, W)
        radius = frequencies(images)
        own = [((radius >= low) & (radius < high)).to(squares) for low, high in bands]
        energies[name] = torch.stack([(squares * inside).sum(dim=(1, 2)) for inside in own], dim=1)
    return energies


def frequencies(images: Tensor) -> Tensor:
    """The spatial frequency of every coefficient (H, W) in cycles per image: a cosine of number k has k/2 cycles."""
    vertical, horizontal = (torch.arange(side, dtype=torch.float64) / 2 for side in images.shape[2:])
    return torch.hypot(vertical[:, None], horizontal[None, :])


def cosine_transform(images: Tensor, inverse: bool = False) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II) of images (N, C, H, W), or its inverse."""
    from scipy.fft import dctn, idctn

    return torch.from_numpy((idctn if inverse else dctn)(images.numpy(), axes=(2, 3), norm="ortho"))


def between(images: Tensor, low: float, high: float) -> Tensor:
    """The luminance between two frequencies around mid-grey (N, 3, H, W), at twice its contrast."""
    coefficients = cosine_transform(opponent(images)["luminance"])
    radius = frequencies(images)
    kept = cosine_transform(coefficients * ((radius >= low) & (radius < high)), inverse=True)
    return (0.5 + 2 * kept).clamp(0, 1).expand(-1, 3, -1, -1).float()


def share_kept(error: Tensor, variance: Tensor) -> tuple[float, float]:
    """1 - mean error / mean variance, both (N,), and its standard error by leaving out each photograph (jackknife)."""
    total, n = float(variance.sum()), len(error)
    if not total > 0:
        return math.nan, math.nan
    # Without a photograph the mean image is another one too: the sum of squares around it falls by more than its own.
    squares = total * (n - 1) / n - variance
    without = 1 - (error.sum() - error) / (n - 1) / (squares / (n - 2)) if n > 2 else torch.full((n,), math.nan)
    sem = ((n - 1) / n * (without - without.mean()).square().sum()).sqrt()
    return 1 - float(error.sum()) / total, float(sem)


def surely(n: int, tests: int) -> float:
    """How many standard errors above 0 the mean of n is that chance exceeds in 5 % of so many tests together."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - 0.05 / tests))


def middle(row: Record) -> float:
    """The geometric middle of a band, in cycles per image; 1 for the coarsest, which begins at 0."""
    return math.sqrt(float(row["from"]) * float(row["to"])) or float(row["to"]) / 2


def kept_in_words(row: Record) -> str:
    """`58 % ± 2 %`."""
    return f"{percent(row['kept'])} ± {percent(row['kept_sem'])}"


def told(rows: Sequence[Record]) -> str:
    """Up to which band, from the coarsest on, every share is above its noise floor."""
    above = list(takewhile(lambda row: float(row["kept"]) > float(row["noise_floor"]), rows))
    if not above:
        return "nothing that is told from noise"
    return (
        "something in the finest band too" if above[-1] is rows[-1] else f"something up to {above[-1]['to']:g} cycles"
    )


def reach(rows: Sequence[Record], level: float, channel: str) -> str:
    """Up to how many cycles at least that share is kept in every band, interpolated between the bands' middles."""
    share = "half" if level == 0.5 else percent(level)
    if not float(rows[0]["kept"]) >= level:
        return f"No band keeps {share} of the {channel} variance"
    most = f"{share[0].upper()}{share[1:]} of the {channel} variance or more is kept"
    for before, after in pairwise(rows):
        high, low = float(before["kept"]), float(after["kept"])
        if not low >= level:
            part = (high - level) / (high - low)
            cycles = max(COARSEST, middle(before) * (middle(after) / middle(before)) ** part)
            return f"{most} up to {cycles:.0f} cycles per image"
    return f"{most} up to the finest band ({float(rows[-1]['from']):g} cycles per image and more)"
