"""Features that someone else computed: a file of them, and the photographs they belong to. No encoder is needed.

`.npy` and `.npz` arrays, `.safetensors`, `.pt`, `.parquet`: one row a photograph. Rows find their photographs by ids,
which stand in the file (an array or a column `ids`, `id`, `name` or `path`) or beside it (`FILE.ids.txt`, or
`FILE.json` as `preimage encode` writes it); without any, by the order of the file names. Rows are read when they are
asked for, so a file may be larger than memory.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from preimage.errors import FeatureError, ImageError, SettingsError
from preimage.images import SUFFIXES, Photos
from preimage.interfaces import Representation, short_hash
from preimage.networks.weights import PickledCodeError, describe, file_hash, is_dense, load_without_code
from preimage.plain import listed, shape_in_words
from preimage.representations.foreign import CLASS_TOKENS, before_places

PREFIX = "saved:"
ID_NAMES = ("ids", "id", "name", "names", "path", "paths", "file", "filename", "image_id")
FEATURE_NAMES = ("features", "feature", "embeddings", "embedding", "vectors", "vector")
IMAGE_SIZE = 128  # pixels, unless another is asked for
WITHOUT_IDS = "there are no ids"
FEWEST_PLACES = 16  # of tokens, to be taken for a map
CHUNK_BYTES = 1 << 25  # read at a time when a whole file is looked through
DAMAGE = (  # what readers raise for a file that is damaged or something else
    OSError, ValueError, EOFError, KeyError, NotImplementedError, SafetensorError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip


# --- a file of features -----------------------------------------------------------------------------------------------


class Rows(Protocol):
    """What rows are read from: a memory-mapped array or tensor, or a tensor in a safetensors file."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Table:
    """Saved features: `source` of shape (N, ...), whose rows are read from disk, and their `ids` if any."""

    file: Path
    source: Rows
    ids: list[str] | None = None
    ids_from: str = ""
    encoder: str = ""  # the fingerprint of what computed them, where `preimage encode` did
    made_by: Mapping[str, Any] = field(default_factory=dict)  # its name and settings
    fit: str = ""  # and how it made photographs square

    @property
    def before_places(self) -> int | None:
        """How many tokens stand before those of a square of places, where rows are (tokens, D); else None."""
        own = self.source.shape[1:]
        return before_places(own[0], CLASS_TOKENS, FEWEST_PLACES) if len(own) == 2 else None

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Vectors (D,) and maps (C, h, w) as they are, tokens as maps of their places; else one long vector."""
        own = tuple(self.source.shape[1:])
        if self.before_places is not None:
            side = math.isqrt(own[0] - self.before_places)
            return (own[1], side, side)
        return own if len(own) in (1, 3) else (math.prod(own),)

    def __len__(self) -> int:
        return int(self.source.shape[0])

    def read(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Some rows as float32 (n, *feature_shape)."""
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told as such
            array = np.asarray(self.source[list(rows)]).astype(np.float32)
        if self.before_places is not None:
            array = array[:, self.before_places :].transpose(0, 2, 1)
        return array.reshape(len(rows), *self.feature_shape)


def open_table(file: str | Path, feature_shape: tuple[int, ...] = ()) -> Table:
    """The features in a file, checked for form but not read; raises `FeatureError`.

    An array of just `feature_shape`, where it is given, is one row.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FeatureError(f"there is no file of features {file}")
    if path.suffix not in READERS:
        raise FeatureError(
            f"features are read from {', '.join(READERS)}, not {path.suffix or 'this'}: {file}. Of a table of numbers, "
            "save np.save('FILE.npy', table[columns].to_numpy()), and its ids, a line each, to FILE.npy.ids.txt"
        )
    try:
        source, ids = READERS[path.suffix](path)
    except DAMAGE as error:
        raise FeatureError(f"{file} cannot be read as {path.suffix}: {error}") from error
    if feature_shape and tuple(source.shape) == feature_shape and isinstance(source, np.ndarray):
        source = source[None]
    check_form(source, path)
    ids_from = path.name
    facts = facts_beside(path)
    if ids is None:
        ids, ids_from = ids_beside(path, facts)
    if ids is not None:
        check_ids(ids, source.shape[0], ids_from, path)
    made_by = facts.get("representation")
    return Table(
        path, source, ids, ids_from, str(facts.get("fingerprint", "")), made_by if isinstance(made_by, dict) else {},
        str(facts.get("fit", "")),
    )  # fmt: skip


def check_form(source: Rows, path: Path) -> None:
    """Raise `FeatureError` unless this is rows of numbers."""
    shape = tuple(source.shape)
    size = shape_in_words(shape)
    dtype = getattr(source, "dtype", None)
    if dtype is not None and dtype.kind not in "biuf":
        raise FeatureError(f"{path} holds {dtype}, expected real numbers (float, integer or boolean)")
    if len(shape) < 2:
        raise FeatureError(
            f"{path} has shape ({size}), expected a row of features for each photograph, (N, D) or (N, C, h, w); "
            "save features[None] for one photograph, features[:, None] for one number each"
        )
    if 0 in shape:
        raise FeatureError(f"{path} is empty: its shape is {size}")
    if len(shape) == 4 and shape[1] == shape[2] != shape[3]:
        raise FeatureError(
            f"{path} holds maps of {shape_in_words(shape[1:])}, which looks like (h, w, C); expected (C, h, w): "
            "save features.transpose(0, 3, 1, 2)"
        )


def check_ids(ids: list[str], rows: int, ids_from: str, path: Path) -> None:
    if len(ids) != rows:
        raise FeatureError(f"{ids_from} holds {len(ids)} ids, but {path} {rows} rows: one id is needed for each row")
    twice = [own for own, count in Counter(ids).items() if count > 1]
    if twice:
        first, second = [row for row, own in enumerate(ids) if own == twice[0]][:2]
        raise FeatureError(
            f"ids occur more than once in {ids_from}: {listed(twice)} (the first in rows {first} and {second}); "
            "keep one row for each photograph"
        )


def read_npy(path: Path) -> tuple[Rows, list[str] | None]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "ickle" not in str(error) and "Python objects" not in str(error):
            raise
        raise FeatureError(
            f"{path} cannot be read as .npy: it is damaged, or holds Python objects instead of numbers; save one "
            "array, np.stack(rows).astype(np.float32)"
        ) from error
    if not isinstance(array, np.ndarray):
        raise FeatureError(f"{path} holds several arrays: give it the suffix .npz")
    return array, None


def read_npz(path: Path) -> tuple[Rows, list[str] | None]:
    """An array of a NumPy archive, mapped where it lies if it is not compressed, else through a temporary file."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                headers[info.filename.removesuffix(".npy")] = (info, *read_header(member, f"{path}: {info.filename}"))
        name = choose({key: header[1] for key, header in headers.items()}, path)
        info, shape, fortran, dtype, offset = headers[name]
        if dtype.hasobject:
            raise FeatureError(f"{path}: {name} holds Python objects, expected numbers")
        order: Any = "F" if fortran else "C"
        if info.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as file:
                file.seek(info.header_offset + 26)  # of the member's own header: lengths of its name and extra field
                lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
            start = info.header_offset + 30 + lengths + offset
            source: Rows = np.memmap(path, dtype, "r", start, shape, order)
        else:
            with archive.open(info) as member, tempfile.TemporaryFile() as spool:
                shutil.copyfileobj(member, spool, 1 << 20)
                spool.flush()
                source = np.memmap(spool, dtype, "r", offset, shape, order)
    ids = next((key for key in ID_NAMES if key in headers and key != name), None)
    if ids is None:
        return source, None
    if headers[ids][3].hasobject:
        raise FeatureError(f"{path}: {ids} holds Python objects: save it as np.array({ids}, dtype=str)")
    with np.load(path, allow_pickle=False) as content:
        return source, as_texts(content[ids].reshape(-1).tolist())


def read_header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type and length of the header of a .npy file."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FeatureError(f"{where} is of .npy version {version}: save it as a plain array of numbers")
    shape, fortran, dtype = readers[version](member)
    return shape, fortran, dtype, member.tell()


def choose(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    """Which of several named arrays holds the features: by its name, else the only one that is no list."""
    for name in FEATURE_NAMES:
        if name in shapes:
            return name
    candidates = [name for name, shape in shapes.items() if len(shape) >= 2 and name not in ID_NAMES]
    if len(candidates) == 1:
        return candidates[0]
    found = ", ".join(f"{name} {shape_in_words(shape)}" for name, shape in shapes.items()) or "nothing"
    raise FeatureError(f"{path} holds {found}: which are the features? Name that one 'features'")


class LazyTensor:
    """Rows of a tensor in a safetensors file, read when they are asked for."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with safe_open(path, framework="pt") as content:
            self.shape: tuple[int, ...] = tuple(content.get_slice(name).get_shape())
            if content.get_slice(name).get_dtype() in ("C64", "C128"):
                raise FeatureError(f"{path}: {name} holds complex numbers, expected real ones")

    def __getitem__(self, rows: Sequence[int], /) -> npt.NDArray[np.float32]:
        with safe_open(self.path, framework="pt") as content:
            tensor = content.get_slice(self.name)
            parts = [tensor[row : row + 1] for row in rows]
        return torch.cat(parts).float().numpy()


def read_safetensors(path: Path) -> tuple[Rows, list[str] | None]:
    """A tensor; its ids are another one (numbers), or in the metadata a JSON list `ids`."""
    with safe_open(path, framework="pt") as content:
        shapes = {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
        name = choose(shapes, path)
        ids = next((key for key in ID_NAMES if key in shapes and key != name), None)
        if ids is not None:
            return LazyTensor(path, name), as_texts(content.get_tensor(ids).flatten().tolist())
        listed_ids = json.loads((content.metadata() or {}).get("ids", "null"))
    return LazyTensor(path, name), as_texts(listed_ids) if isinstance(listed_ids, list) else None


class MappedTensor:
    """Rows of a tensor in a file of torch.save."""

    def __init__(self, path: Path, name: str, tensor: Tensor) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.shape)
        if not is_dense(tensor):
            raise FeatureError(f"{path}: {name} is {describe(tensor)}, expected dense real numbers")

    def __getitem__(self, rows: Sequence[int], /) -> npt.NDArray[np.float32]:
        return self.tensor[rows].float().numpy()


def read_torch(path: Path) -> tuple[Rows, list[str] | None]:
    """A tensor, or one of several by name; its ids are another one (numbers), or a list."""
    try:
        content = load_without_code(path, mapped=True)
    except PickledCodeError as error:
        raise FeatureError(
            f"{path} cannot be read as {path.suffix}: {error}. Save tensors: torch.save({{'features': features, 'ids': "
            "ids}, FILE)"
        ) from error
    if isinstance(content, Tensor):
        return MappedTensor(path, "it", content.detach()), None
    if not isinstance(content, Mapping):
        raise FeatureError(
            f"{path} holds {describe(content)}, expected a tensor, or tensors by name: save torch.stack(rows), one a "
            "photograph"
        )
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    name = choose({name: tuple(value.shape) for name, value in tensors.items()}, path)
    ids = next((content[key] for key in ID_NAMES if key in content and key != name), None)
    if isinstance(ids, Tensor):
        ids = ids.flatten().tolist()
    return MappedTensor(path, name, tensors[name]), as_texts(ids) if isinstance(ids, list | tuple) else None


def read_parquet(path: Path) -> tuple[Rows, list[str] | None]:
    """A column of lists of one length, copied row group by row group to a temporary file, whose rows can be mapped."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise FeatureError(f"reading {path} needs pyarrow: pip install 'preimage[data]'") from error
    with pyarrow.parquet.ParquetFile(path) as content:
        columns = {field.name: field.type for field in content.schema_arrow}
        rows, width = content.metadata.num_rows, 0
        lists: dict[str, tuple[int, ...]] = {name: (rows, 0) for name, kind in columns.items() if is_list(kind)}
        if not lists:
            raise FeatureError(
                f"{path} has no column of lists of numbers; its {len(columns)} columns are {listed(list(columns))}. "
                "Of a column for each number make an array of .npy: table[columns].to_numpy()"
            )
        name = choose(lists, path)
        id_column = next((key for key in ID_NAMES if key in columns and key != name), None)
        ids: list[str] = []
        with tempfile.TemporaryFile() as spool:
            for batch in content.iter_batches(1024, columns=[name] + [id_column] * bool(id_column)):
                part = vectors_of(batch.column(0), path, name)
                if width and part.shape[1] != width:
                    raise FeatureError(f"{path}: rows of {name} have {width} and {part.shape[1]} numbers: expected one")
                width = part.shape[1]
                spool.write(part.tobytes())
                ids += as_texts(batch.column(1).to_pylist()) if id_column else []
            spool.flush()
            if not rows or not width:
                raise FeatureError(f"{path} is empty")
            source = np.memmap(spool, np.float32, "r", shape=(rows, width))
    return source, ids if id_column else None


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of any kind."""
    return str(kind).partition("<")[0].endswith("list")


def vectors_of(column: Any, path: Path, name: str) -> npt.NDArray[np.float32]:
    """A part of a column of lists -> float32 (n, D); lists in lists (maps) become one row of numbers."""
    import pyarrow.compute

    values = column
    while is_list(values.type):
        if values.null_count:
            raise FeatureError(f"{path}: some rows of {name} are missing (null): leave those rows out")
        lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(values)).to_pylist()
        if len(lengths) != 1:
            raise FeatureError(f"{path}: rows of {name} have {min(lengths)} to {max(lengths)} numbers: expected one")
        values = values.flatten()
    numbers = values.to_numpy(zero_copy_only=False)
    if values.null_count or numbers.dtype.kind not in "biuf":
        raise FeatureError(f"{path}: {name} holds something other than numbers ({values.type})")
    reshaped: npt.NDArray[np.float32] = numbers.astype(np.float32).reshape(len(column), -1)
    return reshaped


READERS: dict[str, Callable[[Path], tuple[Rows, list[str] | None]]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".parquet": read_parquet,
}


def as_texts(values: Iterable[Any]) -> list[str]:
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]


def facts_beside(path: Path) -> dict[str, Any]:
    """What FILE.json says of the features, as `preimage encode` writes it; a list there is that of the ids."""
    described = path.with_name(path.name + ".json")
    if not described.is_file():
        return {}
    try:
        content = json.loads(described.read_text())
    except ValueError as error:
        raise FeatureError(f"{described} is damaged: {error}; remove it, or encode again") from error
    return content if isinstance(content, dict) else {"ids": content}


def ids_beside(path: Path, facts: Mapping[str, Any]) -> tuple[list[str] | None, str]:
    """The ids of rows, from a list beside the file or from its `facts`, and what they come from."""
    for lines in (path.with_name(path.name + ".ids.txt"), path.with_suffix(".ids.txt")):
        if lines.is_file():
            try:
                return lines.read_text(encoding="utf-8-sig").splitlines(), lines.name
            except UnicodeDecodeError as error:
                raise FeatureError(f"{lines} is no UTF-8 text: {error}") from error
    ids = facts.get("ids")
    return (as_texts(ids), f"{path.name}.json") if isinstance(ids, list) else (None, "")


# --- rows and photographs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """Which row belongs to which photograph, how that was found out, and what belongs to nothing."""

    rows: dict[str, int]  # photograph -> row
    how: str
    without_features: list[str]
    without_photo: list[str]


def match(table: Table, photo_ids: Sequence[str]) -> Match:
    """Rows to photographs: by ids, else by the order of the file names. Raises `FeatureError` where that is unsure."""
    if table.ids is None:
        return match_by_order(table, photo_ids)
    best: set[str] = set()
    how = ""
    key: Key = whole_id
    for description, candidate in keys(photo_ids):
        known = {candidate(own) for own in table.ids} - {""}
        found = {own for own in map(candidate, photo_ids) if own in known}
        if len(found) > len(best):
            best, how, key = found, description, candidate
    if not best:
        raise FeatureError(
            f"no id in {table.ids_from} names a photograph: the ids are {listed(table.ids)}, the photographs "
            f"{listed(photo_ids)}. Write the photographs' file names as ids, or give the features of these photographs"
        )
    photos_of = grouped(photo_ids, key)
    rows_of = grouped(table.ids, key)
    for own in sorted(best):
        if len(photos_of[own]) > 1:
            raise FeatureError(
                f"one feature for {len(photos_of[own])} photographs: {listed(photos_of[own])} all have the id {own!r} "
                f"in {table.ids_from}; give ids that tell them apart (folder and suffix included)"
            )
        if len(rows_of[own]) > 1:
            raise FeatureError(
                f"{len(rows_of[own])} rows for one photograph: {listed(rows_of[own])} in {table.ids_from} all name "
                f"{photos_of[own][0]}; keep one of them"
            )
    places = {own: row for row, own in enumerate(table.ids)}
    rows = {photos_of[own][0]: places[rows_of[own][0]] for own in best}
    return Match(
        {own: rows[own] for own in photo_ids if own in rows},
        f"ids in {table.ids_from} ({how})",
        [own for own in photo_ids if own not in rows],
        [own for own in table.ids if key(own) not in best],
    )


def match_by_order(table: Table, photo_ids: Sequence[str]) -> Match:
    """The first row to the first file name in alphabetical order, and so on."""
    if len(table) != len(photo_ids):
        raise FeatureError(
            f"{table.file} holds {len(table)} rows, but there are {len(photo_ids)} photographs, and nothing says which "
            f"belong together. Write a file name a line to {table.file.name}.ids.txt, in the order of the rows"
        )
    ordered = sorted(photo_ids)
    how = f"sorted file names: row 0 is {ordered[0]}, row {len(ordered) - 1} is {ordered[-1]} ({WITHOUT_IDS})"
    return Match({own: row for row, own in enumerate(ordered)}, how, [], [])


Key = Callable[[str], str]  # id -> what is compared; empty where an id has none


def whole_id(own: str) -> str:
    return own


def keys(photo_ids: Sequence[str]) -> list[tuple[str, Key]]:
    """Ways to compare ids, the strictest first: whole, without suffix, the ends of paths, numbers."""
    depth = max((own.count("/") + 1 for own in photo_ids), default=1)
    cuts: list[tuple[str, Key]] = [("without suffix", without_picture_suffix), ("up to the last dot", without_suffix)]
    ways: list[tuple[str, Key]] = [("as they are", whole_id), *cuts]
    for parts in range(depth, 0, -1):
        words = "file names alone" if parts == 1 else f"the last {parts} parts of the paths"
        ways.append((words, lambda own, parts=parts: ending(own, parts)))  # type: ignore[misc]
        ways += [(f"{words}, {how}", lambda own, parts=parts, cut=cut: cut(ending(own, parts))) for how, cut in cuts]  # type: ignore[misc]
    return [*ways, ("numbers", number)]


def without_picture_suffix(own: str) -> str:
    """`cat.0.jpg` and `cat.0` are both `cat.0`."""
    return without_suffix(own) if Path(own).suffix.lower() in SUFFIXES else own


def without_suffix(own: str) -> str:
    name = own.rpartition("/")[2]
    return own.removesuffix(Path(name).suffix) if name else own


def ending(own: str, parts: int) -> str:
    return "/".join(own.replace("\\", "/").split("/")[-parts:])


def number(own: str) -> str:
    """`photos/000139.jpg` and `139` are both 139."""
    name = without_suffix(ending(own, 1))
    return str(int(name)) if name.isdecimal() else ""


def grouped(ids: Iterable[str], key: Key) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for own in ids:
        groups.setdefault(key(own), []).append(own)
    return groups


# --- as a representation ----------------------------------------------------------------------------------------------


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
        missing = [own for own in ids if own not in self.rows]
        if missing:
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
        own, wanted = representation.fingerprint, {"name": representation.name, **representation.settings}
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
