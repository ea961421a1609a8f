"""The autoencoder trains a copy of the encoder, and leaves the encoder alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from encoders import Tokens
from preimage import api, runs
from preimage.errors import SettingsError
from preimage.images import Photos
from preimage.interfaces import Batch
from preimage.inverters import Autoencoder, UpConv, load_inverters, save_inverters
from preimage.metrics import distance
from preimage.networks.preprocessing import Preprocessing
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG, ModuleLayer, get_representation
from preimage.training import TrainingSettings

QUICK = TrainingSettings(steps=100, batch_size=16, warmup_steps=5, precision="float32", learning_rate=1e-3)


class Narrow(nn.Module):
    """A strided layer whose weights throw nearly everything away, until they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 8, stride=8)
        self.drop = nn.Dropout(0.5)
        nn.init.constant_(self.conv.weight, 0.02)
        nn.init.zeros_(self.conv.bias)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.drop(self.conv(images))
        return out


@pytest.fixture
def layer() -> ModuleLayer:
    return ModuleLayer(Narrow(), "drop", Preprocessing(image_size=32))


@pytest.fixture(scope="module")
def photos(crops: Path) -> Photos:
    return Photos.open(crops, 32).load()


@dataclass
class FlatColours:
    """Pairs of one colour each, all of the same brightness: the encoder as it is cannot tell them apart."""

    layer: ModuleLayer

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Iterator[Batch]:
        colours = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
        colours = (colours - colours.mean(dim=1, keepdim=True)) * 0.6 + 0.5
        images = colours[:, :, None, None].expand(-1, -1, 32, 32)
        for part in torch.split(images, 16):
            yield Batch([str(place) for place in range(len(part))], part, self.layer.encode_photos)


def test_training_the_encoder_keeps_what_the_encoder_throws_away(layer: ModuleLayer) -> None:
    pairs = FlatColours(layer)
    images = torch.cat([batch.images for batch in pairs])
    frozen, trained = (kind(layer, width=0.2).fit(pairs, QUICK) for kind in (UpConv, Autoencoder))
    errors = [
        float(distance(images, each.invert(each.representation.encode(images))).mean()) for each in (frozen, trained)
    ]
    assert errors[1] < 0.6 * errors[0]


def test_only_what_leads_to_the_layer_is_trained(photos: Photos) -> None:
    """Several processes would wait for the gradients of the rest for ever."""
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1))
    autoencoder = Autoencoder(ModuleLayer(network, "0", Preprocessing(image_size=32)), width=0.1)
    autoencoder.prepare(EncodedPhotos(autoencoder.representation, photos))
    trained = {name for name, parameter in autoencoder.network.named_parameters() if parameter.requires_grad}
    assert {"encoder.0.weight", "encoder.0.bias"} <= trained
    assert not trained & {"encoder.1.weight", "encoder.1.bias"}
    autoencoder.network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in autoencoder.network.parameters() if parameter.requires_grad)


def test_a_layer_with_nothing_to_train_before_it_is_refused(photos: Photos) -> None:
    network = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 8, 1))
    autoencoder = Autoencoder(ModuleLayer(network, "0", Preprocessing(image_size=32)), width=0.1)
    with pytest.raises(SettingsError, match="nothing before '0' has weights"):
        autoencoder.prepare(EncodedPhotos(autoencoder.representation, photos))


def test_the_encoder_itself_stays_as_it_was(layer: ModuleLayer, photos: Photos) -> None:
    before = layer.fingerprint
    inverter = Autoencoder(layer, width=0.05).fit(EncodedPhotos(layer, photos), QUICK)
    assert ModuleLayer(layer.module, "drop", layer.preprocessing).fingerprint == before
    assert inverter.representation.fingerprint != before
    assert not layer.module.conv.weight.requires_grad


def test_its_features_are_the_same_from_call_to_call(layer: ModuleLayer, photos: Photos) -> None:
    inverter = Autoencoder(layer, width=0.05).fit(EncodedPhotos(layer, photos), QUICK)
    images = next(photos.batches(2))[1]
    assert torch.equal(inverter.representation.encode(images), inverter.representation.encode(images))


def test_its_features_ask_for_no_gradient_once_it_is_trained(layer: ModuleLayer, photos: Photos) -> None:
    inverter = Autoencoder(layer, width=0.05).fit(EncodedPhotos(layer, photos), QUICK)
    again = Autoencoder(layer, width=0.05).restore(inverter.state())
    images = next(photos.batches(2))[1]
    assert not any(one.representation.encode(images).requires_grad for one in (inverter, again))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tokens_and_half_precision_train_too(dtype: torch.dtype, photos: Photos, tmp_path: Path) -> None:
    """A layer of tokens is read as a map; half weights would not survive Adam, whose epsilon is 0 there."""
    tokens = ModuleLayer(Tokens().to(dtype).eval().requires_grad_(False), "", Preprocessing(image_size=32))
    assert tokens.feature_shape == (16, 4, 4)
    autoencoder = Autoencoder(tokens, width=0.1).fit(EncodedPhotos(tokens, photos), replace(QUICK, steps=3))
    features = autoencoder.representation.encode(photos.images([0, 1]))
    assert autoencoder.invert(features).shape == (2, 3, 32, 32)
    assert "encoder.patches.weight" in autoencoder.state()


def test_without_the_first_stride_maps_are_larger(layer: ModuleLayer) -> None:
    assert layer.feature_shape == (12, 4, 4)
    assert Autoencoder(layer, width=0.05, full_stride=False).representation.feature_shape == (12, 25, 25)
    assert layer.feature_shape_at(32, 32) == (12, 4, 4)


def test_what_is_no_torch_module_cannot_be_trained() -> None:
    with pytest.raises(SettingsError, match=r"needs a layer of a network .* and hog is none"):
        Autoencoder(HOG())


def test_it_is_saved_with_its_encoder(tmp_path: Path, samples: Photos) -> None:
    layer = get_representation("efficientnet_lite0.stem")
    pairs = EncodedPhotos(layer, Photos.open(api.sample_files()[:2], 224).load())
    inverter = Autoencoder(layer, width=0.03).fit(pairs, TrainingSettings(steps=2, precision="float32"))
    save_inverters([inverter], tmp_path / "file.safetensors")
    loaded = load_inverters(tmp_path / "file.safetensors")["autoencoder"]
    images = next(iter(pairs)).images
    assert torch.equal(loaded.representation.encode(images), inverter.representation.encode(images))
    assert torch.equal(*(each.invert(each.representation.encode(images)) for each in (loaded, inverter)))


def test_the_layers_behind_its_own_are_not_saved() -> None:
    layer = get_representation("efficientnet_lite0.stem")
    pairs = EncodedPhotos(layer, Photos.open(api.sample_files()[:2], 224).load())
    state = Autoencoder(layer, width=0.03).fit(pairs, TrainingSettings(steps=2, precision="float32")).state()
    children = {name.split(".")[1] for name in state if name.startswith("encoder.")}
    assert children == {"stem"}


def test_a_run_can_train_one(tmp_path: Path) -> None:
    overrides = [
        "autoencoder=true", "decoder.width=0.03", "training.steps=3", "training.batch_size=2",
        "training.precision=float32", "training.checkpoint_every=2", "augmentation.min_scale=1",
    ]  # fmt: skip
    run = api.train("efficientnet_lite0.stem", api.sample_files(), tmp_path / "run", validation=api.sample_files(),
                    overrides=overrides, device="cpu")  # fmt: skip
    loaded = runs.load_inverter(run.folder)
    assert loaded.name == "autoencoder"
    original = get_representation("efficientnet_lite0.stem")
    images = next(api.sample_photos(224).batches(1))[1]
    assert not torch.equal(loaded.representation.encode(images), original.encode(images))
    assert run.summary_file.exists()
