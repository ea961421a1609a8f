"""Whatever surrounds a call (torch's switches, threads and processes, a poor terminal), its result is the same."""

from __future__ import annotations

import copy
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import preimage
from encoders import Small
from preimage.errors import FeatureError, ImageError, PreimageError, SettingsError
from preimage.files import replacing
from preimage.networks import load_kept
from preimage.networks.preprocessing import Preprocessing
from preimage.representations import HOG, ModuleLayer, SparseSIFT, get_representation
from preimage.representations.foreign import as_tensor, parts

TINY = ["decoder.width=0.05", "training.steps=2", "training.batch_size=4", "representation.image_size=64"]
AT_32 = Preprocessing(image_size=32)


@contextmanager
def float64_by_default() -> Iterator[None]:
    load_kept.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        load_kept.cache_clear()


SWITCHES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": float64_by_default,
}


@pytest.fixture(scope="module")
def usual(crops: Path, samples: Any) -> tuple[float, Tensor]:
    return measured(crops, samples.images([0, 1]))


def measured(crops: Path, images: Tensor) -> tuple[float, Tensor]:
    result = preimage.evaluate("hog", crops, limit=4)
    return result.rows[0].nre, get_representation("efficientnet_lite0.stage2").encode(images[..., :224, :224])


@pytest.mark.parametrize("switch", SWITCHES)
def test_training_and_measuring_are_the_same_under(
    switch: str, crops: Path, samples: Any, usual: tuple[float, Tensor], tmp_path: Path
) -> None:
    images = samples.images([0, 1])
    with SWITCHES[switch]():
        run = preimage.train("hog", crops, tmp_path / "run", overrides=TINY, device="cpu")
        nre, features = measured(crops, images)
    assert run.step == 2
    assert nre == pytest.approx(usual[0], rel=1e-5)
    torch.testing.assert_close(features, usual[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["efficientnet_lite0.stage2", "torch:encoders:Small"])
def test_threads_get_the_features_of_their_own_images(name: str) -> None:
    encoder = get_representation(name)
    images = torch.rand(8, 3, encoder.image_size, encoder.image_size)
    expected = [encoder.encode(images[k : k + 2]) for k in range(0, 8, 2)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: encoder.encode(images[2 * (k % 4) : 2 * (k % 4) + 2]), range(16)))
    for k, features in enumerate(found):
        torch.testing.assert_close(features, expected[k % 4])


def encode_in_child(images: Tensor, answers: Any) -> None:
    answers.put(SparseSIFT(image_size=64).encode(images).sum().item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_sift_works_in_a_forked_process() -> None:
    pytest.importorskip("vlsift")
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = SparseSIFT(image_size=64).encode(images).sum().item()  # in several processes of joblib's
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=encode_in_child, args=(images, answers), daemon=True)
    child.start()
    assert answers.get(timeout=60) == pytest.approx(expected)
    child.join()


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with replacing(file) as first, replacing(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]


def test_a_terminal_that_cannot_show_arrows_shows_the_rest(crops: Path) -> None:
    words = [sys.executable, "-m", "preimage", "evaluate", "hog", "--images", str(crops), "--limit", "2"]
    poor = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    result = subprocess.run(words, env=poor, capture_output=True, text=True, check=True)
    assert "upconv" in result.stdout


def test_images_of_other_types_are_refused() -> None:
    with pytest.raises(ImageError, match=r"float32, got torch.float64: give images.float\(\)"):
        HOG(image_size=64).encode(torch.rand(1, 3, 64, 64, dtype=torch.float64))


# --- modules of many kinds --------------------------------------------------------------------------------------------


def traced(module: nn.Module) -> nn.Module:
    return torch.jit.trace(module, torch.rand(1, 3, 32, 32))  # type: ignore[no-any-return,no-untyped-call]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("compiled", [torch.jit.script, traced])
def test_torchscript_is_read_as_a_whole(compiled: Callable[[nn.Module], nn.Module]) -> None:
    module, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(2, 3, 32, 32)
    expected = ModuleLayer(module, "", AT_32).encode(images)
    torch.testing.assert_close(ModuleLayer(compiled(module), "", AT_32).encode(images), expected)
    with pytest.raises(SettingsError, match="TorchScript"):
        ModuleLayer(compiled(module), "0", AT_32)


@pytest.mark.parametrize("module", [nn.LazyConv2d(4, 3), nn.Conv2d(3, 4, 3, device="meta")])
def test_modules_without_values_are_refused(module: nn.Module) -> None:
    with pytest.raises(PreimageError, match="no values yet"):
        ModuleLayer(module, "", AT_32).encode(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-6)])
def test_modules_of_another_precision_are_fed_in_it(dtype: torch.dtype, near: float) -> None:
    module, images = Small().eval(), torch.rand(2, 3, 32, 32, requires_grad=True)
    expected = ModuleLayer(module, "body", AT_32).encode(images)
    other = ModuleLayer(copy.deepcopy(module).to(dtype), "body", AT_32)
    features = other.encode(images)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=near, rtol=near)
    features.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert other.fingerprint != ModuleLayer(module, "body", AT_32).fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        lambda module: module.register_buffer("table", torch.zeros(10_000, dtype=torch.float64)),
        lambda module: setattr(module, "unused", nn.Linear(500, 500).half()),
        lambda module: module.register_parameter("stored", nn.Parameter(torch.zeros(9).to(torch.float8_e4m3fn))),
    ],
    ids=["a table", "a part in half precision", "a type to store in"],
)
def test_modules_of_mixed_precision_are_fed_as_always(changed: Callable[[nn.Module], object]) -> None:
    module = Small().eval()
    images = torch.rand(1, 3, 32, 32)
    expected = ModuleLayer(module, "body", AT_32).encode(images)
    changed(module)
    torch.testing.assert_close(ModuleLayer(module.requires_grad_(False), "body", AT_32).encode(images), expected)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.other = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Any:
        return self.one(images)


def test_a_module_under_two_names_is_found_by_both() -> None:
    assert ModuleLayer(Twice(), "other", AT_32).feature_shape == (4, 30, 30)


def test_features_are_float32_numbers_whatever_the_module_gives() -> None:
    sparse = torch.eye(3).to_sparse()
    torch.testing.assert_close(as_tensor(sparse, "it"), torch.eye(3))
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(FeatureError, match="complex"):
        ModuleLayer(Gives(lambda images: images.to(torch.complex64)), "", AT_32).encode(images)
    assert ModuleLayer(Gives(lambda images: images.half()), "", AT_32).encode(images).dtype == torch.float32


class Gives(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


class Both(NamedTuple):
    map: Tensor
    vector: np.ndarray


def test_outputs_are_called_as_their_fields() -> None:
    assert list(parts(Both(torch.zeros(1), np.zeros(1)))) == ["map", "vector"]
