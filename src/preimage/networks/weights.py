"""Reading published weights: nothing is unpickled, nothing is downloaded unless `fetch` is called."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from preimage.errors import UnknownNameError, WeightsError
from preimage.interfaces import ignore
from preimage.networks.caffemodel import read_caffemodel
from preimage.words import listed, shape_in_words

FOLDER = Path.home() / ".cache" / "preimage" / "weights"
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts put a state dict within a checkpoint


# --- published files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A file that its authors publish: where, how large, and the beginning of its hash as they state it."""

    url: str
    megabytes: int
    algorithm: str
    digest: str
    licence: str

    @property
    def file(self) -> Path:
        """Where it lies once it has been fetched."""
        return FOLDER / self.url.rpartition("/")[2]


PUBLISHED: dict[str, Published] = {
    "alexnet": Published(
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", 233, "sha256", "7be5be79", "BSD-3-Clause"
    ),
    "bvlc_alexnet": Published(
        "http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel", 233, "sha1",
        "9116a64c0fbe4459d18f4bb6b56d647b63920377", "unrestricted use",
    ),
    "caffenet": Published(
        "http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel", 233, "sha1",
        "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46", "unrestricted use",
    ),
}  # fmt: skip


def fetch(name: str, on_progress: Callable[[int, int], None] = ignore) -> Path:
    """Download a published file unless it is there whole, going on with what was left of an interrupted download.

    `on_progress` is told the bytes there are and the bytes there will be.
    """
    if name not in PUBLISHED:
        raise UnknownNameError("published weights file", name, PUBLISHED)
    published = PUBLISHED[name]
    if not (published.file.exists() and file_hash(published.file, published.algorithm).startswith(published.digest)):
        published.file.parent.mkdir(parents=True, exist_ok=True)
        part = published.file.with_name(published.file.name + ".part")
        try:
            download(published.url, part, on_progress)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise WeightsError(f"cannot download {published.url}: {error}; run the command again to go on") from error
        try:
            check_hash(part, published.digest, published.algorithm)
        except WeightsError:
            part.unlink()
            raise
        part.replace(published.file)
    return published.file


def download(url: str, part: Path, on_progress: Callable[[int, int], None]) -> None:
    """Bring a file to the disk, from where an earlier attempt stopped if the server can."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        total = have + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(1 << 20):
                file.write(chunk)
                have += len(chunk)
                on_progress(have, total)
    if have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


Stamp = tuple[tuple[Path, int, int], ...]  # files, when they were written last, and bytes; 0 for one that is not there


def stamp_of(files: Iterable[Path]) -> Stamp:
    """What tells one state of files from another, as a key under which what was read of them is kept."""
    states = [(file, file.stat() if file.exists() else None) for file in files]
    return tuple((file, state.st_mtime_ns if state else 0, state.st_size if state else 0) for file, state in states)


def file_hash(file: Path, algorithm: str = "sha256") -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def check_hash(file: Path, expected: str, algorithm: str = "sha256") -> None:
    """Raise `WeightsError` unless the file's hash begins as expected."""
    found = file_hash(file, algorithm)
    if not found.startswith(expected):
        raise WeightsError(f"{file} is damaged or another file: its {algorithm} is {found}, expected {expected}")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_weights(file: Path) -> dict[str, Tensor]:
    """The named tensors of a .pth, .safetensors, .npz or .caffemodel file; raises `WeightsError`.

    `module.` before all names, which DistributedDataParallel puts there, is dropped.
    """
    readers = {
        ".pth": read_state_dict, ".pt": read_state_dict, ".safetensors": read_safetensors, ".npz": read_npz,
        ".caffemodel": read_caffemodel,
    }  # fmt: skip
    if not file.is_file():
        raise WeightsError(f"there is no weights file {file}")
    if file.suffix not in readers:
        raise WeightsError(f"{file}: weights are read from {', '.join(readers)} files")
    state = readers[file.suffix](file)
    for name, value in state.items():
        if not is_dense(value):
            raise WeightsError(
                f"{file}: expected dense real numbers, got {name} as {describe(value)}; convert it first"
            )
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """A PyTorch state dict, also one within a checkpoint, without running the code a pickle could hold."""
    try:
        content = load_without_code(file)
    except PickledCodeError as error:
        raise WeightsError(
            f"{file} cannot be read as a PyTorch state dict: {error}. Fetch it again, or save another by "
            "torch.save(module.state_dict(), FILE)"
        ) from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{file} is no state dict: expected tensors by name, got {describe(content)}; save it by "
            "torch.save(module.state_dict(), FILE)"
        )
    if any(isinstance(value, Mapping) for value in content.values()):  # a checkpoint of several networks
        content = tensors_in(content)
    strange = [
        str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strange:
        raise WeightsError(
            f"{file} is no state dict of tensors: it holds {listed(strange)}; save one by "
            "torch.save(module.state_dict(), FILE)"
        )
    return dict(content)


class PickledCodeError(ValueError):
    """Why a file that torch.save wrote cannot be read safely, in a few words."""


def load_without_code(file: Path, mapped: bool = False) -> Any:
    """What torch.save wrote, tensors left on the disk if `mapped`; raises `PickledCodeError`."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # in which scripts keep their arguments
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(file))
    except Exception as error:  # torch raises many kinds, from the zip reader to the unpickler
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {code[1]}, which is code" if code else f"{type(error).__name__}: {error}".partition("\n")[0]
        raise PickledCodeError(reason) from error


def tensors_in(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Of dictionaries within dictionaries, the tensors: `student.conv1.weight`."""
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors_in(value).items()}
        elif isinstance(value, Tensor):
            found[str(name)] = value
    return found


def is_dense(value: Tensor) -> bool:
    """Whether a tensor holds real numbers, each in its place."""
    return value.layout == torch.strided and not (value.is_complex() or value.is_quantized or value.is_meta)


def describe(value: Any) -> str:
    """What a file holds, in a few words."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    size = shape_in_words(value.shape) or "one number"
    return f"a tensor of {size}, {str(value.dtype).removeprefix('torch.')}, {value.device.type}, {value.layout}"


def read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} cannot be read as safetensors: {error}. Fetch it again") from error


def read_npz(file: Path) -> dict[str, Tensor]:
    """Arrays by name, as float32; quantised ones are decoded:

    `x.index4` and `x.codebook`: two 4-bit indices a byte, the lower for the even input, into each output's codebook.
    `x.pq_index` and `x.pq_codebook`: for each group of inputs a codebook of vectors (product quantisation).
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files if name != "_meta"}
    except Exception as error:  # numpy raises many kinds, from the zip reader to the tokenizer of headers
        raise WeightsError(
            f"{file} cannot be read as .npz: {error}. Fetch it again, or save arrays by np.savez(FILE, **arrays)"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            found = array.dtype if isinstance(array, np.ndarray) else "something else"
            raise WeightsError(f"{file}: expected arrays of real numbers, got {name} as {found}")
    weights = {}
    for name in arrays:
        layer, _, kind = name.rpartition(".")
        if kind in ("codebook", "pq_codebook"):
            continue
        try:
            array = decoded(layer, kind, arrays)
        except (LookupError, ValueError, TypeError) as error:
            raise WeightsError(
                f"{file} is damaged, fetch it again: {name} holds no indices into a codebook of {layer} ({error})"
            ) from error
        kind = "weight" if kind in ("index4", "pq_index") else kind
        weights[f"{layer}.{kind}" if layer else kind] = torch.from_numpy(array.astype(np.float32))
    return weights


def decoded(layer: str, kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """An array as it is, or what indices and codebook of a layer stand for."""
    array = arrays[f"{layer}.{kind}" if layer else kind]
    if kind == "index4":
        index = np.stack([array & 15, array >> 4], axis=-1).reshape(len(array), -1)
        return np.take_along_axis(arrays[f"{layer}.codebook"], index.astype(np.int64), axis=1)
    if kind == "pq_index":
        groups = np.arange(array.shape[1])
        rows: npt.NDArray[Any] = arrays[f"{layer}.pq_codebook"][groups, array].reshape(len(array), -1)
        return rows
    return array


def load_into(network: nn.Module, state: dict[str, Tensor], file: Path | str) -> None:
    """Fill a network; raises `WeightsError` naming what is missing, left over or of another shape."""
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not part of {type(network).__name__}" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        raise WeightsError(f"{file} holds another architecture: {listed(problems, '; ')}")
    network.load_state_dict(state)


def fingerprint(network: nn.Module) -> str:
    """A hash of all parameters and statistics, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(as_bytes(value))
    return digest.hexdigest()[:16]


def values_hash(value: Tensor) -> str:
    """A hash of a tensor's type and values, wherever it is."""
    return hashlib.sha256(str(value.dtype).encode() + as_bytes(value)).hexdigest()


PLAIN = (str, bytes, int, float, complex, NoneType, torch.dtype)


def as_bytes(value: Any) -> bytes:
    """What is hashed of an entry of a state dict: quantised modules have tuples and numbers too."""
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, tuple | list):
        return b"".join(map(as_bytes, value))
    if not isinstance(value, Tensor):  # of other objects Python's words hold an address
        return (repr(value) if isinstance(value, PLAIN) else type(value).__qualname__).encode()
    dense: Tensor = value.dequantize() if value.is_quantized else value
    return dense.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
