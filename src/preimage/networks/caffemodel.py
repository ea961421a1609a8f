"""Caffe's binary weights: the few fields of its protocol buffers that hold them, read by Google's own library.

Field numbers from `caffe.proto` (BVLC Caffe 1.0): NetParameter.layer = 100 and the older .layers = 2, their names 1 and
4, their blobs 7 and 6; BlobProto.data = 5 and .shape = 7, or the older num, channels, height, width = 1 ... 4.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from preimage.errors import WeightsError
from preimage.networks.protobuf import Messages, message_class

MESSAGES: Messages = {
    "Shape": (("dim", 1, "int64", True),),
    "Blob": (
        ("num", 1, "int32", False), ("channels", 2, "int32", False), ("height", 3, "int32", False),
        ("width", 4, "int32", False), ("data", 5, "float", True), ("shape", 7, "Shape", False),
    ),
    "Layer": (("name", 1, "string", False), ("blobs", 7, "Blob", True)),
    "OldLayer": (("name", 4, "string", False), ("blobs", 6, "Blob", True)),
    "Net": (("layers", 2, "OldLayer", True), ("layer", 100, "Layer", True)),
}  # fmt: skip


@lru_cache(maxsize=1)
def net_message() -> Any:
    """The class of Caffe's NetParameter, as far as weights go."""
    try:
        return message_class("caffe_weights", MESSAGES, "Net")
    except ImportError as error:
        raise WeightsError("reading .caffemodel files needs protobuf: pip install preimage[caffe]") from error


def read_caffemodel(file: Path) -> dict[str, Tensor]:
    """`name.weight` and `name.bias` for every layer that has them; raises `WeightsError` for a damaged file."""
    net = net_message()()
    try:
        net.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf's DecodeError; its class moved between versions
        raise WeightsError(f"{file} is not a whole .caffemodel: {error}") from error
    weights: dict[str, Tensor] = {}
    for layer in [*net.layer, *net.layers]:
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
            values = np.array(blob.data, dtype=np.float32)
            if values.size != math.prod(shape) or min(shape, default=0) < 0:
                raise WeightsError(f"{file} is damaged: {layer.name} has {values.size} values for a shape of {shape}")
            if kind == "bias":
                shape = (values.size,)
            elif shape[:2] == (1, 1):
                shape = shape[2:]  # the older format has four dimensions for everything: (1, 1, out, in)
            weights[f"{layer.name}.{kind}"] = torch.from_numpy(values.reshape(shape))
    if not weights:
        raise WeightsError(f"{file} holds no weights: is it a .caffemodel?")
    return weights
