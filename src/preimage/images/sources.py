"""Finding photographs: folders, files, globs, tar shards, parquet files, hub data; what there is, not yet decoded."""

from __future__ import annotations

import glob
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from preimage.errors import ImageError
from preimage.images.pictures import SUFFIXES
from preimage.words import listed

Sources = str | Path | Iterable[str | Path]  # of photographs
SOURCES_SHOWN = 2  # of many, the first alone


class Photo(Protocol):
    """A photograph that has not been decoded: `id` is unique in its collection, `label` its class where known.

    `full_name` is the id with the place it comes from; `origin`, the place and where in it, is the same only for the
    same photograph.
    """

    @property
    def id(self) -> str: ...
    @property
    def label(self) -> int | None: ...
    @property
    def named(self) -> bool: ...
    @property
    def full_name(self) -> str: ...
    @property
    def origin(self) -> tuple[str, int]: ...
    def read(self) -> bytes: ...


@dataclass(frozen=True)
class FilePhoto:
    """A file, or (with `length`) a member of an uncompressed tar shard: `length` bytes from `offset`.

    `named`: the user named this very file, not a folder or a pattern; alone, it is an error if it cannot be read.
    """

    id: str
    path: Path
    label: int | None = None
    offset: int = 0
    length: int = -1
    named: bool = False

    @property
    def full_name(self) -> str:
        """Its path; for a member of a shard, that of the shard and the member's name."""
        return self.path.as_posix() if self.length == -1 else f"{self.path.as_posix()}/{self.id}"

    @property
    def origin(self) -> tuple[str, int]:
        return str(self.path.absolute()), self.offset

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise ImageError(f"cannot read {self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class RowPhoto:
    """A row of a `datasets` table, read from `place`, whose image column is left undecoded."""

    id: str
    place: str
    table: Any
    row: int
    column: str
    label: int | None = None
    named: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.place}:{self.row:07d}"

    @property
    def origin(self) -> tuple[str, int]:
        return self.place if self.place.startswith("hub:") else str(Path(self.place).absolute()), self.row

    def read(self) -> bytes:
        cell = self.table[self.row][self.column] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path") is None:
            raise ImageError(f"{self.id} holds no picture")
        return FilePhoto(self.id, Path(cell["path"])).read()


@dataclass(frozen=True)
class Found:
    """What a search turned up: photographs in a fixed order, and the names of files that are no pictures."""

    photos: list[Photo]
    passed_over: list[str]

    @property
    def left_out(self) -> dict[str, str]:
        """What was passed over, and why."""
        return dict.fromkeys(self.passed_over, "not a picture")


def source_list(sources: Sources) -> list[str]:
    """Where photographs come from, as often as one likes to read it: `Path.glob` can be read once."""
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    for source in given:
        if not isinstance(source, str | Path):
            raise ImageError(f"photographs are named by where they lie, texts or paths, not by {type(source).__name__}")
    return list(map(str, given))


def absolute(sources: Sources) -> list[str]:
    """The same places, from whatever folder one looks."""
    return [
        source if source.startswith("hub:") or "://" in source else str(Path(source).expanduser().absolute())
        for source in source_list(sources)
    ]


def sources_in_words(sources: Sequence[str]) -> str:
    """Places for people: those below the folder one is in from there, and of many the first."""
    here = Path.cwd()
    near = [str(Path(one).relative_to(here)) if Path(one).is_relative_to(here) else one for one in sources]
    return ", ".join(near) if len(near) <= SOURCES_SHOWN else f"{near[0]} and {len(near) - 1} more"


def check_places(sources: Sources) -> None:
    """Raise `ImageError` for a place that is not there: before the work, and without looking into any."""
    for source in source_list(sources):
        expand(source)


def find_photos(sources: Sources) -> Found:
    """Photographs from folders, files, globs, tar shards, parquet files, or `hub:NAME[:SPLIT]` (downloads).

    Of parquet files a copy is kept: see `table_photos`.
    Raises `ImageError` where a source is missing or holds no photograph at all.
    """
    sources = source_list(sources)
    photos: list[Photo] = []
    passed_over: list[str] = []
    for source in sources:
        places = expand(source)
        for place in places:
            found = find_in(place)
            photos += [replace(p, named=p.named and places == [place]) for p in found.photos]  # type: ignore[type-var]
            passed_over += found.passed_over
    if not photos:
        seen = f"; passed over {listed(list(passed_over))}" if passed_over else ""
        raise ImageError(f"no photographs in {', '.join(sources)}{seen}")
    return Found(with_unique_ids(photos), passed_over)


def expand(source: str) -> list[str]:
    """A glob -> the sorted paths it names; anything else -> itself. Raises `ImageError` where nothing is there."""
    if "://" in source:
        raise ImageError(f"{source} is an address: photographs are read from files here, or by hub:NAME")
    if source.startswith("hub:"):
        return [source]
    text = str(Path(source).expanduser())
    places = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and not Path(text).exists() else [text]
    if not places:
        raise ImageError(f"nothing matches {text}")
    for place in places:
        if not Path(place).exists():  # a link may lead nowhere
            raise ImageError(f"there is no file or folder {place}")
    return places


def find_in(place: str) -> Found:
    """One folder, file, shard, parquet file or hub name."""
    path = Path(place)
    if place.startswith("hub:") or path.suffix == ".parquet":
        return Found(list(table_photos(place)), [])
    if path.is_dir():
        files = files_under(path)
        pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
        own: list[Photo] = [FilePhoto(p.relative_to(path).as_posix(), p) for p in pictures]
        shards = [shard_photos(p) for p in files if p.suffix.lower() == ".tar"]
        others = [str(p) for p in files if p.suffix.lower() not in SUFFIXES | {".tar"}]
        return Found(
            own + [photo for shard in shards for photo in shard.photos],
            others + [name for shard in shards for name in shard.passed_over],
        )
    if path.suffix.lower() == ".tar":
        return shard_photos(path)
    if path.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
        raise ImageError(f"{place} is a compressed archive: unpack it to a plain .tar first")
    return Found([FilePhoto(path.name, path, named=True)], [])


def files_under(folder: Path) -> list[Path]:
    """All files in a folder that are not hidden, sorted; folders behind links too, each once."""
    files: list[Path] = []
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            files += [path for name in names if not name.startswith(".") and (path := Path(place, name)).is_file()]
        seen.add(real)
    return sorted(files)


def unreadable(error: OSError) -> None:
    raise ImageError(f"cannot look into {error.filename}: {error.strerror}") from error


def shard_photos(path: Path) -> Found:
    """The photographs of an uncompressed WebDataset shard, each labelled by its `.cls` neighbour if it has one.

    What belongs to a photograph is none: `0001.seg.png` beside `0001.jpg`.
    """
    pictures: dict[str, FilePhoto] = {}  # by the member's name: of two members of one name, tar means the last
    labels: dict[str, int] = {}
    passed_over = []
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                key, suffix = member.name.removesuffix(Path(member.name).suffix), Path(member.name).suffix.lower()
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                if suffix in SUFFIXES:
                    pictures[member.name] = FilePhoto(key, path, None, member.offset_data, member.size)
                elif suffix == ".cls":
                    content = shard.extractfile(member)
                    text = content.read().decode(errors="replace").strip() if content else ""
                    if text.isdecimal():
                        labels[key] = int(text)
                elif suffix not in {".json", ".txt"}:
                    passed_over.append(f"{path}:{member.name}")
            end = shard.offset
        with path.open("rb") as file:
            file.seek(end)
            if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError(f"what begins at byte {end} is no member of an archive")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ImageError(f"{path} is not an uncompressed tar shard, or is damaged: {error}") from error
    keys = {photo.id for photo in pictures.values()}
    for name, photo in list(pictures.items()):
        folder, slash, last = photo.id.rpartition("/")
        if "." in last and folder + slash + last.partition(".")[0] in keys:
            del pictures[name]
            passed_over.append(f"{path}:{name}")
    check_keys(path, {name: photo.id for name, photo in pictures.items()})
    return Found([replace(p, label=labels.get(p.id)) for p in pictures.values()], passed_over)


def check_keys(path: Path, keys: dict[str, str]) -> None:
    """Raise `ImageError` where two pictures of a shard have one key: which is the photograph, which its mask?"""
    names = {key: name for name, key in keys.items()}
    for name, key in keys.items():
        if names[key] != name:
            more = len(keys) - len(names)
            raise ImageError(
                f"{path} holds two pictures called {key}: {name} and {names[key]} ({more} such in all); write a shard "
                "without the one that is not the photograph, or give them different names"
            )


def table_photos(place: str) -> Iterator[RowPhoto]:
    """The photographs of a parquet file or of a data set on the Hugging Face hub, undecoded.

    `datasets` keeps a copy of it all as Arrow, from which single rows are read in any order; parquet has none of these.
    The copy is as large as the file and lies in ~/.cache/huggingface/datasets, or where HF_DATASETS_CACHE says.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImageError(f"reading {place} needs datasets: pip install 'preimage[data]'") from error
    try:
        if place.startswith("hub:"):
            name, _, split = place.removeprefix("hub:").partition(":")
            table = datasets.load_dataset(name, split=split or "train")
        else:
            table = datasets.Dataset.from_parquet(place)
    except Exception as error:  # pyarrow, datasets and the hub raise many kinds
        kind = "from the hub" if place.startswith("hub:") else "as parquet"
        raise ImageError(f"{place} cannot be read {kind}: {error}") from error
    column = image_column(table.features, place)
    table = table.cast_column(column, datasets.Image(decode=False))
    labels = table["label"][:] if "label" in table.column_names else [None] * len(table)  # all at once
    table = table.select_columns([column])  # the others, such as masks, would be decoded with every row
    for row in range(len(table)):
        label = labels[row] if isinstance(labels[row], int) else None
        yield RowPhoto(f"{Path(place).name}:{row:07d}", place, table, row, column, label)


def image_column(features: Any, place: str) -> str:
    """The column that holds pictures: by its type, else one called `image` or `img`."""
    for name, kind in features.items():
        if type(kind).__name__ == "Image":
            return str(name)
    for name in ("image", "img", "jpg", "png"):
        if name in features:
            return name
    raise ImageError(f"{place} has no image column; its columns are {', '.join(features)}")


def places_of(photos: Sequence[Photo]) -> list[tuple[str, int]]:
    """(file, where in it) of each: the same for the same photograph, whatever the path to its file."""
    origins = [photo.origin for photo in photos]
    files = {file: str(Path(file).resolve()) for file in {file for file, _ in origins}}  # a shard holds thousands
    return [(files[file], where) for file, where in origins]


def with_unique_ids(photos: list[Photo]) -> list[Photo]:
    """Where two sources use one id, put the source before it; a photograph named twice counts once."""
    photos = list(dict(zip(places_of(photos), photos, strict=True)).values())
    names = [photo.id for photo in photos]
    for _ in range(2):  # with its source a name may be another's without
        counts = Counter(names)
        names = [photo.full_name if counts[name] > 1 else name for photo, name in zip(photos, names, strict=True)]
    return [photo if name == photo.id else replace(photo, id=name) for photo, name in zip(photos, names, strict=True)]  # type: ignore[type-var]
