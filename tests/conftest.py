"""Fixtures: free photographs from scikit-image, and the shared research photographs where they are at hand."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small jobs: more threads only get in each other's way

import pytest
import torch
from torch import Tensor

from preimage.images import Photos, find_photos
from preimage.networks import NETWORKS, has_weights

SHARED_PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
SHARED_WEIGHTS = Path(__file__).parents[2] / "shared" / "data" / "weights"

# Where weights of networks that are not at hand by themselves lie on the machines that have them; some are another
# network's of the same shapes, for a contract holds with any.
CAFFE_ALEXNET = ["bvlc_alexnet_qcnn_conv_fp16.npz", "alexnet_refit_fc.npz"]
RESEARCH_WEIGHTS = {
    "alexnet": ["alexnet_owt_conv_fp16.npz", "alexnet_refit_fc.npz"],
    "bvlc_alexnet": CAFFE_ALEXNET,
    "caffenet": CAFFE_ALEXNET,
    "squeezenet": ["squeezenet_v1.1_fp16.npz"],
}


def weights_of(name: str) -> dict[str, str] | None:
    """The settings that give a representation its weights; None where there are none on this machine."""
    network = name.partition(".")[0]
    if name == "sift" and importlib.util.find_spec("vlsift") is None:
        return None
    if network not in NETWORKS or has_weights(network):
        return {}
    files = [SHARED_WEIGHTS / file for file in RESEARCH_WEIGHTS.get(network, [])]
    if not files or not all(file.exists() for file in files):
        return None
    return {"weights": ",".join(map(str, files))}


def pytest_configure(config: pytest.Config) -> None:
    """GPUs are hidden from tests, which do not need them, unless those that do are asked for: `pytest -m gpu`."""
    asked = config.option.markexpr
    if "gpu" not in asked or "not gpu" in asked:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; where there is one, ask for it by `pytest -m gpu`")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def samples() -> Photos:
    """Four free photographs at 256 pixels."""
    from preimage.api import sample_photos

    return sample_photos().load()


@pytest.fixture(scope="session")
def sample_images(samples: Photos) -> Tensor:
    return next(samples.batches(len(samples)))[1]


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """The folder of research photographs; tests that need it are skipped elsewhere."""
    if not SHARED_PHOTOS.is_dir():
        pytest.skip("needs the research photographs, which are not part of the repository")
    return SHARED_PHOTOS


@pytest.fixture(scope="session")
def shared_alexnet() -> str:
    """The weights files of a complete BVLC AlexNet (its fc6 refitted), as `weights=` takes them."""
    settings = weights_of("bvlc_alexnet.fc8")
    if settings is None:
        pytest.skip("needs the research weights, which are not part of the repository")
    return settings["weights"]


@pytest.fixture(scope="session")
def validation(shared_photos: Path) -> Photos:
    """The first 200 validation photographs."""
    found = find_photos(shared_photos / "val-00000.tar")
    return Photos(found.photos[:200], 256).load()


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory, samples: Photos) -> Path:
    """A folder of 64 small pictures cut from the sample photographs: enough for a tiny training."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("crops")
    for index in range(len(samples)):
        picture = Image.fromarray(samples.pixels(index))
        for place in range(16):
            x, y = place % 4 * 64, place // 4 * 64
            picture.crop((x, y, x + 64, y + 64)).save(folder / f"{index}-{place:02d}.png")
    return folder


TINY_ZOO = [
    "hog:representation.image_size=64", "lbp:representation.image_size=64", "decoder.width=0.05",
    "training.batch_size=8", "training.precision=float32", "training.steps=60", "training.evaluate_every=60",
    "augmentation.variants=0",
]  # fmt: skip


@pytest.fixture(scope="session")
def trained_zoo(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tiny runs, LBP before HOG, as `preimage zoo train` leaves it."""
    from preimage.zoo_training import train_zoo

    folder = tmp_path_factory.mktemp("zoo")
    train_zoo(["lbp", "hog"], crops, folder, validation=crops, overrides=TINY_ZOO, device="cpu")
    return folder


@pytest.fixture(scope="session")
def exported_zoo(trained_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tiny files of inverters and their cards, as the package holds them."""
    from preimage.zoo_training import export_zoo

    output = tmp_path_factory.mktemp("exported")
    export_zoo([], trained_zoo, output, licence="free", note="tiny")
    return output
