"""Doors to encoders of other people: what comes through, and what is turned away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import encoders
from preimage import api
from preimage.cache import CachedRepresentation, cached
from preimage.contract import PROMISES
from preimage.errors import (
    FeatureError,
    NotShippedError,
    PreimageError,
    PreimageWarning,
    SettingsError,
    UnknownNameError,
    WeightsError,
    WeightsWarning,
)
from preimage.images import Photos
from preimage.interfaces import Representation
from preimage.inverters import GradientDescent
from preimage.representations import get_representation
from preimage.representations.foreign import arrange
from preimage.representations.onnx_graph import external_files
from trained import errors_after_training

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


def graph(
    file: Path, batch: int | None = None, size: int | None = 32, kind: int = TensorProto.FLOAT, called: str = "map"
) -> Path:
    """An ONNX file: a convolution as a map, and its mean over places as a vector."""
    weight = np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32) / 7
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["numbers", "weight"], [called], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", [called], ["mean"]),
    ]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", kind, [batch or "n", 3, size or "h", size or "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (called, "mean")],
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
    "a class": ("python:encoders:Thumbnails", {"side": 4}),
    "a program": (f"command:{sys.executable} FOLDER/encode.py", {"image_size": 32}),
}
TRAINED = [
    "a module's output",
    "tokens as a map",
    "an ONNX map",
    "a function",
    "a function that gives maps",
    "a class",
    "a program",
]


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


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_kept(promise: str, encoder: Representation, images: Tensor) -> None:
    PROMISES[promise](encoder, images)


def test_features_are_vectors_or_maps(encoder: Representation) -> None:
    assert len(encoder.feature_shape) in (1, 3)


def test_gradients_come_only_where_they_are_promised(encoder: Representation, images: Tensor) -> None:
    assert encoder.encode(images[:1].clone().requires_grad_()).requires_grad == encoder.differentiable


def test_its_name_can_be_part_of_a_file_s(encoder: Representation, tmp_path: Path) -> None:
    (tmp_path / encoder.file_name).touch()
    assert encoder.file_name


@pytest.mark.parametrize("case", TRAINED)
def test_an_inverter_can_be_trained_and_beats_the_mean_image(case: str, folder: Path, photos: Photos) -> None:
    right, wrong = errors_after_training(make(case, folder), photos)
    assert right < 0.9
    assert wrong > 0.97


# --- what is turned away ----------------------------------------------------------------------------------------------


def use(name: str, settings: dict[str, Any]) -> None:
    encoder = get_representation(name, **settings)
    assert encoder.fingerprint
    encoder.encode(torch.rand(2, 3, 56, 56))


def encode(name: str, images: Tensor, **settings: Any) -> Tensor:
    return get_representation(name, **settings).encode(images)


@pytest.mark.parametrize(
    ("name", "settings", "kind", "words"),
    [
        ("tork:encoders:small", {}, UnknownNameError, "Did you mean 'torch'"),
        ("torch:", {}, SettingsError, "expected torch:ADDRESS"),
        ("torch:encoders", {}, SettingsError, "expected torch:package.module:name"),
        ("torch:encodrs:small", {}, SettingsError, "Looked in the current folder"),
        ("torch:encoders:smal", {}, UnknownNameError, "Did you mean 'small'"),
        (
            "torch:encoders:needs_width",
            {},
            SettingsError,
            r"needs arguments: width\. .*def make\(\): return",
        ),
        ("torch:encoders:no_module", {}, SettingsError, "gave int, expected a torch.nn.Module"),
        ("torch:encoders:broken", {}, SettingsError, "RuntimeError: out of luck"),
        ("torch:encoders:small", {"layer": "body.9"}, UnknownNameError, "Did you mean 'body"),
        ("torch:encoders:small", {"lyer": "body"}, UnknownNameError, "Did you mean 'layer'"),
        ("torch:encoders:small", {"mean": [1, 2]}, SettingsError, "mean is one number or three"),
        ("torch:encoders:small", {"deviation": 0}, SettingsError, "deviation and white are positive"),
        ("torch:encoders:small", {"image_size": -1}, SettingsError, "image_size is a number of pixels"),
        ("torch:encoders:small", {"weights": "no.pth"}, WeightsError, "there is no weights file no.pth"),
        ("torch:encoders:small", {"tokens": "maps"}, SettingsError, "is one of 'auto', 'map'"),
        ("torch:", {}, SettingsError, "expected torch:ADDRESS as the name"),
        ("torch:encoders:Outputs", {}, FeatureError, r"several outputs: hidden \(1 x 50 x 16\).*--set output=hidden"),
        ("torch:encoders:Outputs", {"output": "summry"}, FeatureError, "has no output 'summry': it gives hidden"),
        ("torch:encoders:Pair", {}, FeatureError, r"several outputs: 0 \(1 x 16\), 1 \(1 x 50 x 16\)"),
        ("torch:encoders:NeedsWords", {}, FeatureError, "missing 1 required positional argument: 'words'"),
        ("torch:encoders:Tokens", {"tokens": "map", "class_tokens": 3}, FeatureError, "50 tokens, which less 3 before"),
        ("torch:encoders:Tokens", {"tokens": "mean", "class_tokens": 50}, FeatureError, "leaves none of the places"),
        ("python:encoders:thumbnail", {}, UnknownNameError, "Did you mean 'thumbnails'"),
        ("python:encoders:two_arguments", {}, SettingsError, "takes images, bins: expected a function of one argument"),
        ("python:encoders:random", {}, FeatureError, "draws random numbers"),
        ("python:encoders:knows_its_company", {}, FeatureError, "beside another image"),
        (
            "python:encoders:too_few_rows",
            {},
            FeatureError,
            r"for a batch of 1: expected as many rows.*--set batched=false",
        ),
        ("python:encoders:ragged", {}, FeatureError, "rows of different lengths"),
        ("python:encoders:text", {}, FeatureError, "expected an array of numbers"),
        ("python:encoders:one_at_a_time", {}, FeatureError, "though on no image alone.*--set batched=false"),
        ("python:encoders:thumbnails", {"files": "no.bin"}, SettingsError, "there is no file no.bin"),
        (
            "command:no-such-program x",
            {},
            SettingsError,
            "cannot be started: No such file or directory: no-such",
        ),
        ("command:'", {}, SettingsError, "cannot be split into words"),
        ("command:x", {"timeout": 0}, SettingsError, "timeout is a positive number"),
        ("onnx:no.onnx", {}, WeightsError, "there is no ONNX file no.onnx"),
    ],
)
def test_what_cannot_be_used_is_told(
    name: str, settings: dict[str, Any], kind: type[PreimageError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        use(name, {"image_size": 56} | settings)


def test_a_door_has_no_shipped_inverter_and_says_how_to_train_one() -> None:
    from preimage.api import load_inverter

    with pytest.raises(NotShippedError, match=r"preimage train onnx:models/x\.onnx --images PHOTOS"):
        load_inverter("onnx:models/x.onnx")


# --- torch modules ----------------------------------------------------------------------------------------------------


def test_a_graph_that_has_moved_is_found_by_its_address(folder: Path, tmp_path: Path) -> None:
    before = get_representation(f"onnx:{folder}/small.onnx", output="map", mean=0.5)
    moved = tmp_path / "moved.onnx"
    moved.write_bytes((folder / "small.onnx").read_bytes())
    after = get_representation("onnx:gone/small.onnx", output="map", mean=0.5, address=str(moved))
    assert after.name == f"onnx:{moved}"
    assert after.fingerprint == before.fingerprint


def test_preprocessing_is_read_off_the_module_unless_it_is_given(images: Tensor) -> None:
    module = encoders.ready
    found = get_representation("torch:encoders:ready", layer="body.0")
    given = get_representation("torch:encoders:ready", layer="body.0", mean=[3, 2, 1], deviation=2, white=255, bgr=True)
    torch.testing.assert_close(found.encode(images), module.body[0]((images - 0.5) / 0.25))
    turned = (images.flip(1) * 255 - torch.tensor([3.0, 2, 1]).view(3, 1, 1)) / 2
    torch.testing.assert_close(given.encode(images), module.body[0](turned))
    assert found.fingerprint != given.fingerprint


def test_tokens_are_maps_of_their_places_without_the_class_token(images: Tensor) -> None:
    module = encoders.Tokens()
    encoder = get_representation("torch:encoders:Tokens", image_size=32, layer="patches")
    whole = get_representation("torch:encoders:Tokens", image_size=32)
    assert torch.equal(whole.encode(images), encoder.encode(images))
    assert get_representation("torch:encoders:Tokens", image_size=32, tokens="flat").feature_shape == (17 * 16,)
    mean = get_representation("torch:encoders:Tokens", image_size=32, tokens="mean").encode(images)
    torch.testing.assert_close(mean, whole.encode(images).mean(dim=(2, 3)))
    assert isinstance(module, nn.Module)
    tokens = torch.rand(2, 12, 3)  # 2 and 10 places, which are no square
    torch.testing.assert_close(arrange(tokens, "mean", [2], False, "encoder"), tokens[:, 2:].mean(dim=1))


def test_an_output_among_several_is_named_by_a_path(images: Tensor) -> None:
    hidden, summary, second = (
        get_representation("torch:encoders:Outputs", image_size=32, output=output).encode(images)
        for output in ("hidden", "summary", "states.1")
    )
    assert hidden.shape == (5, 16, 4, 4)
    assert summary.shape == (5, 16)
    torch.testing.assert_close(second, hidden + 1)
    assert get_representation("torch:encoders:Pair", image_size=32, output=0).feature_shape == (16,)


def test_maps_with_their_channels_last_are_turned(images: Tensor) -> None:
    first = get_representation("torch:encoders:small", layer="body.0")
    last = get_representation("torch:encoders:small", layer="body.0", layout="nhwc")
    assert torch.equal(last.encode(images), first.encode(images).permute(0, 3, 1, 2))


def test_random_weights_are_the_same_every_time() -> None:
    first = get_representation("torch:encoders:small").fingerprint
    torch.manual_seed(5)
    assert get_representation("torch:encoders:small", layer="").fingerprint == first


def test_weights_of_a_checkpoint_are_found(tmp_path: Path) -> None:
    state = {f"module.{name}": value + 1 for name, value in encoders.Small().state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    encoder = get_representation("torch:encoders:small", weights=str(tmp_path / "checkpoint.pth"))
    assert encoder.fingerprint != get_representation("torch:encoders:small").fingerprint
    torch.save({"model": 3}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="is no state dict of tensors: it holds model"):
        get_representation("torch:encoders:small", weights=str(tmp_path / "odd.pth"))


def weights_file(file: Path, **parts: dict[str, Tensor] | int) -> str:
    torch.save(parts, file)
    return str(file)


def test_a_file_without_the_layers_behind_serves_those_before(tmp_path: Path) -> None:
    body = {name: value for name, value in encoders.Small().state_dict().items() if name.startswith("body.")}
    head = {"head.mlp.0.weight": torch.ones(3, 3)}  # a projection of its own, as self-supervised training has it
    file = weights_file(tmp_path / "f.pth", **body, **head)
    with pytest.warns(WeightsWarning, match=r"lacks head\.1.* and has head\.mlp\.0\.weight beside it"):
        encoder = get_representation("torch:encoders:small", weights=file, layer="body")
    assert encoder.encode(torch.rand(2, 3, 32, 32)).shape == (2, 24, 8, 8)
    with pytest.raises(WeightsError, match=r"lacks head\.1\.weight, .* which the output of .*small needs"):
        get_representation("torch:encoders:small", weights=file).encode(torch.rand(2, 3, 32, 32))


def test_of_several_networks_in_a_checkpoint_one_is_chosen(tmp_path: Path) -> None:
    own = encoders.Small().state_dict()
    query, key = ({f"module.encoder_{which}.{name}": value for name, value in own.items()} for which in "qk")
    key["module.encoder_k.body.0.bias"] = torch.ones(24)
    file = weights_file(tmp_path / "moco.pth", state_dict=query | key, epoch=3)
    with pytest.raises(WeightsError, match=r"--set prefix=encoder_q or prefix=encoder_k"):
        get_representation("torch:encoders:small", weights=file)
    encoder = get_representation("torch:encoders:small", weights=file, prefix="encoder_k")
    assert torch.equal(encoder.module.body[0].bias, key["module.encoder_k.body.0.bias"])  # type: ignore[attr-defined]
    with pytest.raises(WeightsError, match=r"nothing of this network under 'teacher', but under encoder_q"):
        get_representation("torch:encoders:small", weights=file, prefix="teacher")
    del key["module.encoder_k.head.1.weight"]  # one is less whole than the other
    with pytest.raises(WeightsError, match="--set prefix=encoder_q or prefix=encoder_k"):
        get_representation("torch:encoders:small", weights=weights_file(tmp_path / "b.pth", state_dict=query | key))
    nested = {"student": {"backbone": encoders.Small().state_dict()}, "epoch": 3, "optimizer": {"state": {0: {}}}}
    only = weights_file(tmp_path / "dino.pth", **nested)
    assert get_representation("torch:encoders:small", weights=only).feature_shape == (64,)


def test_more_layers_than_a_network_has_are_another_network(tmp_path: Path) -> None:
    deeper = encoders.Small().state_dict() | {"body.4.weight": torch.ones(3)}
    with pytest.raises(WeightsError, match=r"another architecture: body\.4\.weight is not part of Small"):
        get_representation("torch:encoders:small", weights=weights_file(tmp_path / "f.pth", **deeper))
    wider = encoders.Small().state_dict() | {"body.0.weight": torch.ones(24, 3, 5, 5)}
    with pytest.raises(WeightsError, match=r"another architecture: body\.0\.weight has shape \(24, 3, 5, 5\)"):
        get_representation("torch:encoders:small", weights=weights_file(tmp_path / "g.pth", **wider))
    of_other_classes = encoders.Small().state_dict() | {"head.1.weight": torch.ones(9, 4), "head.1.bias": torch.ones(9)}
    file = weights_file(tmp_path / "h.pth", **of_other_classes)
    with pytest.warns(WeightsWarning, match=r"has head\.1\.weight of shape 9 x 4, expected 64 x 1536, .* beside it"):
        assert get_representation("torch:encoders:small", weights=file, layer="body").feature_shape == (24, 8, 8)


def test_the_layers_of_a_module_are_listed_with_their_shapes() -> None:
    body = dict.fromkeys((f"body.{place}" for place in range(4)), "24 x 8 x 8")
    assert api.layers("torch:encoders:small") == {
        **body, "body": "24 x 8 x 8", "head.0": "1536", "head.1": "64", "head": "64"
    }  # fmt: skip
    assert api.layers("torch:encoders:Outputs", image_size=32)["patches"] == "16 x 4 x 4"
    with pytest.raises(SettingsError, match="hog is no torch module"):
        api.layers("hog")


def test_a_prefix_is_one_of_names_in_a_file() -> None:
    with pytest.raises(SettingsError, match="give weights=FILE too"):
        get_representation("torch:encoders:small", prefix="teacher")


def test_a_module_whose_weights_change_is_noticed(images: Tensor) -> None:
    encoder = get_representation("torch:encoders:Small")
    encoder.encode(images)
    with torch.no_grad():
        encoder.module.head[1].bias += 1  # type: ignore[attr-defined]
    with pytest.raises(FeatureError, match=r"weights .* have been changed"):
        encoder.encode(images)
    assert torch.isfinite(get_representation("torch:encoders:Small").encode(images)).all()


def test_a_module_put_back_to_training_is_refused(images: Tensor) -> None:
    encoder = get_representation("torch:encoders:Small")
    encoder.module.train()  # type: ignore[attr-defined]
    with pytest.raises(FeatureError, match="training mode"):
        encoder.encode(images)


def test_a_brighter_module_reads_brighter_images(images: Tensor) -> None:
    encoder = get_representation("torch:encoders:small", layer="body.0")
    brighter = encoder.brightened(0.5)
    assert brighter is not None
    torch.testing.assert_close(brighter.encode(images), encoder.encode(images * 0.5))
    with pytest.raises(SettingsError, match="positive factor, got 0"):
        encoder.brightened(0)


def test_gradient_descent_inverts_a_module(images: Tensor) -> None:
    encoder = get_representation("torch:encoders:small", layer="body.0", image_size=32)
    features = encoder.encode(images)
    inverter = GradientDescent(encoder, method="adam", iterations=100).restore({"mean": torch.full((3,), 127.5)})
    grey = encoder.encode(torch.full_like(images, 0.5))
    error = (encoder.encode(inverter.invert(features)) - features).norm()
    assert error < 0.5 * (grey - features).norm()


# --- ONNX graphs ------------------------------------------------------------------------------------------------------


def test_a_graph_gives_what_it_says(folder: Path, images: Tensor) -> None:
    encoder = get_representation(f"onnx:{folder}/small.onnx", output="map", mean=0.5, deviation=0.25, bgr=True)
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32) / 7)
    expected = torch.nn.functional.conv2d((images.flip(1) - 0.5) / 0.25, weight, stride=4)
    torch.testing.assert_close(encoder.encode(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_graph_of_a_fixed_batch_gets_so_many_at_a_time(batch: int, tmp_path: Path, images: Tensor) -> None:
    fixed = get_representation(f"onnx:{graph(tmp_path / 'fixed.onnx', batch=batch)}", output="map")
    free = get_representation(f"onnx:{graph(tmp_path / 'free.onnx')}", output="map")
    torch.testing.assert_close(fixed.encode(images), free.encode(images))


def test_a_graph_may_take_any_size_or_one_only(tmp_path: Path) -> None:
    free = graph(tmp_path / "free.onnx", size=None)
    assert get_representation(f"onnx:{free}", output="map").feature_shape == (12, 56, 56)
    assert get_representation(f"onnx:{free}", output="map", image_size=40).feature_shape == (12, 10, 10)
    fixed = graph(tmp_path / "fixed.onnx")
    with pytest.raises(SettingsError, match="takes images of 32 pixels, not of image_size=40"):
        get_representation(f"onnx:{fixed}", output="map", image_size=40)


def test_a_graph_of_bytes_gets_bytes(tmp_path: Path, images: Tensor) -> None:
    bytes_ = get_representation(f"onnx:{graph(tmp_path / 'b.onnx', kind=TensorProto.UINT8)}", output="map")
    floats = get_representation(f"onnx:{graph(tmp_path / 'f.onnx')}", output="map", white=255)
    torch.testing.assert_close(bytes_.encode(images), floats.encode((images * 255).round() / 255), atol=1e-2, rtol=1e-4)


def test_a_graph_of_bytes_cannot_be_given_brighter_ones(tmp_path: Path) -> None:
    file = graph(tmp_path / "b.onnx", kind=TensorProto.UINT8)
    assert get_representation(f"onnx:{file}", output="map").brightened(2) is None


def test_an_output_may_be_called_by_a_number(tmp_path: Path, images: Tensor) -> None:
    file = graph(tmp_path / "n.onnx", called="495")
    assert get_representation(f"onnx:{file}", output=495).encode(images).shape[1:] == (12, 8, 8)


def test_outputs_of_a_graph_are_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match="several outputs: map, mean"):
        get_representation(f"onnx:{folder}/small.onnx")
    with pytest.raises(UnknownNameError, match="Did you mean 'map'"):
        get_representation(f"onnx:{folder}/small.onnx", output="mapp")


def test_another_file_is_another_fingerprint(tmp_path: Path) -> None:
    one, other = graph(tmp_path / "one.onnx"), graph(tmp_path / "other.onnx", batch=2)
    prints = {get_representation(f"onnx:{file}", output="map").fingerprint for file in (one, other)}
    assert len(prints) == 2


def test_weights_beside_a_graph_s_file_count_in_the_fingerprint(tmp_path: Path, images: Tensor) -> None:
    inside, file, beside = graph(tmp_path / "inside.onnx"), tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    model = onnx.load(inside)
    onnx.save_model(model, file, save_as_external_data=True, location=beside.name, size_threshold=0)
    first = get_representation(f"onnx:{file}", output="map", mean=0)
    features = first.encode(images)
    torch.testing.assert_close(
        features, get_representation(f"onnx:{inside}", output="map", mean=0).encode(images), atol=1e-6, rtol=1e-5
    )
    beside.write_bytes((2 * np.frombuffer(beside.read_bytes(), np.float32)).tobytes())
    second = get_representation(f"onnx:{file}", output="map", mean=0)
    torch.testing.assert_close(second.encode(images), 2 * features)
    assert second.fingerprint != first.fingerprint


def test_weights_of_a_graph_within_a_graph_count_too(tmp_path: Path) -> None:
    far = helper.make_tensor("far", TensorProto.FLOAT, [1], b"\0\0\0\0", raw=True)
    onnx.external_data_helper.set_external_data(far, location="far.data", offset=0, length=4)
    far.ClearField("raw_data")
    far.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Constant", [], ["y"], value=far)
    branch = helper.make_graph([node], "branch", [], [])
    choice = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([choice], "whole", [], []))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "far.data").write_bytes(b"1234")
    assert external_files(tmp_path / "model.onnx", 0) == (tmp_path / "far.data",)


def test_a_graph_whose_weights_are_gone_is_refused(tmp_path: Path) -> None:
    file, beside = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    model = onnx.load(graph(tmp_path / "inside.onnx"))
    onnx.save_model(model, file, save_as_external_data=True, location=beside.name, size_threshold=0)
    beside.unlink()
    with pytest.raises(WeightsError, match=r"cannot be read as an ONNX graph(.|\n)*model\.onnx\.data"):
        get_representation(f"onnx:{file}", output="map")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("dear diary")
    with pytest.raises(WeightsError, match="cannot be read as an ONNX graph"):
        get_representation(f"onnx:{tmp_path}/notes.onnx")


# --- functions and programs -------------------------------------------------------------------------------------------


@pytest.fixture
def dark(images: Tensor) -> Tensor:
    darkened = images.clone()
    darkened[3] = 0
    return darkened


def test_an_encoder_that_sees_no_difference_is_told(images: Tensor) -> None:
    with pytest.warns(PreimageWarning, match="the same features: is this the output you want"):
        encode("python:encoders:constant", images, image_size=32)


def test_whatever_numbers_a_function_gives_become_float32(images: Tensor) -> None:
    assert encode("python:encoders:above_average", images, image_size=32, tokens="flat").unique().tolist() == [0, 1]
    assert encode("python:encoders:scalar", images, image_size=32).shape == (5, 1)


def test_the_image_that_a_function_fails_on_is_named(dark: Tensor) -> None:
    with pytest.raises(FeatureError, match=r"fails on image 3 of 5.*it is too dark.*on_error=zeros"):
        encode("python:encoders:refuses_dark", dark, image_size=32)


def test_zeros_are_no_way_on_where_no_image_succeeds(dark: Tensor) -> None:
    with pytest.raises(FeatureError, match=r"fails on image 0 of 1, counted from 0: ValueError: sorry$"):
        encode("python:encoders:sorry", dark, image_size=32, on_error="zeros")


def test_zeros_stand_for_images_that_a_function_fails_on_if_wanted(dark: Tensor) -> None:
    features = encode("python:encoders:refuses_dark", dark, image_size=32, on_error="zeros")
    assert features.any(dim=1).tolist() == [True, True, True, False, True]
    assert not encode("python:encoders:refuses_dark", dark[3:4], image_size=32, on_error="zeros").any()


def test_features_that_are_not_finite_are_refused_by_row(dark: Tensor) -> None:
    with pytest.raises(FeatureError, match=r"not_finite: features must be finite; rows \[3\]"):
        encode("python:encoders:not_finite", dark, image_size=32)


def test_an_encoder_that_drifts_is_noticed(images: Tensor) -> None:
    encoder = get_representation("python:encoders:drifting", image_size=32)
    with pytest.raises(FeatureError, match="has changed: the same image gives other features"):
        torch.cat([encoder.encode(images) for _ in range(9)])


def test_the_function_s_code_and_the_files_it_reads_count_in_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source, weights = tmp_path / "own_code.py", tmp_path / "weights.bin"
    source.write_text("def encode(images): return images.mean(axis=(1, 2))")
    weights.write_text("1")

    def fingerprint() -> str:
        return get_representation("python:own_code:encode", files=[str(weights)]).fingerprint

    prints = {fingerprint()}
    source.write_text("def encode(images): return images.max(axis=(1, 2))")
    prints.add(fingerprint())
    weights.write_text("2")
    prints.add(fingerprint())
    assert len(prints) == 3


def test_features_of_functions_and_programs_are_kept_on_disk(tmp_path: Path, images: Tensor) -> None:
    encoder = get_representation("python:encoders:thumbnails", image_size=32)
    assert isinstance(cached(encoder), CachedRepresentation)
    kept = CachedRepresentation(encoder, tmp_path)
    assert torch.equal(kept.encode(images), encoder.encode(images))
    assert len(list(tmp_path.glob("*/??/*.npz"))) == 5


@pytest.mark.parametrize(
    ("code", "settings", "words"),
    [
        ("print('hello')", {}, "should write one .npy array and nothing else to stdout, and wrote b'hello"),
        ("raise SystemExit(3)", {}, "ended with exit code 3. It said nothing on stderr"),
        ("raise ValueError('no such layer')", {}, "exit code 1.(.|\n)*ValueError: no such layer"),
        ("import time; time.sleep(60)", {"timeout": 0.5}, "took more than 0.5 seconds for 1 images"),
        ("import sys, numpy; numpy.save(sys.stdout.buffer, numpy.zeros((7, 3)))", {}, "expected as many rows"),
    ],
)
def test_programs_that_fail_are_told(code: str, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code)
    encoder = get_representation(f"command:{sys.executable} {tmp_path}/program.py", image_size=16, **settings)
    with pytest.raises(FeatureError, match=words):
        encoder.encode(torch.rand(2, 3, 16, 16))
