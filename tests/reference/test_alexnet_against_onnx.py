"""AlexNet layer by layer against a graph written by hand from the layer description, run by onnxruntime.

The description (Krizhevsky et al. 2012, Caffe's prototxt): 227 x 227; conv 11/4 96; conv 5 pad 2 group 2 256; conv 3
pad 1 384; the same group 2 384; the same group 2 256; max pool 3/2 after 1, 2 and 5; LRN over 5 channels, alpha 1e-4,
beta 0.75, k 1, before (BVLC) or after (CaffeNet) the pooling; fc 4096, 4096, 1000; softmax.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from preimage.images import Photos
from preimage.networks import load_network
from preimage.networks.alexnet import CAFFE, LAYERS, AlexNet
from preimage.networks.preprocessing import Preprocessing
from preimage.representations import ModuleLayer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.reference

Weights = dict[str, np.ndarray]


def alexnet_graph(order: tuple[str, ...], weights: Weights) -> bytes:
    """The graph with the outputs of all layers; `weights` are named conv1.weight ... fc8.bias."""
    nodes, last = [], "data"

    def node(kind: str, name: str, inputs: list[str], **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def norm(name: str, source: str) -> str:
        return node("LRN", name, [source], size=5, alpha=1e-4, beta=0.75, bias=1.0)

    def pool(name: str, source: str) -> str:
        return node("MaxPool", name, [source], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)

    outputs = []
    for number, (stride, pad, group) in enumerate([(4, 0, 1), (1, 2, 2), (1, 1, 1), (1, 1, 2), (1, 1, 2)], start=1):
        last = node(
            "Conv", f"conv{number}_linear", [last, f"conv{number}.weight", f"conv{number}.bias"],
            strides=[stride] * 2, pads=[pad] * 4, group=group,
        )  # fmt: skip
        last = node("Relu", f"relu{number}", [last])
        steps = order if number in (1, 2) else ("pool",) if number == 5 else ()
        for step in steps:
            last = (norm if step == "norm" else pool)(f"{step}{number}", last)
        outputs.append(last)
    last = node("Flatten", "flat", [last], axis=1)
    for number in (6, 7, 8):
        last = node("Gemm", f"fc{number}_linear", [last, f"fc{number}.weight", f"fc{number}.bias"], transB=1)
        if number < 8:
            last = node("Relu", f"relu{number}", [last])
        outputs.append(last)
    outputs.append(node("Softmax", "prob", [last], axis=1))

    graph = helper.make_graph(
        nodes,
        "alexnet",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [None, 3, 227, 227])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def by_layer(network: AlexNet) -> Weights:
    """The network's own weights under the names of the graph."""
    return {
        name.replace(".conv.", ".").replace(".linear.", "."): value.numpy()
        for name, value in network.state_dict().items()
    }


def outputs_of_graph(order: tuple[str, ...], weights: Weights, images: Tensor) -> dict[str, np.ndarray]:
    """Images in [0, 1], RGB -> the outputs by layer. Fed as the description says: BGR, 0..255, minus the mean."""
    data = images.numpy()[:, ::-1] * 255 - np.array([104, 117, 123], np.float32).reshape(1, 3, 1, 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(alexnet_graph(order, weights), options, ["CPUExecutionProvider"])
    return dict(zip(LAYERS, session.run(None, {"data": np.ascontiguousarray(data)}), strict=True))


def greatest_difference(ours: Tensor, theirs: np.ndarray) -> float:
    """Relative to the largest value of the layer."""
    assert tuple(ours.shape) == theirs.shape
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def images(samples: Photos) -> Tensor:
    return next(Photos(samples.photos, 227).batches(2))[1]


@pytest.fixture(scope="module")
def random_networks() -> dict[str, AlexNet]:
    torch.manual_seed(0)
    bvlc = AlexNet("bvlc").eval().requires_grad_(False)
    caffenet = AlexNet("caffenet").eval().requires_grad_(False)
    caffenet.load_state_dict(bvlc.state_dict())
    return {"bvlc": bvlc, "caffenet": caffenet}


ORDERS = {"bvlc": ("norm", "pool"), "caffenet": ("pool", "norm")}


@pytest.mark.parametrize("variant", ["bvlc", "caffenet"])
def test_every_layer_agrees_for_random_weights(
    variant: str, random_networks: dict[str, AlexNet], images: Tensor
) -> None:
    network = random_networks[variant]
    expected = outputs_of_graph(ORDERS[variant], by_layer(network), images)
    for layer in LAYERS:
        assert greatest_difference(ModuleLayer(network, layer, CAFFE).encode(images), expected[layer]) < 1e-5


def test_every_layer_agrees_for_real_weights(shared_alexnet: str, images: Tensor) -> None:
    network = load_network("bvlc_alexnet", shared_alexnet)
    assert isinstance(network, AlexNet)
    expected = outputs_of_graph(ORDERS["bvlc"], by_layer(network), images)
    for layer in LAYERS:
        assert greatest_difference(ModuleLayer(network, layer, CAFFE).encode(images), expected[layer]) < 1e-4


def test_the_order_of_norm_and_pool_matters(random_networks: dict[str, AlexNet], images: Tensor) -> None:
    wrong = outputs_of_graph(ORDERS["caffenet"], by_layer(random_networks["bvlc"]), images)
    assert (
        greatest_difference(ModuleLayer(random_networks["bvlc"], "conv1", CAFFE).encode(images), wrong["conv1"]) > 1e-4
    )


def test_red_for_blue_would_be_seen(random_networks: dict[str, AlexNet], images: Tensor) -> None:
    expected = outputs_of_graph(ORDERS["bvlc"], by_layer(random_networks["bvlc"]), images)
    wrong = Preprocessing(227, white=255.0, mean=CAFFE.mean)
    features = ModuleLayer(random_networks["bvlc"], "conv1", wrong).encode(images)
    assert greatest_difference(features, expected["conv1"]) > 1e-2


@pytest.mark.slow
def test_it_names_37_photographs_in_100(shared_alexnet: str, shared_photos: Path) -> None:
    """The refitted fc6's figure on the centre crops of the 500 labelled validation photographs."""
    network = load_network("bvlc_alexnet", shared_alexnet)
    photos = Photos.open(shared_photos / "val-00000.tar", 256).load()
    with torch.no_grad():
        named = torch.cat([network(CAFFE(i[:, :, 14:241, 14:241])).argmax(dim=1) for _, i in photos.batches(50)])
    assert float((named == torch.tensor(photos.labels)).float().mean()) == pytest.approx(0.370, abs=0.004)
