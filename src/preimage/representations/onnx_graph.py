"""ONNX graphs as representations, run by onnxruntime: `onnx:model.onnx`. Without gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from preimage.errors import PreimageError, SettingsError, UnknownNameError, WeightsError
from preimage.interfaces import short_hash
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.protobuf import Messages, message_class
from preimage.networks.weights import Stamp, file_hash, stamp_of
from preimage.representations.foreign import IMAGE_SIZE, Fed, attempt
from preimage.words import shape_in_words

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


NEEDS_ONNXRUNTIME = "ONNX graphs need onnxruntime: pip install 'preimage[onnx]'"

# Of onnx.proto what leads to tensors, and of these where they lie if not in the file itself.
MESSAGES: Messages = {
    "Model": (("graph", 7, "Graph", False), ("functions", 25, "Function", True)),
    "Graph": (("node", 1, "Node", True), ("initializer", 5, "Tensor", True), ("sparse", 15, "Sparse", True)),
    "Function": (("node", 7, "Node", True),),
    "Node": (("attribute", 5, "Attribute", True),),
    "Attribute": (
        ("t", 5, "Tensor", False), ("g", 6, "Graph", False), ("tensors", 10, "Tensor", True),
        ("graphs", 11, "Graph", True), ("sparse", 22, "Sparse", False), ("sparses", 23, "Sparse", True),
    ),
    "Sparse": (("values", 1, "Tensor", False), ("indices", 2, "Tensor", False)),
    "Tensor": (("external_data", 13, "Entry", True),),
    "Entry": (("key", 1, "string", False), ("value", 2, "string", False)),
}  # fmt: skip


class Graph(NamedTuple):
    """A graph ready to run: onnxruntime's session, its input's name, type and shape, its outputs, its files' hash."""

    session: Any
    input: str
    dtype: npt.DTypeLike
    shape: tuple[int | None, ...]  # None where it may be anything
    outputs: list[str]
    digest: str


@dataclass(frozen=True, eq=False)
class OnnxGraph(Fed):
    """onnx:FILE: an output of an ONNX graph; say how it is fed by --set mean=..., deviation=..., white=..., bgr=true.

    Where the graph fixes the images' size, that is used; where it fixes how many it takes, it gets so many at a time,
    the last one repeated to fill up. `layout` is found from the axis of length 3, and is also that of its maps. Values
    for an input of 8 bits are rounded; white is then 255. `output` is one of the graph's outputs.
    """

    layout: Literal["", "nchw", "nhwc"] = ""

    door: ClassVar[str] = "onnx"
    source: ClassVar[str] = "onnxruntime"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wanted not in self.graph.outputs:
            raise UnknownNameError(f"output of {self.address}", self.wanted, self.graph.outputs)
        if self.output is None and len(self.graph.outputs) > 1:
            raise SettingsError(
                f"{self.name} has several outputs: {', '.join(self.graph.outputs)}. Choose one by --set output=NAME"
            )
        fixed = self.fixed_size
        if fixed not in (None, self.image_size):
            raise SettingsError(f"{self.name} takes images of {fixed} pixels, not of image_size={self.image_size}")

    @cached_property
    def graph(self) -> Graph:
        file = Path(self.address).expanduser()
        if not file.is_file():
            raise WeightsError(f"there is no ONNX file {file}; where it lies now is told by --set address=FILE")
        own = file.stat().st_mtime_ns
        return load_graph(file, stamp_of((file, *external_files(file, own))))

    @property
    def wanted(self) -> str:
        """The output that is read; a name that is a number comes as one from the command line."""
        return self.graph.outputs[0] if self.output is None else str(self.output)

    @property
    def channels_last(self) -> bool:
        """As told, else by where the graph has three channels."""
        if self.layout:
            return self.layout == "nhwc"
        return self.graph.shape[3] == 3 and self.graph.shape[1] != 3

    @property
    def fixed_size(self) -> int | None:
        """The side of the images that the graph takes, if it takes no other."""
        height, width = self.graph.shape[1:3] if self.channels_last else self.graph.shape[2:]
        if None not in (height, width) and height != width:
            raise SettingsError(f"{self.name} takes images of {width} x {height} pixels, and only squares can be given")
        return height or width

    @property
    def found(self) -> Preprocessing:
        return Preprocessing(self.fixed_size or self.image_size or IMAGE_SIZE, white=255 if self.takes_bytes else 1)

    @property
    def told(self) -> bool:
        return self.takes_bytes

    @property
    def takes_bytes(self) -> bool:
        return self.graph.dtype == np.uint8

    def brightened(self, factor: float) -> Self | None:
        """None where it takes 8 bits: nothing is brighter than 255."""
        return None if self.takes_bytes else super().brightened(factor)

    def compute(self, images: Tensor) -> dict[str, npt.NDArray[Any]]:
        fed = self.preprocessing(images.detach().cpu().float())
        fed = fed.permute(0, 2, 3, 1) if self.channels_last else fed
        fed = fed.round().clamp(0, 255) if self.takes_bytes else fed
        values = np.ascontiguousarray(fed.numpy(), self.graph.dtype)
        given = [
            attempt(
                lambda part=part: self.graph.session.run([self.wanted], {self.graph.input: part}),  # type: ignore[misc]
                f"{self.name} fails on an input of {shape_in_words(part.shape)}",
            )[0]
            for part in self.portions(values)
        ]
        return {self.wanted: np.concatenate(given)[: len(images)] if self.graph.shape[0] else given[0]}

    def portions(self, values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """As many images at a time as the graph takes."""
        count = self.graph.shape[0] or len(values)
        for start in range(0, len(values), count):
            part = values[start : start + count]
            missing = count - len(part)
            yield np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part

    @cached_property
    def fingerprint(self) -> str:
        """Of the file and those that hold its weights, and of how it is fed and read."""
        reading = [self.wanted, self.tokens, self.class_tokens, self.channels_last]
        return short_hash([self.version, self.graph.digest, reading, asdict(self.preprocessing)])


@lru_cache(maxsize=2)
def load_graph(file: Path, stamp: Stamp) -> Graph:
    """A file's graph; `stamp` tells one state of it, and of the files that hold its weights, from another."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PreimageError(NEEDS_ONNXRUNTIME) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; they are raised anyway
    session = attempt(
        lambda: onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"]),
        f"{file} cannot be read as an ONNX graph",
        WeightsError,
    )
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in TYPES:
        told = ", ".join(f"{entry.name} ({entry.type}, {entry.shape})" for entry in inputs)
        raise SettingsError(f"{file}: expected one input, images with four axes of {', '.join(TYPES)}; it takes {told}")
    shape = tuple(length if isinstance(length, int) and length > 0 else None for length in inputs[0].shape)
    outputs = [entry.name for entry in session.get_outputs()]
    digests = [file_hash(one) for one, *_ in stamp]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
    return Graph(session, inputs[0].name, TYPES[inputs[0].type], shape, outputs, digest)


@lru_cache(maxsize=8)
def external_files(file: Path, _changed: int) -> tuple[Path, ...]:
    """The files beside a graph's own that hold weights of it, as far as they are there.

    Of a file that is no graph there are none: who runs it says so better.
    """
    try:
        model = message_class("onnx_external", MESSAGES, "Model")()
    except ImportError as error:  # onnxruntime brings protobuf
        raise PreimageError(NEEDS_ONNXRUNTIME) from error
    try:
        model.ParseFromString(file.read_bytes())
    except Exception:  # protobuf's DecodeError; its class moved between versions
        return ()
    places = {entry.value for tensor in tensors_of(model) for entry in tensor.external_data if entry.key == "location"}
    return tuple(one for one in (file.parent / place for place in sorted(places)) if one.is_file())


def tensors_of(message: Any) -> Iterator[Any]:
    """All tensors within a message, however deep."""
    if message.DESCRIPTOR.name == "Tensor":
        yield message
        return
    for _, value in message.ListFields():
        for part in value if isinstance(value, Iterable) else (value,):
            yield from tensors_of(part)
