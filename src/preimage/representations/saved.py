"""Features that someone else computed: a file of them, and the photographs they belong to. No encoder is needed.

`.npy` and `.npz` arrays, `.safetensors`, `.pt`, `.parquet`: one row a photograph. Rows find their photographs by ids,
which stand in the file (an array or a column `ids`, `id`, `name` or `path`) or beside it (`FILE.ids.txt`, or
`FILE.json` as `preimage encode` writes it); without any, by the order of the file names. Rows are read when they are
asked for, so a file may be larger than memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preimage.errors import FeatureError, ImageError, SettingsError
from preimage.images import Photos
from preimage.interfaces import Representation, short_hash
from preimage.networks.weights import file_hash
from preimage.representations.matching import match
from preimage.representations.tables import Table, open_table
from preimage.words import listed, shape_in_words

PREFIX = "saved:"
IMAGE_SIZE = 128  # pixels, unless another is asked for
CHUNK_BYTES = 1 << 25  # read at a time when a whole file is looked through


class SavedFeatures(Representation):
    """Features in a file, known for some photographs only: `match` says which. There is no encoder.

    `shape`, `sha256` and `encoder` (the fingerprint of what computed them) are read from the file unless they are
    given; an inverter of saved features therefore outlives the file it was fitted on.
    """

    file: str
    shape: tuple[int, ...]
    sha256: str
    encoder: str

    def __init__(
        self,
        file: str | Path,
        image_size: int = IMAGE_SIZE,
        shape: tuple[int, ...] = (),
        sha256: str = "",
        encoder: str = "",
    ) -> None:
        if image_size < 8:
            raise SettingsError(f"image_size is 8 pixels or more, got {image_size}")
        self.file = str(file)
        self.image_size = image_size
        self.name = f"{PREFIX}{Path(file).name}"  # type: ignore[misc]
        self.source = "saved features, no encoder"  # type: ignore[misc]
        self.encoder = encoder
        self.rows: dict[str, int] = {}  # photograph -> row
        self.matched_by = ""
        if not sha256:
            self.table = open_table(file)
        self.sha256 = sha256 or file_hash(self.table.file)
        if not shape:
            self.encoder = encoder or self.table.encoder
        self.shape = shape or self.table.feature_shape

    @cached_property
    def table(self) -> Table:
        """The file, which must still be the one it was; raises `FeatureError`."""
        table = open_table(self.file)
        if (found := file_hash(table.file)) != self.sha256:
            raise FeatureError(f"{self.file} has changed: its SHA-256 was {self.sha256}, and is {found} now")
        return table

    def match(self, photos: Photos) -> Photos:
        """The photographs that have features here; their rows are remembered for `encode_photos`.

        The others are in their `left_out`.
        """
        if self.table.fit not in ("", photos.fit):
            raise FeatureError(
                f"{self.file} was encoded from photographs with --fit {self.table.fit}, and here they are read with "
                f"--fit {photos.fit}: give the same"
            )
        found = match(self.table, photos.ids)
        if self.table.ids is None and self.rows and found.rows.keys() != self.rows.keys():
            raise FeatureError(
                f"{self.file} has no ids, and its rows belong, in their order, to other photographs already: list the "
                f"photographs' ids in {self.file}.ids.txt, a line for each row"
            )
        check_rows(self.table, found.rows)
        self.rows |= found.rows
        self.matched_by = found.how
        if self.table.before_places is not None:
            self.matched_by += f"; the tokens of a row are read as a map of {self.shape[1]} x {self.shape[2]} places"
        part = photos.subset(index for index, own in enumerate(photos.ids) if own in found.rows)
        part.left_out |= dict.fromkeys(found.without_features, "no features")
        part.left_out |= {f"{own} in {self.table.ids_from}": "no photograph" for own in found.without_photo}
        return part

    def encode(self, images: Tensor) -> Tensor:  # noqa: ARG002 (there is nothing to encode them with)
        raise FeatureError(
            f"{self.name} has no encoder, so photographs alone are not enough: `preimage invert --features FILE` "
            "inverts saved features; evaluate, compare, report and audit judge them beside their photographs"
        )

    def encode_photos(self, ids: Sequence[str], images: Tensor) -> Tensor:
        if not self.rows:
            return self.encode(images)  # which says why not
        if missing := [own for own in ids if own not in self.rows]:
            raise FeatureError(f"{self.file} is not known to hold features of {listed(missing)}: match them first")
        features = torch.from_numpy(self.table.read([self.rows[own] for own in ids]))
        return features.to(images.device)

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        if (height, width) != (self.image_size, self.image_size):
            raise ImageError(f"{self.name} goes with photographs of {self.image_size} x {self.image_size} pixels")
        return self.shape

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "image_size": self.image_size,
            "shape": list(self.shape),
            "sha256": self.sha256,
            "encoder": self.encoder,
        }

    @property
    def fingerprint(self) -> str:
        """Of the file's content, wherever it lies."""
        return short_hash([self.version, self.sha256, list(self.shape), self.image_size])


def check_encoder(table: Table, representation: Representation) -> None:
    """Raise `FeatureError` where it is known that a file's features are not those of a representation."""
    wanted: dict[str, Any] = {}
    if isinstance(representation, SavedFeatures):  # which knows no more of its encoder
        own = representation.encoder
    else:
        own, wanted = representation.fingerprint, representation.description
    if not table.encoder or not own or table.encoder == own:
        return
    made_by = table.made_by
    other = [
        f"{key}={made_by[key]} instead of {value}" for key, value in wanted.items() if made_by.get(key, value) != value
    ]
    words = ", ".join(other) or f"other weights or settings (fingerprint {table.encoder} instead of {own})"
    raise FeatureError(f"{table.file} was encoded with {words}: encode again as the inverter reads it")


def check_like(judged: SavedFeatures, trained: SavedFeatures) -> None:
    """Raise `FeatureError` unless features can be of the same encoder as those that something was trained on."""
    if judged.shape != trained.shape:
        sizes = [shape_in_words(each.shape) for each in (judged, trained)]
        raise FeatureError(f"{judged.file} holds features of {sizes[0]}, but those to learn from are of {sizes[1]}")
    if judged.encoder and trained.encoder and judged.encoder != trained.encoder:
        raise FeatureError(f"{judged.file} and {trained.file} were encoded with different settings: encode one again")


def check_rows(table: Table, rows: dict[str, int]) -> None:
    """Raise `FeatureError` where a row that is going to be used holds NaN or infinity, or where all are alike."""
    names = {row: own for own, row in rows.items()}
    ordered = sorted(names)
    at_once = max(1, CHUNK_BYTES // (4 * math.prod(table.feature_shape)))
    bad: list[int] = []
    first, alike = table.read(ordered[:1]), True
    for start in range(0, len(ordered), at_once):
        part = ordered[start : start + at_once]
        values = table.read(part)
        alike = alike and bool((values == first).all())
        finite = torch.from_numpy(values).isfinite().flatten(1).all(dim=1).tolist()
        bad += [row for row, good in zip(part, finite, strict=True) if not good]
    if bad:
        raise FeatureError(
            f"{len(bad)} of {len(ordered)} rows of {table.file} hold NaN or infinity: "
            f"{listed([f'row {row} ({names[row]})' for row in bad])}. Mend them, or take these "
            "rows and their ids out of the file"
        )
    if alike and len(ordered) > 1:
        raise FeatureError(f"all {len(ordered)} rows of {table.file} are alike: they tell no photograph from another")
