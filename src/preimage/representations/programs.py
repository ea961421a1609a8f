"""Encoders that are somebody's code: a Python function, `python:package.module:function`, or a program, `command:...`.

Both take images as arrays and may be slow: their features are kept on disk. Neither has gradients.
"""

from __future__ import annotations

import inspect
import io
import shlex
import subprocess
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from preimage.errors import FeatureError, SettingsError
from preimage.interfaces import short_hash
from preimage.networks.weights import file_hash
from preimage.representations.code import import_object, own_files
from preimage.representations.foreign import IMAGE_SIZE, Foreign, Layout, as_tensor, pick
from preimage.representations.modules import required_arguments

Array = npt.NDArray[Any]
LAST_LINES = 12  # of what a program said before it failed


@dataclass(frozen=True, eq=False)
class Program(Foreign):
    """Code that is given images as an array, float32 in [0, 1] or uint8 in 0..255, RGB, all of `image_size` pixels.

    `layout` is that of the images, and of the maps that come back; (N, T, D) is flattened unless `tokens` or
    `class_tokens` says otherwise. `files` are others whose contents decide the features, such as weights that the code
    reads: they count in the fingerprint, as the code does.
    """

    image_size: int = IMAGE_SIZE
    layout: Layout = "nhwc"
    files: tuple[str, ...] = ()

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 1:
            raise SettingsError(f"image_size is a number of pixels, got {self.image_size}")

    @property
    def channels_last(self) -> bool:
        return self.layout == "nhwc"

    @property
    def prefixes(self) -> Sequence[int]:
        told = self.tokens != "auto" or self.class_tokens is not None
        return super().prefixes if told else []  # few arrays of three axes are a transformer's

    def arrays(self, images: Tensor, dtype: str) -> Array:
        """Images (N, 3, H, W) in [0, 1] -> the array that the code is given."""
        images = images.detach().cpu().float()
        images = images.permute(0, 2, 3, 1) if self.channels_last else images
        return np.ascontiguousarray((images * 255).round().numpy() if dtype == "uint8" else images.numpy(), dtype)

    @property
    @abstractmethod
    def code(self) -> list[Path]:
        """The files that the code itself is in, as far as they can be known."""

    @cached_property
    def fingerprint(self) -> str:
        """Of name, settings, and the contents of the code's files and of `files`."""
        for file in self.files:
            if not Path(file).is_file():
                raise SettingsError(f"{self.name}: there is no file {file}, which `files` names")
        digests = [file_hash(file) for file in [*self.code, *map(Path, self.files)]]
        return short_hash([self.version, self.name, self.settings, digests], sort_keys=True)


@dataclass(frozen=True, eq=False)
class PythonFunction(Program):
    """python:PACKAGE.MODULE:NAME: a function of yours from images, a NumPy array, to features; or a class.

    A function gets a batch (N, H, W, 3) and returns N rows, or with `batched=false` one image (H, W, 3) for one row.
    Where it raises, the images are tried one by one and the first that fails is named; with `on_error=zeros` those that
    fail get zeros, once any image has succeeded. A class is a `Representation`: see `OwnRepresentation`.
    """

    dtype: Literal["float32", "uint8"] = "float32"
    batched: bool = True
    on_error: Literal["stop", "zeros"] = "stop"

    door: ClassVar[str] = "python"
    source: ClassVar[str] = "your function"
    advice: ClassVar[str] = "; a function of one image at a time is told by --set batched=false"

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = required_arguments(self.function)
        if len(needed) > 1:
            own = self.address.rpartition(":")[2]
            raise SettingsError(
                f"{self.name} takes {', '.join(needed)}: expected a function of one argument, the images. Name one of "
                f"yours that fills in the others, such as: def encode(images): return {own}(images, ...)"
            )

    @property
    def function(self) -> Callable[[Array], Any]:
        function = import_object(self.address, self.door)
        if not callable(function):
            raise SettingsError(f"{self.name} is {type(function).__name__}, expected a function")
        made: Callable[[Array], Any] = function
        return made

    @property
    def code(self) -> list[Path]:
        """Of the function, which may be defined elsewhere than where it is named, and of what yours imports."""
        module = inspect.getmodule(inspect.unwrap(self.function)) or inspect.getmodule(type(self.function))
        files = own_files(self.address.partition(":")[0])
        if module is not None:
            files |= own_files(module.__name__)
            file = Path(getattr(module, "__file__", None) or "")
            if file.is_file():
                files[module.__name__] = file
        return [file for _, file in sorted(files.items())]

    def chosen(self, given: Any) -> Any:
        return given  # `compute` has chosen: it puts single rows together

    def compute(self, images: Tensor) -> Tensor:
        arrays = self.arrays(images, self.dtype)
        if not self.batched:
            return self.one_by_one(arrays)
        try:
            given = self.function(arrays.copy())
        except Exception as error:
            rows = self.one_by_one(arrays)  # to find out which image it was
            if self.on_error == "zeros":
                return rows
            raise FeatureError(
                f"{self.name} fails on a batch of {len(arrays)}, though on no image alone: {type(error).__name__}: "
                f"{error}. To give it one image at a time: --set batched=false"
            ) from error
        rows = as_tensor(pick(given, self.output, self.name), self.name)
        self.watch.row = tuple(rows.shape[1:])
        return rows

    def bytes_wanted(self, error: Exception) -> str:
        """Advice where code may expect 8-bit images, which takes no other type."""
        return "; bytes instead are given by --set dtype=uint8" if isinstance(error, TypeError) else ""

    def one_by_one(self, arrays: Array) -> Tensor:
        """Rows of single images, zeros for those that fail if that is wanted."""
        rows: list[Tensor] = []
        for index in range(len(arrays)):
            try:
                given = self.function(arrays[index : index + 1].copy() if self.batched else arrays[index].copy())
            except Exception as error:
                if self.on_error == "stop" or self.watch.row is None:
                    way_on = (
                        "" if self.watch.row is None else ". To go on with zeros in its place: --set on_error=zeros"
                    )
                    raise FeatureError(
                        f"{self.name} fails on image {index} of {len(arrays)}, counted from 0: "
                        f"{type(error).__name__}: {error}{way_on}{self.bytes_wanted(error)}"
                    ) from error
                rows.append(torch.zeros(self.watch.row))
                continue
            row = as_tensor(pick(given, self.output, self.name), self.name)
            if self.batched and len(row) != 1:
                raise FeatureError(f"{self.name} gave {len(row)} rows for one image")
            rows.append(row[0] if self.batched else row)
            self.watch.row = tuple(rows[-1].shape)
        shapes = {tuple(row.shape) for row in rows}
        if len(shapes) > 1:
            raise FeatureError(f"{self.name} gave rows of different shapes: {sorted(shapes)}")
        return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class Command(Program):
    """command:"PROGRAM ARGUMENTS": a program that reads images as .npy on stdin and writes features so on stdout.

    Images are uint8 (N, H, W, 3). There is no shell; the program is started once a batch, may take `timeout` seconds,
    and should say what it has to say on stderr. Words that are files count in the fingerprint with their contents.
    """

    timeout: float = 600.0

    door: ClassVar[str] = "command"
    source: ClassVar[str] = "your program"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.timeout > 0:
            raise SettingsError(f"timeout is a positive number of seconds, got {self.timeout}")
        if not self.words:
            raise SettingsError("expected command:PROGRAM ARGUMENTS, in quotes; got an empty command")

    @property
    def words(self) -> list[str]:
        try:
            return shlex.split(self.address)
        except ValueError as error:
            raise SettingsError(f"{self.name} cannot be split into words: {error}") from error

    @property
    def code(self) -> list[Path]:
        return [Path(word) for word in self.words if Path(word).is_file()]

    def compute(self, images: Tensor) -> Array:
        sent = io.BytesIO()
        np.save(sent, self.arrays(images, "uint8"))
        try:
            result = subprocess.run(self.words, input=sent.getvalue(), capture_output=True, timeout=self.timeout)
        except subprocess.TimeoutExpired as error:
            raise FeatureError(
                f"{self.name} took more than {self.timeout:g} seconds for {len(images)} images; "
                f"more are given by --set timeout=SECONDS.{said(error.stderr)}"
            ) from error
        except OSError as error:
            raise SettingsError(f"{self.name} cannot be started: {error.strerror}: {self.words[0]}") from error
        if result.returncode != 0:
            raise FeatureError(f"{self.name} ended with exit code {result.returncode}.{said(result.stderr)}")
        try:
            given: Array = np.load(io.BytesIO(result.stdout), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise FeatureError(
                f"{self.name} should write one .npy array and nothing else to stdout, and wrote "
                f"{result.stdout[:60]!r}: {error}.{said(result.stderr)}"
            ) from error
        return given


def said(stderr: bytes | None) -> str:
    """The last lines of what a program wrote to stderr, if it did."""
    lines = (stderr or b"").decode(errors="replace").strip().splitlines()
    return "\n" + "\n".join(f"  | {line}" for line in lines[-LAST_LINES:]) if lines else " It said nothing on stderr"
