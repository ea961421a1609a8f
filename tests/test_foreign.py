"""Doors to encoders of other people: what comes through, and what is turned away."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import encoders
from preimage.cache import CachedRepresentation, cached
from preimage.errors import (
    FeatureError,
    ImageError,
    NotShippedError,
    PreimageError,
    SettingsError,
    UnknownNameError,
    WeightsError,
)
from preimage.images import Photos
from preimage.interfaces import Batch, Representation
from preimage.inverters import MeanImage, UpConv
from preimage.metrics import distance
from preimage.pairs import EncodedPhotos
from preimage.representations import DOORS, get_representation
from preimage.training import TrainingSettings

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

PROGRAM = """
import io, sys
import numpy as np
images = np.load(io.BytesIO(sys.stdin.buffer.read()))
assert images.dtype == np.uint8
n, h, w, _ = images.shape
np.save(sys.stdout.buffer, images.reshape(n, h // 8, 8, w // 8, 8, 3).mean(axis=(2, 4)))
"""


def graph(file: Path, batch: int | None = None, size: int | None = 32, kind: int = TensorProto.FLOAT) -> Path:
    """An ONNX file: a convolution as a map, and its mean over places as a vector."""
    weight = np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32) / 7
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["numbers", "weight"], ["map"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
    ]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", kind, [batch or "n", 3, size or "h", size or "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("map", "mean")],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.write_bytes(model.SerializeToString())
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doors")
    graph(folder / "small.onnx")
    (folder / "encode.py").write_text(PROGRAM)
    return folder


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "a module's output": ("torch:encoders:small", {}),
    "a module's layer": ("torch:encoders:small", {"layer": "body.2"}),
    "a module that is there": ("torch:encoders:ready", {"layer": "body"}),
    "tokens as a map": ("torch:encoders:Tokens", {"image_size": 32}),
    "a class token": ("torch:encoders:Tokens", {"image_size": 32, "tokens": "class"}),
    "an ONNX map": ("onnx:FOLDER/small.onnx", {"output": "map", "mean": 0.5, "deviation": [0.2, 0.3, 0.2]}),
    "an ONNX vector": ("onnx:FOLDER/small.onnx", {"output": "mean", "white": 255.0, "bgr": True}),
    "a function": ("python:encoders:thumbnails", {"image_size": 32}),
    "a function of bytes": ("python:encoders:histogram", {"image_size": 32, "dtype": "uint8", "batched": False}),
    "a function that gives maps": ("python:encoders:blocks", {"image_size": 32}),
    "a program": (f"command:{sys.executable} FOLDER/encode.py", {"image_size": 32}),
}
TRAINED = ["a module's output", "tokens as a map", "an ONNX map", "a function", "a function that gives maps", "a program"]


def make(case: str, folder: Path) -> Representation:
    name, settings = GOOD[case]
    return get_representation(name.replace("FOLDER", str(folder)), **settings)


@pytest.fixture(params=sorted(GOOD))
def encoder(request: pytest.FixtureRequest, folder: Path) -> Representation:
    return make(request.param, folder)


@pytest.fixture(scope="module")
def photos(crops: Path) -> Photos:
    return Photos.open(crops, 32).load()


@pytest.fixture(scope="module")
def images(photos: Photos) -> Tensor:
    return next(photos.batches(5))[1]


# --- what every door promises -----------------------------------------------------------------------------------------


def assert_same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5 * float(a.abs().max()), rtol=1e-4)


def test_the_declared_shape_is_the_shape_returned(encoder: Representation, images: Tensor) -> None:
    features = encoder.encode(images)
    assert features.shape == (5, *encoder.feature_shape)
    assert features.ndim in (2, 4)
    assert features.dtype == torch.float32


def test_each_image_is_encoded_on_its_own(encoder: Representation, images: Tensor) -> None:
    assert_same(encoder.encode(images), torch.cat([encoder.encode(image[None]) for image in images]))


def test_encoding_twice_gives_the_same(encoder: Representation, images: Tensor) -> None:
    assert torch.equal(encoder.encode(images), encoder.encode(images))


def test_different_images_have_different_features(encoder: Representation, images: Tensor) -> None:
    features = encoder.encode(images)
    assert not torch.allclose(features[0], features[3])


def test_settings_are_plain_and_build_it_again(encoder: Representation) -> None:
    described = json.loads(json.dumps({"name": encoder.name, **encoder.settings}))
    again = get_representation(**described)
    assert again == encoder
    assert again.feature_shape == encoder.feature_shape


def test_eight_bit_values_are_refused_with_advice(encoder: Representation, images: Tensor) -> None:
    with pytest.raises(ImageError, match="divide 8-bit images by 255"):
        encoder.encode(images * 255)


def test_gradients_are_finite_where_they_are_promised(encoder: Representation, images: Tensor) -> None:
    wanted = images[:1].clone().requires_grad_()
    features = encoder.encode(wanted)
    assert features.requires_grad == encoder.differentiable
    if encoder.differentiable:
        features.sum().backward()  # type: ignore[no-untyped-call]
        assert wanted.grad is not None
        assert torch.isfinite(wanted.grad).all()


def test_its_name_can_be_part_of_a_file_s(encoder: Representation, tmp_path: Path) -> None:
    (tmp_path / encoder.file_name).touch()
    assert encoder.file_name


@pytest.mark.parametrize("case", TRAINED)
def test_an_inverter_can_be_trained_and_beats_the_mean_image(case: str, folder: Path, photos: Photos) -> None:
    encoder = make(case, folder)
    features = encoder.encode(next(photos.batches(64))[1])
    known = dict(zip(photos.ids, features, strict=True))

    def error(wrong: bool) -> float:
        """Of an inverter trained on half of the pictures, on the other half; in parts of the mean image's."""
        learnt = [index for index in range(64) if index % 2 == 0]
        train, test = photos.subset(learnt), photos.subset([index + 1 for index in learnt])
        pairs = Remembered(encoder, train, known, wrong)
        settings = TrainingSettings(steps=150, warmup_steps=10, precision="float32", batch_size=32)
        inverter = UpConv(encoder, width=0.1).fit(pairs, settings)
        mean = MeanImage(encoder).fit(pairs)
        images, given = next(test.batches(32))[1], torch.stack([known[name] for name in test.ids])
        errors = [distance(images, one.invert(given)).mean() for one in (inverter, mean)]
        return float(errors[0] / errors[1])

    assert error(wrong=False) < 0.9
    assert error(wrong=True) > 0.97


class Remembered:
    """Photographs with features computed before, or with those of others."""

    def __init__(self, encoder: Representation, photos: Photos, known: dict[str, Tensor], wrong: bool) -> None:
        self.encoder, self.photos, self.known, self.shift = encoder, photos, known, 5 if wrong else 0

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Batch]:
        for ids, images in self.photos.batches(32):
            features = torch.stack([self.known[name] for name in ids]).roll(self.shift, dims=0)
            yield Batch(ids, images, lambda _, features=features: features)  # type: ignore[misc]
