"""Photographs or saved features into a folder of pictures: each inverted, and on a sheet beside the photograph."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from preimage.config import overrides_for
from preimage.errors import ImageError, PreimageWarning, SettingsError
from preimage.evaluation import Inverted, inverted, sheet_columns
from preimage.figures import sheet
from preimage.files import file_name
from preimage.images import Fit, Photos, check_places, decode, find_photos, save_image, to_tensor, warn_left_out, whole
from preimage.interfaces import Inverter
from preimage.inverters import MeanImage, main_of
from preimage.kept import Kept
from preimage.metrics import psnr
from preimage.plain import parts
from preimage.representations.saved import check_encoder, check_rows
from preimage.representations.tables import open_table
from preimage.studies import labels

BATCH = 16  # photographs, or rows of saved features
Batches = Iterable[tuple[list[str], Tensor]]  # ids, and images (N, 3, H, W) in [0, 1]


def invert(
    inverters: Sequence[str | Path],
    images: Sequence[str | Path],
    output: str | Path,
    *,
    fit: Fit | None = None,
    native: bool = False,
    overrides: Sequence[str] = (),
    device: str = "cpu",
) -> Iterator[Path]:
    """Write PHOTO.LABEL.png of every photograph by every inverter, and a sheet of all; yields the files.

    Photographs are squared as the inverters' runs had them unless `fit` says how, or taken at their own size
    (`native`), which needs one inverter of a representation on a grid. `overrides` are settings of representations, of
    all or of one name or network.
    """
    output = Path(output)
    if not inverters:
        raise SettingsError("name an inverter")
    if native and len(inverters) > 1:
        raise SettingsError("--size native takes one inverter at a time")
    loaded = load_all(inverters, overrides, images)
    main = {title: main_of(kept) for title, kept in loaded.items()}
    first = next(iter(loaded))
    mean = None
    if native:
        ids, own_size = native_batches(images, main[first].representation.grid)
        batches: list[Batches] = [own_size]
    else:
        mean = loaded[first].get(MeanImage.name)
        fits = [fit or Kept.of(name).fit for name in labels(inverters).values()]
        sizes = [inverter.representation.image_size for inverter in main.values()]
        opened = [Photos.open(images, *how) for how in zip(sizes, fits, strict=True)]
        photos = [not_written_before(each, images, output).load() for each in opened]
        warn_left_out(photos[0].left_out)
        ids, batches = photos[0].ids, [each.batches(BATCH) for each in photos]
    yield from invert_photos(main, batches, ids, output, mean, device)


def invert_features(
    inverters: Sequence[str | Path],
    features: str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
) -> Iterator[Path]:
    """Write ID.LABEL.png of every row of saved features by every inverter; yields the files."""
    for title, kept in load_all(inverters, overrides).items():
        yield from invert_saved(main_of(kept), title, Path(features), Path(output), device)


def load_all(
    inverters: Sequence[str | Path], overrides: Sequence[str], images: Sequence[str | Path] = ()
) -> dict[str, dict[str, Inverter]]:
    """Inverters and what is kept with each, by what they are called; mistakes are told before anything is loaded."""
    kept = {title: Kept.of(name) for title, name in labels(inverters).items()}
    encoders = {title: each.representation["name"] for title, each in kept.items()}
    if idle := [one for one in overrides if not any(overrides_for(encoder, [one]) for encoder in encoders.values())]:
        raise SettingsError(f"{idle[0]} is no setting of {' or '.join(encoders.values())}")
    check_places(images)
    return {title: each.load_with(overrides) for title, each in kept.items()}


def invert_photos(
    inverters: Mapping[str, Inverter],
    batches: Sequence[Batches],
    ids: Sequence[str],
    output: Path,
    mean: Inverter | None,
    device: str,
) -> Iterator[Path]:
    """Each inverter has `batches` of its own of the same photographs, which `ids` names; `mean` is for the sheet."""
    names = file_names(ids)
    for same in zip(*batches, strict=True):
        done = [
            inverted(inverter, photo_ids, images, device)
            for inverter, (photo_ids, images) in zip(inverters.values(), same, strict=True)
        ]
        for each in done:
            warn_empty(each.ids, each.features)
        for index, photo_id in enumerate(done[0].ids):
            parts = dict(zip(inverters, (each.one(index) for each in done), strict=True))
            files = {title: output / f"{names[photo_id]}.{file_name(title)}.png" for title in parts}
            for title, part in parts.items():
                save_image(part.reconstructions[0], files[title])
                yield files[title]
            (beside, *others) = files.values()
            beside = output / f"{names[photo_id]}.sheet.png" if others else beside.with_suffix(".sheet.png")
            sheet(side_by_side(inverters, parts, mean), beside)
            yield beside


def side_by_side(
    inverters: Mapping[str, Inverter], parts: Mapping[str, Inverted], mean: Inverter | None
) -> dict[str, Tensor]:
    """The columns of one photograph's sheet; of a single inverter also what it sees, and how far off it is."""
    first = next(iter(parts.values()))
    columns = {"photograph": first.photographs}
    for title, part in parts.items():
        told = f"from {title}\n{psnr_in_words(part.photographs, part.reconstructions)}"
        if len({own.photographs.shape for own in parts.values()}) > 1:
            told += f" at {part.photographs.shape[3]} pixels"
        shown = sheet_columns(inverters[title], part) if len(parts) == 1 else {told: part.reconstructions}
        columns |= {told if own is part.reconstructions else words: own for words, own in shown.items()}
    if mean is not None:
        average = mean.invert(first.features)
        columns[f"mean image\n{psnr_in_words(first.photographs, average)}"] = average
    return columns


def psnr_in_words(photograph: Tensor, picture: Tensor) -> str:
    """How near a picture comes to the photograph, both (1, 3, H, W)."""
    return f"PSNR {float(psnr(photograph, picture)):.1f} dB"


def invert_saved(inverter: Inverter, title: str, file: Path, output: Path, device: str) -> Iterator[Path]:
    """Write ID.TITLE.png of every row of saved features; yields the files."""
    representation = inverter.representation
    table = open_table(file, representation.feature_shape)
    check_encoder(table, representation)
    ids = table.ids or [f"{file.stem}-{index:04d}" for index in range(len(table))]
    check_rows(table, {own: row for row, own in enumerate(ids)})
    names = file_names(ids)
    for rows in parts(len(table), BATCH):
        reconstructions = inverter.invert(torch.from_numpy(table.read(rows)).to(device)).cpu()
        for row, picture in zip(rows, reconstructions, strict=True):
            written = output / f"{names[ids[row]]}.{file_name(title)}.png"
            save_image(picture, written)
            yield written


def warn_empty(ids: Sequence[str], features: Tensor) -> None:
    """Warn of photographs of which nothing is known."""
    for own, one in zip(ids, features, strict=True):
        if not one.any():
            warnings.warn(
                f"{own}: all features are zero (no keypoint, or nothing but one colour); its picture is a guess",
                PreimageWarning,
                stacklevel=1,  # here: Python repeats none of one place
            )


def native_batches(images: Sequence[str | Path], grid: int | None) -> tuple[list[str], Batches]:
    """Ids, and one photograph at a time at its own size, less what is over a multiple of `grid` pixels."""
    if grid is None:
        raise SettingsError("--size native needs a representation on a grid, such as hog or lbp")
    found = find_photos([str(place) for place in images])
    warn_left_out(found.left_out)

    def batches() -> Batches:
        for photo in found.photos:
            try:
                image = whole(decode(photo.read(), photo.id), grid)
            except ImageError as error:
                if photo.named and len(found.photos) == 1:
                    raise
                warn_left_out({photo.id: str(error)})
            else:
                yield [photo.id], to_tensor([image])

    return [photo.id for photo in found.photos], batches()


def not_written_before(photos: Photos, images: Sequence[str | Path], output: Path) -> Photos:
    """Photographs but for pictures in the folder to write into, where that lies within one of theirs."""
    if output.resolve() in {Path(source).resolve() for source in images}:
        return photos
    files = [getattr(photo, "path", None) for photo in photos.photos]
    return photos.subset(
        index
        for index, file in enumerate(files)
        if file is None or photos.photos[index].named or output.resolve() not in file.resolve().parents
    )


def file_names(ids: Sequence[str]) -> dict[str, str]:
    """Ids -> names for files: folders become part of the name, suffixes are kept only where they tell two apart."""
    flat = {own: re.sub(r"[/\\:]", "_", own.lstrip("./")) for own in ids}  # ../cat.jpg would be hidden
    stems = {own: name.removesuffix(Path(name).suffix) for own, name in flat.items()}
    often = Counter(stems.values())
    names = {own: stem if often[stem] == 1 else flat[own] for own, stem in stems.items()}
    if len(set(names.values())) == len(names):
        return names
    return {own: f"{index}_{name}" for index, (own, name) in enumerate(flat.items())}
