"""Photographs in: folders, files, tar shards, parquet and hub data, all through one decoder. Pictures out: PNG.

Listing is separate from decoding: `find_photos` says what there is, `Photos` reads it at one size. What a training step
sees (order, flips, shifts, scales) is a pure function of (seed, step), whatever process or thread does the work.
"""

from __future__ import annotations

import contextlib
import glob
import io
import itertools
import os
import tarfile
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import psutil
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from preimage.errors import ImageError, PreimageWarning, SettingsError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), RGB
Fit = Literal["crop", "whole"]
Sources = str | Path | Iterable[str | Path]  # of photographs

SOURCES_SHOWN = 2  # of many, the first alone
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif"}
)


# --- one photograph ---------------------------------------------------------------------------------------------------


def decode(content: bytes, name: str, at_least: int | None = None) -> Image.Image:
    """The bytes of a picture file -> an upright RGB image. Raises `ImageError` naming the file.

    EXIF rotation is applied, transparency is laid over white, CMYK, palette, grey and 16-bit become 8-bit RGB. A JPEG
    may be read at a reduced size whose sides are still twice `at_least` pixels or more.
    """
    try:
        image = Image.open(io.BytesIO(content))
        if at_least is not None and image.mode == "RGB":
            image.draft("RGB", (2 * at_least, 2 * at_least))
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        advice = ": HEIC is not supported, export it as JPEG" if name.lower().endswith((".heic", ".heif")) else ""
        raise ImageError(f"{name} is not a picture that can be read{advice}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} claims too many pixels: refused as a decompression bomb") from error
    except Exception as error:  # what Pillow's many decoders raise for damaged files is not written down anywhere
        raise ImageError(f"{name} is damaged: {error}") from error


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any of Pillow's modes -> 8-bit RGB."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow itself would cut off everything above 255
        levels = np.asarray(image).astype(np.float64)
        sixteen_bits = image.mode != "I" or levels.max() > 255  # plain "I" has 32 bits: what it holds must be guessed
        levels = levels / 257 if sixteen_bits else levels
        return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels of unknown range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, size: int, fit: Fit = "crop") -> Pixels:
    """An image -> (size, size, 3): its short side resized and the centre cropped, or the whole of it resized."""
    if fit == "crop":
        square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    else:
        square = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square)


def whole(image: Image.Image, multiple: int) -> Pixels:
    """An image at its own size (H, W, 3), less what is over a multiple of some pixels at the right and the bottom."""
    width, height = (side // multiple * multiple for side in image.size)
    if not width or not height:
        raise ImageError(f"a photograph of {image.width} x {image.height} pixels is smaller than a cell of {multiple}")
    return np.asarray(image)[:height, :width]


def to_tensor(pixels: Pixels | Sequence[Pixels]) -> Tensor:
    """8-bit pictures (N, H, W, 3), or a list of them -> images (N, 3, H, W) in [0, 1], channels last in memory."""
    array = pixels if isinstance(pixels, np.ndarray) else np.stack(pixels)
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(255)


def to_pixels(images: Tensor) -> Pixels:
    """Images (N, 3, H, W) in [0, 1] -> 8-bit pictures (N, H, W, 3)."""
    levels = images.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


def to_picture(image: Tensor) -> Image.Image:
    """One image (3, H, W) in [0, 1] -> an 8-bit picture."""
    return Image.fromarray(to_pixels(image[None])[0])


def save_image(image: Tensor, path: Path) -> None:
    """One image (3, H, W) in [0, 1] -> an 8-bit file; the suffix says the format."""
    to_picture(image).save(path)


def grey(images: Tensor, scale: float = 255.0, rounded: bool = True) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] -> grey (N, H, W) in [0, scale], with the weights of MATLAB's `rgb2gray`.

    `rounded` rounds to the 256 levels of an 8-bit image.
    """
    red, green, blue = images.unbind(1)
    levels = (0.299 * 255) * red + (0.587 * 255) * green + (0.114 * 255) * blue
    if rounded:
        levels = levels.round()
    return levels if scale == 255 else levels * (scale / 255)


# --- finding photographs ----------------------------------------------------------------------------------------------


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

    `named`: the user named this very file, so that it is an error if it cannot be read.
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
    return [str(sources)] if isinstance(sources, str | Path) else [str(source) for source in sources]


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
        seen = f"; passed over {', '.join(passed_over[:5])}" if passed_over else ""
        raise ImageError(f"no photographs in {', '.join(sources)}{seen}")
    return Found(with_unique_ids(photos), passed_over)


def expand(source: str) -> list[str]:
    """A glob -> the sorted paths it names; anything else -> itself."""
    if "://" in source:
        raise ImageError(f"{source} is an address: photographs are read from files here, or by hub:NAME")
    text = str(Path(source).expanduser()) if not source.startswith("hub:") else source
    if text.startswith("hub:") or Path(text).exists() or not glob.has_magic(text):
        return [text]
    matches = sorted(glob.glob(text, recursive=True))
    if not matches:
        raise ImageError(f"nothing matches {text}")
    return matches


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
    if not path.exists():
        raise ImageError(f"there is no file or folder {place}")
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


def with_unique_ids(photos: list[Photo]) -> list[Photo]:
    """Where two sources use one id, put the source before it; a photograph named twice counts once."""
    photos = list({photo.origin: photo for photo in photos}.values())
    names = [photo.id for photo in photos]
    for _ in range(2):  # with its source a name may be another's without
        counts = Counter(names)
        names = [photo.full_name if counts[name] > 1 else name for photo, name in zip(photos, names, strict=True)]
    return [photo if name == photo.id else replace(photo, id=name) for photo, name in zip(photos, names, strict=True)]  # type: ignore[type-var]


# --- reading photographs ----------------------------------------------------------------------------------------------


class Photos:
    """Photographs decoded to one size, `image_size` x `image_size`, kept in memory where they fit.

    What is no picture or cannot be read is left out when `load` meets it and told in `left_out` (name -> why); a file
    that the user named raises `ImageError` instead, and so does any without `load`.
    """

    def __init__(self, photos: Sequence[Photo], image_size: int, fit: Fit = "crop") -> None:
        self.photos = list(photos)
        self.image_size = image_size
        self.fit: Fit = fit
        self.left_out: dict[str, str] = {}
        self._readable = False  # whether each has been decoded once
        self._memory: npt.NDArray[np.uint8] | None = None  # (M, S, S, 3), shared with every subset
        self._rows = np.arange(len(self.photos))  # of the photographs, in memory

    @classmethod
    def open(cls, sources: Sources, image_size: int, fit: Fit = "crop") -> Photos:
        """The photographs of folders, files, globs, shards ...: see `find_photos`."""
        found = find_photos(sources)
        photos = cls(found.photos, image_size, fit)
        photos.left_out = found.left_out
        return photos

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def ids(self) -> list[str]:
        return [photo.id for photo in self.photos]

    @property
    def places(self) -> list[tuple[str, int]]:
        """(file, where in it) of each: the same for the same photograph, whatever the path to its file."""
        origins = [photo.origin for photo in self.photos]
        files = {file: str(Path(file).resolve()) for file in {file for file, _ in origins}}  # a shard holds thousands
        return [(files[file], where) for file, where in origins]

    def among(self, others: Photos) -> list[bool]:
        """Of each photograph, whether it is one of `others` too, by its place."""
        known = set(others.places)
        return [place in known for place in self.places]

    @property
    def labels(self) -> list[int | None]:
        return [photo.label for photo in self.photos]

    @property
    def fingerprint(self) -> str:
        """Which photographs, in which order, at which size; the pixels themselves are not read."""
        content = "\n".join([f"{self.image_size} {self.fit}", *self.ids])
        return f"{zlib.crc32(content.encode(errors='surrogateescape')):08x}-{len(self)}"

    def pixels(self, index: int) -> Pixels:
        """One photograph (image_size, image_size, 3)."""
        if self._memory is not None:
            picture: Pixels = self._memory[self._rows[index]]
            return picture
        photo = self.photos[index]
        image = decode(photo.read(), photo.id, at_least=self.image_size)
        return resize(image, self.image_size, self.fit)

    def load(self, memory_limit: int | None = None) -> Photos:
        """Decode all once, keep them if they fit in `memory_limit` bytes (by default a third of what there is)."""
        if self._memory is not None:
            return self
        if not self.photos:
            raise ImageError("there are no photographs to read")
        if memory_limit is None:
            memory_limit = total_memory() // 3
        fits = len(self) * self.image_size**2 * 3 <= memory_limit
        if self._readable and not fits:
            return self
        memory = np.empty((len(self), self.image_size, self.image_size, 3), np.uint8) if fits else None

        def read(index: int) -> str | None:
            try:
                picture = self.pixels(index)
            except ImageError as error:
                if self.photos[index].named:
                    raise
                return str(error)
            if memory is not None:
                memory[index] = picture
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            problems = list(pool.map(read, range(len(self))))
        good = [index for index, problem in enumerate(problems) if problem is None]
        self.left_out |= {self.photos[i].id: problem for i, problem in enumerate(problems) if problem is not None}
        if not good:
            raise ImageError(f"none of the {len(self)} photographs can be read; the first: {problems[0]}")
        self.photos, self._rows = [self.photos[index] for index in good], np.array(good)
        self._memory, self._readable = memory, True
        return self

    def on_gpu(self, device: torch.device) -> Tensor | None:
        """All pixels (N, S, S, 3) in the memory of a GPU; None where they are not loaded or would take half of it."""
        torch.cuda.empty_cache()  # or what another training, or the trial of this one, has left would not be free
        if self._memory is None or len(self) * self._memory[0].nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return None
        return torch.from_numpy(self._memory[self._rows]).to(device)

    def subset(self, indices: Iterable[int]) -> Photos:
        """Some of the photographs, in the given order; the pixels in memory are the same."""
        chosen = list(indices)
        part = Photos([self.photos[index] for index in chosen], self.image_size, self.fit)
        part.left_out = dict(self.left_out)
        part._readable = self._readable
        if self._memory is not None:
            part._memory, part._rows = self._memory, self._rows[chosen]
        return part

    def first(self, count: int | None) -> Photos:
        """So many photographs from the beginning; all if there are no more, or for None."""
        return self.subset(range(len(self))[:count])

    def images(self, indices: Sequence[int]) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] of some photographs."""
        if self._memory is not None:
            return to_tensor(self._memory[self._rows[indices]])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return to_tensor(list(pool.map(self.pixels, indices)))

    def batches(self, batch_size: int = 32) -> Iterator[tuple[list[str], Tensor]]:
        """(ids, images (N, 3, S, S) in [0, 1]) in order; the last batch may be smaller."""
        ids = self.ids
        for start in range(0, len(self), batch_size):
            yield ids[start : start + batch_size], self.images(range(start, min(start + batch_size, len(self))))


LEFT_OUT_TOLD = 5  # names in a warning


def warn_left_out(left_out: Mapping[str, str]) -> None:
    """Warn of photographs and other files that were left out (name -> why); of the same ones once."""
    if left_out:
        told = "; ".join(f"{name}: {why}" for name, why in islice(left_out.items(), LEFT_OUT_TOLD))
        more = f"; and {len(left_out) - LEFT_OUT_TOLD} more" if len(left_out) > LEFT_OUT_TOLD else ""
        warnings.warn(f"left out {told}{more}", PreimageWarning, stacklevel=1)  # here: Python repeats none of one place


CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroups v2, v1


def total_memory() -> int:
    """Bytes of memory: the machine's, or what a container may use of it."""
    limits = [int(psutil.virtual_memory().total)]
    for file in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is no container; "max": it has no limit
            limits.append(int(Path(file).read_text()))
    return min(limits)


# --- what a training step sees ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training photograph: mirrored half the time, and a square part of it brought to full size.

    The part's side is between `min_scale` and 1 times the photograph's; shift and scale also break the phase of the
    JPEG blocks, which in photographs of 256 pixels coincide with HOG's cells. With `variants` every photograph has only
    so many versions, which recur: their features are then computed once and kept on disk. 0 makes new ones every time.
    """

    flip: bool = True
    min_scale: float = 0.75
    variants: int = 0

    def __post_init__(self) -> None:
        if self.variants < 0:
            raise SettingsError(f"variants is not negative, got {self.variants}")
        if not 0 < self.min_scale <= 1:
            raise SettingsError(f"min_scale is in (0, 1], got {self.min_scale}")

    @property
    def changes_pictures(self) -> bool:
        return self.flip or self.min_scale < 1

    @property
    def recurs(self) -> bool:
        """Whether what is seen of a photograph in one pass comes again in others."""
        return self.variants > 0 or self.min_scale == 1

    def view(self, size: int, generator: np.random.Generator) -> View:
        """What is seen of a photograph of `size` pixels; draws from `generator` whether or not it uses the draws."""
        scale, left, top, mirrored = generator.random(4)
        side = size * (self.min_scale + (1 - self.min_scale) * scale)
        return View(left * (size - side), top * (size - side), side, bool(self.flip and mirrored < 0.5))


@dataclass(frozen=True)
class View:
    """A square part of a photograph, mirrored before it is cut out or not: its corner and its side, in pixels."""

    x: float
    y: float
    side: float
    mirrored: bool

    def of(self, picture: Pixels) -> Pixels:
        """The part of one photograph (S, S, 3), brought to the same size."""
        size = picture.shape[0]
        picture = picture[:, ::-1] if self.mirrored else picture
        if self.side == size:
            return picture
        box = (self.x, self.y, self.x + self.side, self.y + self.side)
        part = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(part)


def views_of(pictures: Tensor, views: Sequence[View]) -> Tensor:
    """8-bit photographs (N, S, S, 3), one view of each -> images (N, 3, S, S) in [0, 1], on the same device.

    The same as `View.of`, but for single levels of 255: resampling is a matrix product along either side, rounded to 8
    bits after each, as Pillow does it.
    """
    size, device = pictures.shape[1], pictures.device
    x, y, side, mirrored = torch.tensor([astuple(view) for view in views], dtype=torch.float64).T.to(device)
    across, down = bicubic(x, side, size), bicubic(y, side, size)
    across = torch.where(mirrored[:, None, None] > 0, across.flip(2), across)
    levels = pictures.permute(0, 3, 1, 2).float()
    levels = (levels @ across[:, None].mT).round_().clamp_(0, 255)
    levels = (down[:, None] @ levels).round_().clamp_(0, 255)
    return levels.div_(255).contiguous(memory_format=torch.channels_last)


def bicubic(start: Tensor, side: Tensor, size: int) -> Tensor:
    """Weights (N, size, size) that bring the pixels from `start` to `start + side`, both (N,), to `size` pixels.

    Keys's kernel with a = -0.5, Pillow's `BICUBIC`. Parts are enlarged, never reduced, so that it keeps its width.
    """
    places = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    centres = start[:, None] + places * side[:, None] / size
    far = (places - centres[:, :, None]).float().abs()
    near = ((1.5 * far - 2.5) * far * far + 1) * (far < 1)
    weights = near + (((-0.5 * far + 2.5) * far - 4) * far + 2) * ((far >= 1) & (far < 2))
    return weights / weights.sum(dim=2, keepdim=True)


@dataclass(frozen=True)
class TrainingStream:
    """Batches of training photographs by step. Every epoch is a new permutation; batches run on across epochs.

    `rank` of `num_ranks` processes gets its contiguous share of every global batch, so that the photographs of a step
    do not depend on how many processes there are.
    """

    photos: Photos
    batch_size: int
    seed: int
    augmentation: Augmentation = Augmentation()
    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.num_ranks:
            raise SettingsError(f"batch_size={self.batch_size} cannot be shared evenly by {self.num_ranks} processes")

    def members(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index of the photograph) of every picture in this rank's share of a step."""
        share = self.batch_size // self.num_ranks
        first = step * self.batch_size + self.rank * share
        places = [divmod(place, len(self.photos)) for place in range(first, first + share)]
        return [(epoch, int(epoch_order(self.seed, epoch, len(self.photos))[place])) for epoch, place in places]

    def ids(self, step: int) -> list[str]:
        """The photographs of this rank's share of a step."""
        return [self.photos.photos[index].id for _, index in self.members(step)]

    def version(self, epoch: int) -> int:
        """Which version of a photograph an epoch shows."""
        return epoch % self.augmentation.variants if self.augmentation.variants else epoch

    def versions(self, step: int) -> list[str]:
        """The versions of photographs in this rank's share of a step: alike where the picture is."""
        return [f"{self.version(epoch)}:{index}" for epoch, index in self.members(step)]

    def view(self, epoch: int, index: int) -> View:
        """What an epoch shows of a photograph, a pure function of (seed, epoch, photograph)."""
        photo_id = zlib.crc32(self.photos.photos[index].id.encode(errors="surrogateescape"))
        generator = np.random.default_rng((self.seed, self.version(epoch), photo_id))
        return self.augmentation.view(self.photos.image_size, generator)

    def picture(self, epoch: int, index: int) -> Pixels:
        """One augmented photograph."""
        return self.view(epoch, index).of(self.photos.pixels(index))

    def batches(self, first_step: int, num_workers: int | None = None, ahead: int = 3) -> Iterator[Tensor]:
        """Images (N, 3, S, S) in [0, 1] from `first_step` on, without end; threads work `ahead` steps in advance."""
        with ThreadPoolExecutor(num_workers or os.cpu_count(), thread_name_prefix="photos") as pool:
            for pictures in in_advance(pool, partial(self.decoding, pool), first_step, ahead):
                yield to_tensor([picture.result() for picture in pictures])

    def decoding(self, pool: ThreadPoolExecutor, step: int) -> list[Future[Pixels]]:
        """The pictures of this rank's share of a step, as a pool has begun to make them."""
        return [pool.submit(self.picture, *member) for member in self.members(step)]

    def batches_on(self, device: torch.device, first_step: int, ahead: int = 3) -> Iterator[Tensor]:
        """As `batches`, on a device: from photographs in its memory, augmented there, where it is a GPU with room."""
        pictures = self.photos.on_gpu(device) if device.type == "cuda" else None
        if pictures is None:
            yield from (images.to(device, non_blocking=True) for images in self.batches(first_step, ahead=ahead))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="views") as pool:
            for future in in_advance(pool, lambda step: pool.submit(self.views, step), first_step, ahead):
                indices, views = future.result()
                yield views_of(pictures[torch.tensor(indices).to(device)], views)

    def views(self, step: int) -> tuple[list[int], list[View]]:
        """Which photographs this rank sees in a step, and what of each."""
        members = self.members(step)
        return [index for _, index in members], [self.view(*member) for member in members]


Work = TypeVar("Work")


def in_advance(pool: ThreadPoolExecutor, begin: Callable[[int], Work], first_step: int, ahead: int) -> Iterator[Work]:
    """The work that a pool was given for each step from `first_step` on, begun `ahead` steps before it is asked for."""
    queue: deque[Work] = deque()
    try:
        for step in itertools.count(first_step):
            queue.append(begin(step))
            if len(queue) == ahead:
                yield queue.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_photos: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the photographs."""
    return np.random.default_rng((seed, epoch)).permutation(num_photos)
