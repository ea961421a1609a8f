"""EfficientNet-Lite0 is wired as it was trained: it names photographs, and every known mistake makes it worse."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from preimage.images import Photos
from preimage.networks import NETWORKS, load_network
from preimage.networks.efficientnet_lite import SameConv2d
from preimage.networks.preprocessing import Preprocessing

pytestmark = pytest.mark.reference

FED = NETWORKS["efficientnet_lite0"].preprocessing


@pytest.fixture(scope="module")
def labelled(shared_photos: Path) -> Photos:
    photos = Photos.open(shared_photos / "val-00000.tar", 224)
    return photos.subset(range(100)).load()


@pytest.fixture(scope="module")
def share_when_right(labelled: Photos) -> float:
    return share_named(load_network("efficientnet_lite0"), labelled)


def share_named(network: nn.Module, photos: Photos, fed: Preprocessing = FED) -> float:
    """The share of photographs whose most probable class is their label."""
    with torch.no_grad():
        named = torch.cat([network(fed(images)).argmax(dim=1) for _, images in photos.batches(25)])
    return float((named == torch.tensor(photos.labels)).float().mean())


@pytest.mark.slow
def test_it_names_84_photographs_in_100(shared_photos: Path) -> None:
    photos = Photos.open(shared_photos / "val-00000.tar", 224).load()
    assert share_named(load_network("efficientnet_lite0"), photos) == pytest.approx(0.838, abs=0.006)


def test_symmetric_padding_would_name_fewer(labelled: Photos, share_when_right: float) -> None:
    network = copy.deepcopy(load_network("efficientnet_lite0"))
    for module in network.modules():
        if isinstance(module, SameConv2d):
            side = module.kernel_size[0] // 2
            module.forward = lambda x, module=module, side=side: nn.functional.conv2d(  # type: ignore[method-assign,misc]
                x, module.weight, module.bias, module.stride, side, 1, module.groups
            )
    assert share_named(network, labelled) < share_when_right - 0.02


def test_blue_for_red_would_name_fewer(labelled: Photos, share_when_right: float) -> None:
    swapped = Preprocessing(FED.image_size, FED.white, FED.mean, FED.deviation, bgr=True)
    network = load_network("efficientnet_lite0")
    assert share_named(network, labelled, swapped) < share_when_right - 0.02


def test_the_wrong_scale_would_name_fewer(labelled: Photos, share_when_right: float) -> None:
    unscaled = Preprocessing(FED.image_size, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
    network = load_network("efficientnet_lite0")
    assert share_named(network, labelled, unscaled) < share_when_right - 0.02
