"""The same photographs through everything that ships: what a page or a sheet of the whole zoo is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from preimage import zoo
from preimage.api import Sources, load_inverter
from preimage.errors import PreimageError
from preimage.evaluation import sheet_columns
from preimage.figures import sheet
from preimage.images import Photos
from preimage.interfaces import Inverter, ignore
from preimage.networks import needs_weights


@dataclass(frozen=True)
class Exhibit:
    """Some photographs and what one inverter makes of their features, all (N, 3, S, S) at its own size."""

    name: str
    inverter: Inverter
    ids: list[str]
    photographs: Tensor
    features: Tensor
    reconstructions: Tensor

    def draw(self, file: Path) -> None:
        """A sheet: photograph, what the representation sees where that can be drawn, reconstruction, difference."""
        representation = self.inverter.representation
        columns = sheet_columns(representation, self.photographs, self.features, self.reconstructions)
        sheet(columns, file, captions=self.ids)


def exhibits(
    sources: Sources,
    *,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    limit: int | None = None,
    tell: Callable[[str], None] = ignore,
) -> Iterator[Exhibit]:
    """The first `limit` photographs through every shipped inverter; one that cannot be used is told and left out.

    `settings` go to the representations whose networks need weights.
    """
    for name in zoo.shipped():
        own = dict(settings or {}) if needs_weights(name) else {}
        try:
            inverter = load_inverter(name, **own)
            photos = Photos.open(sources, inverter.representation.image_size).first(limit)
            ids, photographs = next(photos.batches(len(photos)))
            features = inverter.representation.encode(photographs.to(device))
        except PreimageError as error:
            tell(f"{name} is left out: {error}")
            continue
        yield Exhibit(name, inverter, ids, photographs, features.cpu(), inverter.invert(features).cpu())


def draw_together(shown: list[Exhibit], file: Path) -> None:
    """One sheet: photographs as rows, representations as columns."""
    columns = {"photograph": shown[0].photographs}
    columns |= {exhibit.name.replace(".", "\n", 1): exhibit.reconstructions for exhibit in shown}
    sheet(columns, file, captions=shown[0].ids, wide=256)
