"""A layer of a module as a representation: frozen, fed rightly, and left as it was found."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from preimage.errors import FeatureError, UnknownNameError, WeightsError
from preimage.networks import load_network
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import check_hash, fingerprint, load_into, read_state_dict
from preimage.representations import ModuleLayer, get_representation

FED = Preprocessing(image_size=16)


def small_network() -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(3, 4, 3)), ("norm", nn.BatchNorm2d(4)), ("drop", nn.Dropout(0.5)),
        ("body", nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 3))), ("flat", nn.Flatten()),
    ]  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def test_it_gives_what_the_layer_puts_out() -> None:
    network, images = small_network().eval(), torch.rand(2, 3, 16, 16)
    features = ModuleLayer(network, "body.0", FED).encode(images)
    torch.testing.assert_close(features, network.body[0](network.norm(network.conv(images))))  # type: ignore[index]


def test_dropout_and_batch_statistics_stand_still() -> None:
    network = small_network().train()
    layer, images = ModuleLayer(network, "flat", FED), torch.rand(4, 3, 16, 16)
    before = fingerprint(network)
    assert torch.equal(layer.encode(images), layer.encode(images))
    assert fingerprint(network) == before


def test_a_network_that_is_being_trained_is_left_as_it_is() -> None:
    network, images = small_network().train(), torch.rand(4, 3, 16, 16)
    layer = ModuleLayer(network, "flat", FED)
    before = layer.encode(images)
    network(images).sum().backward()
    with torch.no_grad():
        network.conv.weight.zero_()  # type: ignore[union-attr,operator]
    assert network.training
    assert torch.equal(layer.encode(images), before)


def test_tokens_become_a_map_of_their_places() -> None:
    layers = OrderedDict(places=nn.Conv2d(3, 5, 4, 4), flat=nn.Flatten(2), tokens=Transposed())
    layer = ModuleLayer(nn.Sequential(layers), "tokens", FED)
    assert layer.feature_shape == (5, 4, 4)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(layer.encode(images), layer.module.places(images).detach())  # type: ignore[operator]


class Transposed(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.transpose(1, 2)


def test_a_module_put_back_to_training_is_refused() -> None:
    network = small_network().requires_grad_(False).eval()
    layer = ModuleLayer(network, "flat", FED)
    network.train()
    with pytest.raises(FeatureError, match=r"training mode.*call \.eval"):
        layer.encode(torch.rand(1, 3, 16, 16))


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.pair = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), Pair()

    def forward(self, images: Tensor) -> Any:
        if images.shape[-1] == 7:
            raise ValueError("seven is not allowed")
        return self.pair(self.used(images))


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


def test_hooks_are_removed_even_after_an_exception() -> None:
    network = Odd()
    layer = ModuleLayer(network, "used", FED)
    layer.encode(torch.rand(1, 3, 16, 16))
    assert hooks(network) == 0
    with pytest.raises(ValueError, match="seven"):
        layer.encode(torch.rand(1, 3, 7, 7))
    assert hooks(network) == 0


def test_layers_that_give_no_features_explain_themselves() -> None:
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(FeatureError, match="was not reached"):
        ModuleLayer(Odd(), "unused", FED).encode(images)
    with pytest.raises(FeatureError, match="puts out tuple"):
        ModuleLayer(Odd(), "pair", FED).encode(images)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'body\.0'"):
        ModuleLayer(small_network(), "body.0x", FED)


class WithState(nn.Conv2d):
    """State that is no tensor, as quantised modules have it."""

    extra: object = ("a", [torch.ones(2)])

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


def test_the_fingerprint_knows_state_that_is_no_tensor() -> None:
    network = WithState(3, 4, 3)
    before = fingerprint(network)
    assert fingerprint(copy.deepcopy(network)) == before
    network.extra = ("a", [torch.zeros(2)])
    assert fingerprint(network) != before


def test_state_that_python_can_only_point_to_counts_by_its_type() -> None:
    network = WithState(3, 4, 3)
    network.extra = object()
    before = fingerprint(network)
    network.extra = object()
    assert fingerprint(network) == before


def test_a_module_that_gives_a_number_an_image_is_a_vector_of_one() -> None:
    number = ModuleLayer(nn.Sequential(nn.Flatten(), nn.Linear(768, 1), nn.Flatten(0)), "", Preprocessing(16))
    assert (number.feature_shape, number.name) == ((1,), "Sequential")


def test_the_fingerprint_knows_weights_structure_layer_and_preprocessing() -> None:
    network = small_network()
    one = ModuleLayer(network, "body", FED).fingerprint
    assert one == ModuleLayer(network, "body", FED).fingerprint
    assert one != ModuleLayer(network, "flat", FED).fingerprint
    assert one != ModuleLayer(network, "body", Preprocessing(image_size=16, bgr=True)).fingerprint
    assert len({ModuleLayer(nn.Sequential(kind()), "0", FED).fingerprint for kind in (nn.ReLU, nn.GELU)}) == 2
    with torch.no_grad():
        network.conv.bias += 1e-3  # type: ignore[operator]
    assert one != ModuleLayer(network, "body", FED).fingerprint


def test_preprocessing_by_hand() -> None:
    image = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    fed = Preprocessing(1, white=255, mean=(1, 2, 3), deviation=(1, 2, 4), bgr=True)(image)
    torch.testing.assert_close(fed.flatten(), torch.tensor([254.0, (127.5 - 2) / 2, -3 / 4]))


def test_weights_of_another_architecture_are_named() -> None:
    state = small_network().state_dict()
    state["extra"] = torch.zeros(1)
    state["conv.weight"] = torch.zeros(4, 3, 5, 5)
    del state["norm.bias"]
    with pytest.raises(WeightsError, match=r"norm\.bias is missing; extra is not part.*conv\.weight has shape"):
        load_into(small_network(), state, "file.pth")


def test_damaged_weights_are_refused(tmp_path: Any) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(file)
    with pytest.raises(WeightsError, match="expected abc"):
        check_hash(file, "abc")


def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Any) -> None:
    torch.save({"weight": print}, tmp_path / "code.pth")
    with pytest.raises(WeightsError, match="it holds print, which is code") as raised:
        read_state_dict(tmp_path / "code.pth")
    assert "\n" not in str(raised.value)


def test_a_known_network_runs_only_to_its_layer() -> None:
    network = load_network("efficientnet_lite0")
    reached: list[str] = []
    handle = network.get_submodule("stage3").register_forward_hook(lambda *_: reached.append("stage3"))
    ModuleLayer(network, "stage2", Preprocessing(64)).encode(torch.rand(1, 3, 64, 64))
    handle.remove()
    assert reached == []


def test_class_scores_are_drawn_as_bars_of_the_likeliest_classes() -> None:
    """Bars of five classes: the first, which is sure, as wide as the picture, the others a line."""
    layer = get_representation("efficientnet_lite0.logits")
    scores = torch.zeros(1, 1000)
    scores[0, 285] = 50.0
    drawn = layer.draw(scores)
    assert drawn is not None
    widths = [int((row > 0.5).sum()) for row in drawn[0, 0]]
    assert max(widths[: len(widths) // 5]) > 0.9 * drawn.shape[3]
    assert max(widths[len(widths) // 5 :]) < 0.5 * drawn.shape[3]


def test_other_layers_have_no_picture() -> None:
    assert get_representation("efficientnet_lite0.pool").draw(torch.rand(1, 1280)) is None


def test_one_number_is_that_of_all_channels() -> None:
    assert Preprocessing(8, mean=0.5).mean == (0.5, 0.5, 0.5)  # type: ignore[arg-type]
