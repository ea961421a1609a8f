"""How good are reconstructions? One record per photograph and inverter, then mean, standard error and n: never a number
without its baselines and its control."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preimage.errors import ImageError, PreimageError, UnknownNameError
from preimage.figures import difference, heat, sheet
from preimage.images import Photos
from preimage.interfaces import Inverter, Representation, ignore
from preimage.inverters.linear import MeanImage, Ridge
from preimage.inverters.retrieval import Nearest
from preimage.metrics import (
    METRICS,
    distance,
    mean_and_sem,
    mean_pairwise_distance_of,
    paired_difference,
    psnr,
    ssim,
)
from preimage.pairs import EncodedPhotos
from preimage.plain import parts, to_csv
from preimage.words import aligned, plus_minus

FLOOR = "decoder-size"  # the photograph itself, scaled to the size the first inverter works at and back
SLOW_BATCH = 4  # photographs between two signs of life from a slow inverter
CONTROL = "other-image"  # the inverter given the features of another photograph: what it makes up by itself
FAR = 0.25  # of the pixel range: an expected error that is drawn in yellow


@dataclass(frozen=True)
class Record:
    """One photograph under one inverter."""

    id: str
    inverter: str
    nre: float
    psnr: float  # dB
    ssim: float


@dataclass(frozen=True)
class Row:
    """One inverter over all its photographs: means and their standard errors."""

    inverter: str
    n: int
    fitted_on: str
    nre: float
    nre_sem: float
    psnr: float
    psnr_sem: float
    ssim: float
    ssim_sem: float
    remark: str = ""  # what must be known of how it inverts

    @property
    def basis(self) -> str:
        """What it was fitted on, and what must be known of it."""
        return f"{self.fitted_on}; {self.remark}" if self.remark else self.fitted_on


def measured(row: Row | Mapping[str, Any], measure: str) -> str:
    """One measure in a row of a table, with its standard error: `0.378 ± 0.005`."""
    values = vars(row) if isinstance(row, Row) else row
    return plus_minus(values[measure], values[f"{measure}_sem"], METRICS[measure].places)


@dataclass(frozen=True)
class Evaluation:
    """What came out, with all that is needed to compute it again.

    `pairwise_distance` is N, the mean distance between two of the photographs at `image_size` pixels: NRE = distance/N.
    """

    representation: str
    images: str
    n: int
    image_size: int
    pairwise_distance: float
    rows: list[Row]
    records: list[Record]
    left_out: dict[str, str]  # photographs that could not be read, and other files: name -> why

    def __str__(self) -> str:
        """The table, what its rows were fitted on, and how the first compares with slow ones."""
        cells = [["inverter", *(metric.title for metric in METRICS.values()), "n"]]
        cells += [[row.inverter, *(measured(row, name) for name in METRICS), str(row.n)] for row in self.rows]
        fitted: dict[str, list[str]] = {}
        for row in self.rows:
            own = row.inverter in (CONTROL, FLOOR)
            fitted.setdefault(row.basis if own else f"fitted on {row.basis}", []).append(row.inverter)
        return "\n".join(
            [
                f"{self.representation}: {self.n} photographs at {self.image_size} pixels, {self.images}",
                aligned(cells),
                f"± standard error; NRE is relative to N = {self.pairwise_distance:.1f}, the mean distance of two of "
                "them",
                *(f"{', '.join(names)}: {words}" for words, names in fitted.items()),
                *paired_in_words(self),
            ]
        )

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_json(self) -> dict[str, Any]:
        """All but the records and what was left out, as plain values, and the comparisons in words."""
        content = {key: value for key, value in asdict(self).items() if key not in ("records", "left_out")}
        return content | {"remarks": paired_in_words(self)}

    def errors(self) -> dict[str, dict[str, float]]:
        """NRE by inverter, then photograph."""
        found: dict[str, dict[str, float]] = {}
        for record in self.records:
            found.setdefault(record.inverter, {})[record.id] = record.nre
        return found

    def records_csv(self) -> str:
        """The records as CSV, one line each."""
        return to_csv([asdict(record) for record in self.records])


@dataclass(frozen=True)
class Contender:
    """An inverter, and in words what it was fitted on; a slow one may be given the first `limit` photographs only."""

    inverter: Inverter
    fitted_on: str
    limit: int | None = None


def fit_baselines(pairs: EncodedPhotos, fitted_on: str) -> list[Contender]:
    """The mean image, ridge regression and the nearest neighbour, fitted on training photographs."""
    representation = pairs.representation
    kinds: list[Inverter] = [MeanImage(representation), Nearest(representation), Ridge(representation)]
    return [Contender(kind.fit(pairs), fitted_on) for kind in kinds]


def evaluate_contenders(
    contenders: Sequence[Contender],
    photos: Photos,
    images: str,
    *,
    device: str = "cpu",
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] = ignore,
) -> Evaluation:
    """Invert the features of every photograph with every contender; the first one also gets its control row, and the
    floor of its size where it works at another one than the photographs'.

    All contenders read photographs of one size. `images` says in words which photographs these are. N is that of all
    photographs, also for a contender that inverts only some: `paired` compares it with others on the same ones.
    """
    if len(photos) < 2:
        raise ImageError(
            "an evaluation needs at least two photographs: its errors are relative to the distance between them"
        )
    names = [contender.inverter.name for contender in contenders]
    if len(set(names)) < len(names):
        raise PreimageError(f"every inverter needs a name of its own in a table, got {', '.join(names)}")
    main = contenders[0].inverter
    representation, all_ids = main.representation, photos.ids
    pairwise = mean_pairwise_distance_of(len(photos), photos.images)
    fast = [one.inverter for one in contenders if one.limit is None]
    slow = [(one.inverter, min(one.limit, len(photos))) for one in contenders if one.limit is not None]
    jobs = [(fast, rows) for rows in parts(len(photos), batch_size)]
    jobs += [([inverter], rows) for inverter, limit in slow for rows in parts(limit, SLOW_BATCH)]
    records: list[Record] = []
    done, work = 0, sum(len(rows) for _, rows in jobs)
    for inverters, rows in jobs:
        ids, batch = all_ids[rows.start : rows.stop], photos.images(rows).to(device)
        features: dict[int, Tensor] = {}  # by representation: an autoencoder reads features of its own
        for inverter in inverters:
            if (key := id(inverter.representation)) not in features:
                features[key] = encoded(inverter.representation, ids, batch)
            records += measure(ids, inverter.name, batch, inverter.invert(features[key]), pairwise)
        if inverters is fast:
            following = rows.stop % len(photos)  # after the last, the first
            of_next = encoded(representation, [all_ids[following]], photos.images([following]).to(device))
            of_others = torch.cat([features[id(representation)][1:], of_next])
            records += measure(ids, CONTROL, batch, main.invert(of_others), pairwise)
            if (perfect := main.perfect(batch)) is not None:
                records += measure(ids, FLOOR, batch, perfect, pairwise)
        done += len(rows)
        on_progress(done, work)
    summaries = [row_of(records, one.inverter.name, one.fitted_on, one.inverter.remark) for one in contenders]
    if any(record.inverter == FLOOR for record in records):
        summaries.append(row_of(records, FLOOR, "the photographs themselves, scaled to the decoder's size and back"))
    summaries.append(row_of(records, CONTROL, f"as {main.name}; features of another photograph"))
    return Evaluation(
        with_layer(representation),
        images,
        len(photos),
        representation.image_size,
        pairwise,
        summaries,
        records,
        photos.left_out,
    )


@torch.no_grad()  # an autoencoder's encoder is not frozen
def encoded(representation: Representation, ids: Sequence[str], images: Tensor) -> Tensor:
    return representation.encode_photos(ids, images)


def with_layer(representation: Representation) -> str:
    """The name, and what is read of a network that has one name for all."""
    settings = representation.settings
    told = [f"{key} {settings[key]}" for key in ("layer", "output", "tokens") if settings.get(key, "") != ""]
    return ", ".join([representation.name, *told])


def measure(
    ids: list[str], inverter: str, photographs: Tensor, reconstructions: Tensor, pairwise: float
) -> list[Record]:
    """The metrics of a batch, one record each."""
    values = (of(photographs, reconstructions).tolist() for of in (distance, psnr, ssim))
    return [Record(one, inverter, d / pairwise, p, s) for one, d, p, s in zip(ids, *values, strict=True)]


def row_of(records: Sequence[Record], inverter: str, fitted_on: str, remark: str = "") -> Row:
    """The row of one inverter."""
    own = [record for record in records if record.inverter == inverter]
    means = {}
    for metric in METRICS:
        values = [getattr(record, metric) for record in own]
        means[metric], means[f"{metric}_sem"] = mean_and_sem(values)
    return Row(inverter, len(own), fitted_on, **means, remark=remark)


def paired(evaluation: Evaluation, first: str, second: str) -> tuple[float, float, int]:
    """The NRE of one inverter less that of another on the photographs both inverted: mean, standard error, n."""
    errors = evaluation.errors()
    for name in (first, second):
        if name not in errors:
            raise UnknownNameError("inverter of this evaluation", name, errors)
    return paired_difference(errors[first], errors[second])


def paired_in_words(evaluation: Evaluation) -> list[str]:
    """How rows on fewer photographs compare with the first on the same ones; then the best, if it beats the first."""
    main, *others = evaluation.rows
    differences = {row.inverter: paired(evaluation, row.inverter, main.inverter) for row in others}
    words = [
        f"{name}: {plus_minus(difference, sem, sign='+')} NRE against {main.inverter} on the same {n}"
        for name, (difference, sem, n) in differences.items()
        if n < main.n
    ]
    better = [
        (difference, f"{name}'s NRE is {plus_minus(-difference, sem)} lower on the same {n}")
        for name, (difference, sem, n) in differences.items()
        if name not in (FLOOR, CONTROL) and difference < -2 * sem
    ]
    if better:
        words.append(f"{main.inverter} is not the best here: {min(better)[1]}")
    return words


@dataclass(frozen=True)
class Inverted:
    """Photographs (N, 3, H, W), their features (N, ...) and what was made of these (N, 3, H, W), on the CPU."""

    ids: list[str]
    photographs: Tensor
    features: Tensor
    reconstructions: Tensor

    def one(self, index: int) -> Inverted:
        part = slice(index, index + 1)
        return Inverted(self.ids[part], self.photographs[part], self.features[part], self.reconstructions[part])


def inverted(inverter: Inverter, ids: list[str], images: Tensor, device: str = "cpu") -> Inverted:
    """Encode photographs on a device, and invert their features there."""
    features = encoded(inverter.representation, ids, images.to(device))
    return Inverted(ids, images, features.cpu(), inverter.invert(features).cpu())


def draw_sheet(inverter: Inverter, photos: Photos, file: Path, device: str = "cpu") -> None:
    """All photographs on one sheet, each beside what the representation sees and its reconstruction."""
    ids, images = next(photos.batches(len(photos)))
    sheet(sheet_columns(inverter, inverted(inverter, ids, images, device)), file, captions=ids)


def sheet_columns(inverter: Inverter, done: Inverted) -> dict[str, Tensor]:
    """What stands side by side on a sheet, by title; an expected error only where it was learnt."""
    columns = {"photograph": done.photographs}
    if (seen := inverter.representation.draw(done.features)) is not None:
        columns[f"what {inverter.representation.name} sees"] = seen
    columns["reconstruction"] = done.reconstructions
    columns["difference (grey: none)"] = difference(done.photographs, done.reconstructions)
    if inverter.confidence is not None:
        columns[f"expected error, 0 to {FAR:g}"] = heat(inverter.confidence.predict(done.features).cpu(), FAR)
    return columns
