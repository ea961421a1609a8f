"""SqueezeNet names photographs as its published weights should, and only with Caffe's pooling, which rounds up."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import SHARED_WEIGHTS
from preimage.images import Photos
from preimage.networks import load_network
from preimage.networks.squeezenet import PREPROCESSING

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def network() -> nn.Module:
    file = SHARED_WEIGHTS / "squeezenet_v1.1_fp16.npz"
    if not file.exists():
        pytest.skip("needs the research weights, which are not part of the repository")
    return load_network("squeezenet", str(file))


@pytest.fixture(scope="module")
def photos(shared_photos: Path) -> Photos:
    return Photos.open(shared_photos / "val-00000.tar", 256).load()


def share_named(network: nn.Module, photos: Photos) -> float:
    with torch.no_grad():
        named = torch.cat(
            [network(PREPROCESSING(i[:, :, 14:241, 14:241])).argmax(dim=1) for _, i in photos.batches(50)]
        )
    return float((named == torch.tensor(photos.labels)).float().mean())


@pytest.mark.slow
def test_it_names_64_photographs_in_100(network: nn.Module, photos: Photos) -> None:
    assert share_named(network, photos) == pytest.approx(0.64, abs=0.004)


def test_pooling_that_rounds_down_gives_other_maps(network: nn.Module, photos: Photos) -> None:
    floored = copy.deepcopy(network)
    for module in floored.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = False
    image = PREPROCESSING(next(photos.subset([0]).batches())[1][:, :, 14:241, 14:241])
    right, wrong = (part.get_submodule("fire3")(part.fire2(part.conv1(image))) for part in (network, floored))  # type: ignore[operator]
    assert right.shape[2:] == (28, 28)
    assert wrong.shape[2:] == (27, 27)
