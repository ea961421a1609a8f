"""Between the features of two photographs: do they overlay like a double exposure, or does one become the other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import encoded, inverted, records_of
from preimage.errors import ImageError, SettingsError
from preimage.findings import Analysis, Finding, Plot, Record, Sheet, mean_in_words, points, summarise
from preimage.interfaces import Inverter
from preimage.metrics import distance

SHOWN = 4  # pairs on a sheet


@dataclass(frozen=True)
class Interpolation(Analysis):
    """Neighbouring photographs in pairs; their features mixed in `steps` equal steps, ends included, then inverted.

    A representation that overlays gives the mixture of the two reconstructions; the distance from that mixture, over
    the distance between the two ends, is 0 for a linear inverter and grows with what is not mere overlaying.
    """

    name: ClassVar[str] = "interpolation"
    question: ClassVar[str] = "Between two photographs' features: an overlay of both, or something in between?"
    columns: ClassVar[Mapping[str, str]] = {
        "share": "share of the second photograph",
        "off_overlay": "distance from the overlay, NRE",
    }
    steps: int = 5

    def __post_init__(self) -> None:
        if self.steps < 3:
            raise SettingsError(f"steps, ends included, are at least 3, got {self.steps}")

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        if len(images) < 2:
            raise ImageError("there is only one photograph: a pair is needed")
        features = encoded(inverter.representation, images)
        pairs = len(images) // 2
        both = list(zip(ids[0 : 2 * pairs : 2], ids[1 : 2 * pairs : 2], strict=True))
        names = [" + ".join(pair) for pair in both]
        first, second = features[0 : 2 * pairs : 2], features[1 : 2 * pairs : 2]
        shares = [step / (self.steps - 1) for step in range(self.steps)]
        pictures = [inverted(inverter, torch.lerp(first, second, share)) for share in shares]
        apart = distance(pictures[0], pictures[-1]).clamp(min=1e-6)
        records: list[Record] = []
        for share, own in zip(shares, pictures, strict=True):
            off = distance(own, torch.lerp(pictures[0], pictures[-1], share)) / apart
            records += records_of(names, {"share": share}, {"off_overlay": off})
        table = summarise(records, ["share"], ["off_overlay"])
        middle = table[len(table) // 2]
        y_label = "distance from the overlay / distance of the ends"
        plot = Plot(
            "share of the second photograph",
            y_label,
            {"reconstruction": points(table, "off_overlay", "share")},
        )
        columns = {f"{share:.0%}": own[:SHOWN].cpu() for share, own in zip(shares, pictures, strict=True)}
        originals = images[: 2 * pairs].cpu()
        columns = {"first": originals[0::2][:SHOWN], **columns, "second": originals[1::2][:SHOWN]}
        where = "Half way" if self.steps % 2 else f"At {float(middle['share']):.0%} of the second photograph"
        answer = (
            f"{where}, the picture is {mean_in_words(middle, 'off_overlay')} of the distance between the two ends away "
            f"from their overlay (0: nothing but an overlay; {pairs} pair{'s' if pairs > 1 else ''})."
        )
        sheet = Sheet(columns, ["\n+ ".join(pair) for pair in both[:SHOWN]])
        return Finding(self.name, self.question, answer, table, records, [plot], [sheet])
