"""Files of features: `.npy`, `.npz`, `.safetensors`, `.pt` and `.parquet`, one row a photograph.

Rows are read when they are asked for, so a file may be larger than memory.
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
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from preimage.errors import FeatureError
from preimage.networks.weights import PickledCodeError, describe, is_dense, load_without_code
from preimage.representations.foreign import CLASS_TOKENS, before_places
from preimage.words import listed, shape_in_words

ID_NAMES = ("ids", "id", "name", "names", "path", "paths", "file", "filename", "image_id")
FEATURE_NAMES = ("features", "feature", "embeddings", "embedding", "vectors", "vector")
FEWEST_PLACES = 16  # of tokens, to be taken for a map
DAMAGE = (  # what readers raise for a file that is damaged or something else
    OSError, ValueError, EOFError, KeyError, NotImplementedError, SafetensorError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip


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
    texts: Mapping[str, list[str]] = field(default_factory=dict)  # columns of others, which may be ids, by name
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
        source, ids, texts = READERS[path.suffix](path)
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
        path, source, ids, ids_from, {name: own for name, own in texts.items() if len(set(own)) == source.shape[0]},
        str(facts.get("fingerprint", "")), made_by if isinstance(made_by, dict) else {}, str(facts.get("fit", "")),
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


class Content(NamedTuple):
    """What a file holds: rows of features, their ids under a name that says so, and other texts by their names."""

    source: Rows
    ids: list[str] | None = None
    texts: Mapping[str, list[str]] = {}


def read_npy(path: Path) -> Content:
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
    return Content(array)


def read_npz(path: Path) -> Content:
    """An array of a NumPy archive, mapped where it lies if it is not compressed, else through a temporary file."""
    members, headers = {}, {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                members[key], headers[key] = info, read_header(member, f"{path}: {info.filename}")
        name = choose({key: header.shape for key, header in headers.items()}, path)
        info, header = members[name], headers[name]
        if header.dtype.hasobject:
            raise FeatureError(f"{path}: {name} holds Python objects, expected numbers")
        order: Any = "F" if header.fortran else "C"
        if info.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as file:
                file.seek(info.header_offset + 26)  # of the member's own header: lengths of its name and extra field
                lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
            start = info.header_offset + 30 + lengths + header.length
            source: Rows = np.memmap(path, header.dtype, "r", start, header.shape, order)
        else:
            with archive.open(info) as member, tempfile.TemporaryFile() as spool:
                shutil.copyfileobj(member, spool, 1 << 20)
                spool.flush()
                source = np.memmap(spool, header.dtype, "r", header.length, header.shape, order)
    ids = next((key for key in ID_NAMES if key in headers and key != name), None)
    texts = [key for key, own in headers.items() if own.dtype.kind in "SU" and own.shape == header.shape[:1]]
    if ids is not None and headers[ids].dtype.hasobject:
        raise FeatureError(f"{path}: {ids} holds Python objects: save it as np.array({ids}, dtype=str)")
    with np.load(path, allow_pickle=False) as content:
        if ids is not None:
            return Content(source, as_texts(content[ids].reshape(-1).tolist()))
        return Content(source, texts={key: as_texts(content[key].tolist()) for key in texts})


class Header(NamedTuple):
    """What stands before the numbers of a .npy file."""

    shape: tuple[int, ...]
    fortran: bool  # whether columns come first
    dtype: np.dtype[Any]
    length: int  # bytes


def read_header(member: IO[bytes], where: str) -> Header:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FeatureError(f"{where} is of .npy version {version}: save it as a plain array of numbers")
    shape, fortran, dtype = readers[version](member)
    return Header(shape, fortran, dtype, member.tell())


def choose(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    """Which of several named arrays holds the features: by its name, else the only one that is no list."""
    for name in FEATURE_NAMES:
        if name in shapes:
            return name
    candidates = [name for name, shape in shapes.items() if len(shape) >= 2 and name not in ID_NAMES]
    if len(candidates) == 1:
        return candidates[0]
    found = listed([f"{name} {shape_in_words(shape)}" for name, shape in shapes.items()]) or "nothing"
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


def read_safetensors(path: Path) -> Content:
    """A tensor; its ids are another one (numbers), or in the metadata a JSON list `ids`."""
    with safe_open(path, framework="pt") as content:
        shapes = {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
        name = choose(shapes, path)
        ids = next((key for key in ID_NAMES if key in shapes and key != name), None)
        if ids is not None:
            return Content(LazyTensor(path, name), as_texts(content.get_tensor(ids).flatten().tolist()))
        listed_ids = json.loads((content.metadata() or {}).get("ids", "null"))
    return Content(LazyTensor(path, name), as_texts(listed_ids) if isinstance(listed_ids, list) else None)


class MappedTensor:
    """Rows of a tensor in a file of torch.save."""

    def __init__(self, path: Path, name: str, tensor: Tensor) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.shape)
        if not is_dense(tensor):
            raise FeatureError(f"{path}: {name} is {describe(tensor)}, expected dense real numbers")

    def __getitem__(self, rows: Sequence[int], /) -> npt.NDArray[np.float32]:
        return self.tensor[rows].float().numpy()


def read_torch(path: Path) -> Content:
    """A tensor, or one of several by name; its ids are another one (numbers), or a list."""
    try:
        content = load_without_code(path, mapped=True)
    except PickledCodeError as error:
        raise FeatureError(
            f"{path} cannot be read as {path.suffix}: {error}. Save tensors: torch.save({{'features': features, 'ids': "
            "ids}, FILE)"
        ) from error
    if isinstance(content, Tensor):
        return Content(MappedTensor(path, "it", content.detach()))
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
    source = MappedTensor(path, name, tensors[name])
    if isinstance(ids, list | tuple):
        return Content(source, as_texts(ids))
    lists = {str(key): own for key, own in content.items() if isinstance(own, list | tuple)}
    return Content(source, texts={key: list(own) for key, own in lists.items() if all(isinstance(x, str) for x in own)})


def read_parquet(path: Path) -> Content:
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
        wanted = [id_column] if id_column else [key for key, kind in columns.items() if is_text(kind)]
        texts: dict[str, list[Any]] = {key: [] for key in wanted}
        with tempfile.TemporaryFile() as spool:
            for batch in content.iter_batches(1024, columns=[name, *wanted]):
                part = vectors_of(batch.column(name), path, name)
                if width and part.shape[1] != width:
                    raise FeatureError(f"{path}: rows of {name} have {width} and {part.shape[1]} numbers: expected one")
                width = part.shape[1]
                spool.write(part.tobytes())
                for key, own in texts.items():
                    own += batch.column(key).to_pylist()
            spool.flush()
            if not rows or not width:
                raise FeatureError(f"{path} is empty")
            source = np.memmap(spool, np.float32, "r", shape=(rows, width))
    if id_column:
        return Content(source, as_texts(texts[id_column]))
    return Content(source, texts={key: own for key, own in texts.items() if all(isinstance(one, str) for one in own)})


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of any kind."""
    return str(getattr(kind, "storage_type", kind)).partition("<")[0].endswith("list")


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of texts, be they looked up in a dictionary."""
    return "string" in str(getattr(kind, "value_type", kind)) and not is_list(kind)


def vectors_of(column: Any, path: Path, name: str) -> npt.NDArray[np.float32]:
    """A part of a column of lists -> float32 (n, D); lists in lists (maps) become one row of numbers."""
    import pyarrow.compute

    values = getattr(column, "storage", column)  # of an extension type, such as a tensor of fixed shape
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


READERS: dict[str, Callable[[Path], Content]] = {
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
