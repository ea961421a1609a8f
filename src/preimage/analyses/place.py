"""Does a reconstruction know where things are? The photograph is moved; by how much does its reconstruction move?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from preimage.analyses.conditions import CONTROL, KEPT, anothers, reconstructed
from preimage.errors import ImageError, SettingsError
from preimage.findings import Analysis, Finding, Plot, Record, mean_in_words, points, summarise
from preimage.images import grey
from preimage.interfaces import Inverter

ESTIMATOR = "photographs themselves"  # what the estimate of the shift can do at all
GUESS = "guessing 0"
STEPS = 20  # the shift is read to 1/20 pixel
Grey = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place(Analysis):
    """Shifts to the right and downwards, read off by correlating the reconstructions before and after.

    What comes in at the border is mirrored; only the inner part is compared. `shifts` are in pixels; those beyond an
    eighth of the image are left out. They are estimated without phase normalisation: with it, the faint grid that
    decoders leave, which stands still, outweighs the picture.
    """

    name: ClassVar[str] = "place"
    question: ClassVar[str] = "Can one tell from the reconstruction by how many pixels the photograph was moved?"
    columns: ClassVar[Mapping[str, str]] = {
        "shift": "shift, pixels",
        "pixel_error": "error of the shift, pixels ↓",
    }
    shifts: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        if not self.shifts or min(self.shifts) < 1:
            raise SettingsError(f"shifts are whole pixels from 1 upwards, got {self.shifts}")

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        size = min(images.shape[2:])
        shifts = [shift for shift in self.shifts if 8 * shift <= size]
        if not shifts:
            raise ImageError(
                f"to be moved by {min(self.shifts)} pixels, images need {8 * min(self.shifts)}; give smaller shifts"
            )
        reach = max(shifts)
        photographs, own = grey_arrays(images.cpu()), grey_arrays(reconstructed(inverter, images))
        records: list[Record] = []
        for shift in shifts:
            for direction in ("down", "right"):
                moved = move(images.cpu(), shift, direction)
                found = reconstructed(inverter, moved.to(images.device))
                pairs = {
                    KEPT: (own, grey_arrays(found)),
                    ESTIMATOR: (photographs, grey_arrays(moved)),
                    CONTROL: (own, grey_arrays(anothers(found))),
                }
                wanted = np.array([shift, 0.0] if direction == "down" else [0.0, shift])
                key: Record = {"shift": shift, "direction": direction}
                for condition, (before, after) in pairs.items():
                    for one, a, b in zip(ids, before, after, strict=True):
                        error = float(np.hypot(*(estimate_shift(a, b, reach) - wanted)))
                        records.append({"id": one, "condition": condition, **key, "pixel_error": error})
                records += [{"id": one, "condition": GUESS, **key, "pixel_error": float(shift)} for one in ids]
        # Two directions of one photograph are no two photographs: the standard error is over photographs.
        table = summarise(per_photograph(records), ["condition", "shift"], ["pixel_error"])
        table.sort(key=lambda row: [KEPT, GUESS, ESTIMATOR, CONTROL].index(str(row["condition"])))
        return Finding(self.name, self.question, answer(table), table, records, [self.plot(table)])

    def plot(self, table: Sequence[Record]) -> Plot:
        shown = [KEPT, GUESS, ESTIMATOR]  # the control is tens of pixels off: it would flatten the others
        rows = {condition: [row for row in table if row["condition"] == condition] for condition in shown}
        series = {condition: points(own, "pixel_error", "shift") for condition, own in rows.items()}
        return Plot("true shift, pixels", "error of the estimated shift, pixels", series)


def per_photograph(records: Sequence[Record]) -> list[Record]:
    """The mean over the directions."""
    means = summarise(records, ["id", "condition", "shift"], ["pixel_error"])
    return [{key: row[key] for key in ("id", "condition", "shift", "pixel_error")} for row in means]


def move(images: Tensor, shift: int, direction: str) -> Tensor:
    """Images (N, 3, H, W) whose content lies `shift` pixels further down or right; the border is mirrored."""
    height, width = images.shape[2:]
    if direction == "down":
        return F.pad(images, (0, 0, shift, 0), mode="reflect")[:, :, :height]
    return F.pad(images, (shift, 0, 0, 0), mode="reflect")[:, :, :, :width]


def grey_arrays(images: Tensor) -> list[Grey]:
    return [one.numpy() for one in grey(images.double(), scale=1, rounded=False)]


def estimate_shift(before: Grey, after: Grey, reach: int) -> Grey:
    """(down, right) in pixels from one grey picture (H, W) to another; 0 where there is nothing to go by.

    Whole pixels first; then the second window is moved by them and the rest is estimated: two windows that stand still
    would pull the estimate towards 0.
    """
    margin = 2 * reach
    first = correlate(window_at(before, margin), window_at(after, margin), 1)
    moved = np.clip(np.round(first), -margin, margin).astype(int)
    rest = correlate(window_at(before, margin), window_at(after, margin, moved[0], moved[1]), STEPS)
    result: Grey = moved + rest
    return result


def window_at(picture: Grey, margin: int, down: int = 0, right: int = 0) -> Grey:
    """The picture without its margin, or the part of the same size that lies some pixels further on."""
    height, width = (side - 2 * margin for side in picture.shape)
    return picture[margin + down : margin + down + height, margin + right : margin + right + width]


def correlate(before: Grey, after: Grey, steps: int) -> Grey:
    """The shift at which two pictures under a Hann window correlate most, to 1/`steps` pixel."""
    from skimage.filters import window
    from skimage.registration import phase_cross_correlation

    hann: Any = window("hann", before.shape)  # type: ignore[no-untyped-call]
    first, second = ((one - one.mean()) * hann for one in (before, after))
    if min(np.abs(first).max(), np.abs(second).max()) < 1e-4:
        return np.zeros(2)
    found: Any = phase_cross_correlation(first, second, normalization=None, upsample_factor=steps)  # type: ignore[no-untyped-call]
    return np.asarray(-found[0], dtype=np.float64)


def answer(table: Sequence[Record]) -> str:
    parts = [f"{row['shift']} px: {mean_in_words(row, 'pixel_error')}" for row in table if row["condition"] == KEPT]
    control = [float(row["pixel_error"]) for row in table if row["condition"] == CONTROL]
    known = [float(row["pixel_error"]) for row in table if row["condition"] == ESTIMATOR]
    count = next(row["n"] for row in table if row["condition"] == KEPT)
    worse = [
        f"{row['shift']}"
        for row in table
        if row["condition"] == KEPT
        and not float(row["pixel_error"]) + 2 * float(row["pixel_error_sem"]) < float(row["shift"])
    ]
    verdict = f"no better at {', '.join(worse)} px" if worse else "better at every shift"
    return (
        f"Error of the estimated shift in pixels, by true shift: {'; '.join(parts)} (guessing 0 errs by the shift "
        f"itself, and the reconstruction is {verdict}; the photographs themselves {max(known, default=math.nan):.2f} "
        f"at most; another photograph's features {min(control, default=math.nan):.1f} and more; n = {count})."
    )
