"""The same photographs through everything that ships: what a page or a sheet of the whole zoo is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preimage import zoo
from preimage.config import settings_for
from preimage.errors import ImageError, PreimageError
from preimage.evaluation import Inverted, inverted, sheet_columns
from preimage.figures import sheet
from preimage.images import Photos, Sources, source_list, warn_left_out
from preimage.interfaces import Inverter, ignore
from preimage.inverters import main_of


@dataclass(frozen=True)
class Exhibit:
    """Some photographs at the size of one inverter, and what it makes of their features."""

    name: str
    kept: Mapping[str, Inverter]  # the inverter, and those kept with it
    done: Inverted

    @property
    def inverter(self) -> Inverter:
        return main_of(self.kept)

    def draw(self, file: Path) -> None:
        """A sheet: photograph, what the representation sees where that can be drawn, reconstruction, difference."""
        sheet(sheet_columns(self.inverter, self.done), file, captions=self.done.ids)


def exhibits(
    sources: Sources,
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    limit: int | None = None,
    tell: Callable[[str], None] = ignore,
) -> Iterator[Exhibit]:
    """The first `limit` photographs through every shipped inverter; one that cannot be used is told and left out.

    `overrides` are settings for all representations, or for one name or network: `alexnet:weights=FILE`.
    """
    sources = source_list(sources)
    settings = {name: settings_for(name, overrides) for name in zoo.shipped()}  # a mistyped owner is told at once
    told: set[str] = set()
    for name, own in settings.items():
        try:
            kept = zoo.load_shipped(name, **own)
            inverter = main_of(kept)
            photos = Photos.open(sources, inverter.representation.image_size).load(limit)
            warn_left_out(photos.left_out)
            done = inverted(inverter, *next(photos.batches(len(photos))), device)
        except ImageError:  # no inverter could use these photographs
            raise
        except PreimageError as error:
            tell(f"{name} is left out{' too' if str(error) in told else f': {error}'}")
            told.add(str(error))
            continue
        yield Exhibit(name, kept, done)


def draw_together(shown: list[Exhibit], file: Path) -> None:
    """One sheet: photographs as rows, representations as columns."""
    columns = {"photograph": shown[0].done.photographs}
    columns |= {exhibit.name.replace(".", "\n", 1): exhibit.done.reconstructions for exhibit in shown}
    sheet(columns, file, captions=shown[0].done.ids, wide=256)
