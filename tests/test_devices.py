"""Computing where the images are: on a GPU where there is one, and everywhere on devices that are only pretended.

A tensor on torch's device `meta` has no values, so whatever asks for one fails; the fake ones have none either, on
devices that this machine lacks, and do not mix with others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import encoders
from preimage import api
from preimage.analyses.recognition import Class
from preimage.cache import FeatureMemory
from preimage.defences import fit_defences
from preimage.errors import FeatureError
from preimage.images import Augmentation, Photos, TrainingStream
from preimage.interfaces import Batch, Inverter, Pairs, Representation
from preimage.inverters import GradientDescent, UpConv
from preimage.networks import load_kept, on_device
from preimage.networks.preprocessing import Preprocessing, by_channel
from preimage.randomness import seeded
from preimage.representations import HOG, ModuleLayer, SparseSIFT, get_representation
from preimage.representations.foreign import Foreign
from preimage.representations.modules import ModuleDoor, load_module
from preimage.runs import examples
from preimage.runs.folder import pack, unpack
from preimage.training import READ_EVERY, TrainingSettings, make_accelerator, start, train

SMALL = "torch:encoders:Small"
CUDA = torch.device("cuda")
META = torch.device("meta")


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    for kept in (load_module, load_kept, by_channel):
        kept.cache_clear()
    yield
    for kept in (load_module, load_kept, by_channel):
        kept.cache_clear()


@pytest.fixture
def pretended() -> Iterator[None]:
    """Tensors made meanwhile have no values, and may be on any device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 32, 32)


def small() -> ModuleDoor:
    encoder = get_representation(SMALL)
    assert isinstance(encoder, ModuleDoor)
    return encoder


def moved(module: nn.Module) -> nn.Module:
    """As after a move to another device: parameters stay the same tensors, buffers become others."""
    return module.double().float()


# --- weights that move, and weights that change -----------------------------------------------------------------------


def test_moving_a_module_is_no_change_of_its_weights(images: Tensor) -> None:
    encoder = small()
    before = encoder.encode(images)
    moved(encoder.module)
    assert torch.equal(encoder.encode(images), before)
    moved(encoder.module)
    assert torch.equal(encoder.encode(images), before)


def test_a_module_that_was_moved_is_not_loaded_anew() -> None:
    encoder = small()
    moved(encoder.module)
    assert small().module is encoder.module


def shift(value: Tensor) -> None:
    with torch.no_grad():
        value += 1


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a parameter": lambda module: shift(module.head[1].bias),
    "a buffer": lambda module: shift(module.body[1].running_mean),
    "a parameter, before it moves": lambda module: (shift(module.head[1].bias), moved(module)),
    "a buffer, before it moves": lambda module: (shift(module.body[1].running_mean), moved(module)),
    "a parameter, after it moved": lambda module: (moved(module), shift(module.head[1].bias)),
    "a buffer, after it moved": lambda module: (moved(module), shift(module.body[1].running_mean)),
    "another parameter": lambda module: setattr(module.head[1], "bias", nn.Parameter(torch.ones(64))),
    "other types": lambda module: module.half(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change: str, images: Tensor) -> None:
    encoder = small()
    encoder.encode(images)
    CHANGES[change](encoder.module)
    with pytest.raises(FeatureError, match=r"weights .* have been changed"):
        encoder.encode(images)
    assert small().module is not encoder.module


def test_a_module_that_moves_while_nothing_is_learnt_can_be_used_where_something_is() -> None:
    module = nn.BatchNorm2d(3).eval()
    with torch.inference_mode():
        on_device(module, META)
    images = torch.rand(1, 3, 8, 8, device=META, requires_grad=True)
    module(images).sum().backward()
    assert images.grad is not None


# --- not waiting ------------------------------------------------------------------------------------------------------


def test_encoding_asks_for_no_value_on_the_device(images: Tensor) -> None:
    encoder = small()
    encoder.feature_shape  # noqa: B018 (the first look, which does ask)
    assert encoder.encode(images.to(META)).device == META


def test_features_on_a_device_that_were_not_finite_are_told_at_the_next_look(images: Tensor) -> None:
    encoder = small()
    encoder.encode(images)
    encoder.watch.finite[CUDA] = torch.tensor(False)  # as features there would leave it
    with pytest.raises(FeatureError, match="features must be finite; those of one of the last 64 batches"):
        encoder.encode(images)
    encoder.encode(images)


def test_the_shape_is_found_where_the_module_is() -> None:
    layer = ModuleLayer(encoders.Small().to(META), "body", Preprocessing(32))
    assert layer.feature_shape == (24, 8, 8)
    assert next(layer.module.parameters()).device == META


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices of the images that encoders are given from now on."""
    devices: list[torch.device] = []

    def first_look(self: Foreign, device: torch.device, height: int, width: int) -> None:
        devices.append(device)
        self.watch.shapes[height, width] = (64,)

    monkeypatch.setattr(Foreign, "first_look", first_look)
    return devices


def test_the_first_look_is_where_the_images_are_else_where_the_module_is(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = looked_at(monkeypatch)
    encoder = small()
    encoder.encode(images.to(META))  # which moves the module
    assert encoder.feature_shape_at(64, 64) == (64,)
    small().feature_shape  # noqa: B018
    assert [device.type for device in devices] == ["meta", "meta", "cpu"]


# --- what was fitted elsewhere ----------------------------------------------------------------------------------------


def test_defences_change_features_where_they_are() -> None:
    sample = torch.randn(40, 32)
    ids = [str(index) for index in range(40)]
    for defence in fit_defences(sample):
        changed = defence.change(ids, sample.to(META))
        assert (changed.device, tuple(changed.shape)) == (META, (40, *defence.shape)), defence.words


class Elsewhere(nn.Module):
    """A classifier on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(3, 1000, device=CUDA))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = images.mean(dim=(2, 3)) @ self.weight
        return scores.softmax(dim=1)


def test_a_classifier_that_was_moved_elsewhere_judges_where_it_is_told(pretended: None) -> None:
    probabilities = Class().probabilities(
        "efficientnet_lite0", Elsewhere(), torch.rand(2, 3, 8, 8), torch.device("cpu")
    )
    assert (probabilities.device.type, tuple(probabilities.shape)) == ("cpu", (2, 1000))


class NoDoubles(TorchDispatchMode):
    """Apple's GPUs have no float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            assert not isinstance(value, Tensor) or (value.device.type, value.dtype) != ("mps", torch.float64), func
        return made


class OneBatch(list[Batch]):
    def __len__(self) -> int:
        return 4


def test_gradient_descent_is_fitted_without_float64_on_the_device(pretended: None) -> None:
    pairs: Pairs = OneBatch([Batch(list("abcd"), torch.rand(4, 3, 8, 8, device="mps"), lambda images: images)])
    with NoDoubles():
        fitted = GradientDescent(HOG(round_grey=False, image_size=64)).fit(pairs)
    assert fitted.mean is not None


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", [SMALL, "torch:encoders:Tokens"])
def test_a_module_encodes_batch_after_batch_on_a_gpu(name: str, images: Tensor) -> None:
    encoder = get_representation(name, image_size=32, mean=0.5, deviation=0.25)
    expected = encoder.encode(images)
    for _ in range(5):
        torch.testing.assert_close(encoder.encode(images.to(CUDA)).cpu(), expected, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(encoder.encode(images), expected)
    assert get_representation(name, image_size=32, mean=0.5, deviation=0.25).encode(images.to(CUDA)).is_cuda


@pytest.mark.gpu
@pytest.mark.parametrize("name", [SMALL, "efficientnet_lite0.stage2"])
def test_encoding_does_not_make_a_gpu_wait(name: str) -> None:
    encoder = get_representation(name)
    images = torch.rand(2, 3, encoder.image_size, encoder.image_size, device=CUDA)
    for _ in range(4):  # calls at which the probe is due, and at which everything moves
        encoder.encode(images)
    try:
        torch.cuda.set_sync_debug_mode("error")
        encoder.encode(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_weights_changed_on_a_gpu_are_noticed(images: Tensor) -> None:
    encoder = small()
    for _ in range(2):
        encoder.encode(images.to(CUDA))
    shift(encoder.module.body[1].running_mean)  # type: ignore[index,union-attr]
    with pytest.raises(FeatureError, match=r"weights .* have been changed"):
        encoder.encode(images.to(CUDA))


@pytest.mark.gpu
def test_features_that_are_not_finite_are_told_on_a_gpu(images: Tensor) -> None:
    encoder = small()
    infinite = torch.full_like(images, torch.inf).to(CUDA)
    encoder.encode(infinite)
    with pytest.raises(FeatureError, match="features must be finite"):
        encoder.encode(infinite)


@pytest.mark.gpu
def test_defences_change_features_alike_on_a_gpu() -> None:
    sample = torch.randn(40, 32)
    ids = [str(index) for index in range(40)]
    for defence in fit_defences(sample):
        changed = defence.change(ids, sample.to(CUDA))
        torch.testing.assert_close(changed.cpu(), defence.change(ids, sample), atol=1e-4, rtol=1e-4)


class Copies(Inverter):
    """Gives every image back; its features are those of the classifier's own network."""

    name = "copies"

    def __init__(self, representation: Representation, images: Tensor) -> None:
        self.representation, self.images = representation, images

    def fit(self, pairs: Pairs) -> Copies:
        return self

    def invert(self, features: Tensor) -> Tensor:
        return self.images.to(features.device)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> Copies:
        return self


@pytest.mark.gpu
def test_a_classifier_judges_its_own_layer_on_a_gpu(sample_images: Tensor) -> None:
    images = nn.functional.interpolate(sample_images, (224, 224), mode="bilinear", antialias=True).clamp(0, 1)
    inverter = Copies(get_representation("efficientnet_lite0.pool"), images)
    finding = Class().analyse(inverter, [str(index) for index in range(len(images))], images.to(CUDA))
    rows = {str(row["condition"]): row for row in finding.table}
    assert rows["reconstruction"]["top1"] == rows["photograph"]["top1"] == 1


@pytest.mark.gpu
def test_an_inverter_is_trained_and_evaluated_on_a_gpu(crops: Path, tmp_path: Path) -> None:
    settings = [
        "representation.image_size=64", "decoder.width=0.05", "training.batch_size=8", "training.steps=60",
        "training.warmup_steps=5", "training.evaluate_every=30", "training.ema_decay=0.9",
    ]  # fmt: skip
    api.train("hog", crops, tmp_path / "run", validation=crops, overrides=settings, device="cuda")
    rows = {row.inverter: row for row in api.evaluate(tmp_path / "run", crops, device="cuda").rows}
    assert rows["upconv"].nre < rows["mean-image"].nre


@pytest.mark.gpu
def test_training_does_not_make_a_gpu_wait(samples: Photos) -> None:
    accelerator = make_accelerator("cuda")
    network = nn.Conv2d(3, 3, 3, padding=1)
    settings = TrainingSettings(steps=READ_EVERY, batch_size=8, ema_decay=0.9)
    stream = TrainingStream(samples, batch_size=8, seed=1)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step, images in enumerate(stream.batches_on(CUDA, 0)):
            if step == READ_EVERY // 2:  # before numbers are read for the first time
                torch.cuda.set_sync_debug_mode("error")
            yield images, images
            if step == READ_EVERY - 2:
                torch.cuda.set_sync_debug_mode("default")

    state = start(network, settings)
    try:
        train(state, batches(), READ_EVERY, settings, accelerator, places=8)
        resumed = start(network, settings)
        unpack(pack(state), resumed, 0)
        train(resumed, batches(), READ_EVERY, settings, accelerator, places=8)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_features_made_ahead_are_the_same(samples: Photos, device: str) -> None:
    sift = SparseSIFT(image_size=samples.image_size)
    stream = TrainingStream(samples, 8, seed=1, augmentation=Augmentation(variants=2))
    inverter, on = UpConv(sift, width=0.02), torch.device(device)
    memory = FeatureMemory(sift.encode, on, limit=1 << 30)
    ahead = examples(stream, inverter, on, 2, memory, encoders=3)
    plain = examples(stream, inverter, on, 2)
    for (features, images), expected in itertools.islice(zip(ahead, plain, strict=True), 6):
        assert features.device == images.device == expected[1].device
        assert torch.equal(features, expected[0])
        assert torch.equal(images, expected[1])
    assert len(memory.kept) == 2 * len(samples)
    ahead.close()


@pytest.mark.gpu
def test_a_gpu_sees_the_same_views_of_photographs(samples: Photos) -> None:
    stream = TrainingStream(samples, batch_size=8, seed=1, augmentation=Augmentation(min_scale=0.5))
    for step, images in enumerate(itertools.islice(stream.batches_on(CUDA, 0), 3)):
        off = (images.cpu() - next(stream.batches(step))).abs() * 255
        assert off.max() < 1.01
        assert (off > 0.5).float().mean() < 1e-3


def test_seeding_on_the_cpu_leaves_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError(f"a GPU was seeded with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before = torch.get_rng_state()
    with seeded(1):
        first = torch.rand(3)
    with seeded(1, torch.device("cpu")):
        torch.testing.assert_close(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_seeding_a_gpu_is_undone() -> None:
    before = torch.cuda.get_rng_state()
    with seeded(1, CUDA):
        first = torch.rand(3, device=CUDA)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    with seeded(1, CUDA):
        torch.testing.assert_close(torch.rand(3, device=CUDA), first)
