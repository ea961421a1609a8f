"""What every inverter promises, checked for every name in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from preimage.errors import FeatureError, NotFittedError, WeightsError
from preimage.images import Photos
from preimage.interfaces import Inverter
from preimage.inverters import INVERTERS, load_inverters, save_inverters
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG
from preimage.training import TrainingSettings

SMALL = HOG(image_size=64)

# An autoencoder needs an encoder that can be trained: tests/test_autoencoder.py.
NAMES = sorted(INVERTERS.keys() - {"autoencoder"})
QUICK: dict[str, dict[str, Any]] = {
    "upconv": {"width": 0.05},
    "gradient-descent": {"iterations": 4},
    "hoggles": {"windows": 128, "atoms": 16},
}


def make(name: str) -> Inverter:
    inverter: Inverter = INVERTERS[name](SMALL, **QUICK.get(name, {}))
    return inverter


def fit(inverter: Inverter, pairs: EncodedPhotos) -> Inverter:
    if inverter.name == "upconv":
        return inverter.fit(pairs, TrainingSettings(steps=5, precision="float32"))  # type: ignore[call-arg]
    return inverter.fit(pairs)


@pytest.fixture(scope="module")
def pairs(crops: Path) -> EncodedPhotos:
    return EncodedPhotos(SMALL, Photos.open(crops, 64).load())


@pytest.fixture(scope="module")
def features(pairs: EncodedPhotos) -> Tensor:
    return next(iter(pairs)).features[:5]


@pytest.fixture(params=NAMES, scope="module")
def fitted(request: pytest.FixtureRequest, pairs: EncodedPhotos) -> Inverter:
    return fit(make(request.param), pairs)


@pytest.mark.parametrize("name", NAMES)
def test_unfitted_use_explains_itself(name: str, features: Tensor) -> None:
    with pytest.raises(NotFittedError, match=r"call \.fit"):
        make(name).invert(features)
    with pytest.raises(NotFittedError):
        make(name).state()


def test_reconstructions_are_images(fitted: Inverter, features: Tensor) -> None:
    images = fitted.invert(features)
    assert images.shape == (5, 3, 64, 64)
    assert 0 <= images.min() <= images.max() <= 1


def test_each_feature_is_inverted_on_its_own(fitted: Inverter, features: Tensor) -> None:
    alone = torch.cat([fitted.invert(one[None]) for one in features])
    torch.testing.assert_close(fitted.invert(features), alone, atol=1e-5, rtol=1e-4)


def test_fitting_twice_gives_the_same(fitted: Inverter, pairs: EncodedPhotos, features: Tensor) -> None:
    again = fit(make(fitted.name), pairs)
    assert torch.equal(fitted.invert(features), again.invert(features))


def test_saving_and_loading_changes_nothing(fitted: Inverter, features: Tensor, tmp_path: Path) -> None:
    save_inverters([fitted], tmp_path / "inverter.safetensors")
    loaded = load_inverters(tmp_path / "inverter.safetensors")
    assert list(loaded) == [fitted.name]
    assert loaded[fitted.name].representation == SMALL
    assert torch.equal(fitted.invert(features), loaded[fitted.name].invert(features))


def test_features_of_another_shape_are_refused(fitted: Inverter, features: Tensor) -> None:
    with pytest.raises(FeatureError, match=r"expected features of shape \(N, 31, "):
        fitted.invert(features[:, :4])
    with pytest.raises(FeatureError, match="add a batch dimension"):
        fitted.invert(features[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_are_inverted_in_float32(fitted: Inverter, features: Tensor, dtype: torch.dtype) -> None:
    rounded = features[:2].to(dtype)
    assert torch.equal(fitted.invert(rounded), fitted.invert(rounded.float()))


def test_features_that_are_not_finite_are_refused_by_row(fitted: Inverter, features: Tensor) -> None:
    broken = features.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(FeatureError, match=r"rows \[3\] hold NaN"):
        fitted.invert(broken)
    with pytest.raises(FeatureError, match=r"rows \[1\] hold NaN or infinity in float32"):
        fitted.invert(features.double() * torch.tensor([1, 1e300, 1, 1, 1], dtype=torch.float64).view(-1, 1, 1, 1))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.safetensors"
    text.write_text("these are not weights")
    with pytest.raises(WeightsError, match="not a file of inverters"):
        load_inverters(text)
    with pytest.raises(WeightsError, match="there is no file"):
        load_inverters(tmp_path / "nothing.safetensors")


def test_a_file_that_lacks_a_tensor_is_refused(pairs: EncodedPhotos, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_inverters([fit(make("mean-image"), pairs)], file)
    with safe_open(file, framework="pt") as content:
        described, tensors = content.metadata(), {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    for lost in [name for name in tensors if name.startswith("mean-image.")]:
        save_file({name: value for name, value in tensors.items() if name != lost}, file, described)
        with pytest.raises(WeightsError, match="is damaged: it lacks"):
            load_inverters(file)


def test_what_is_kept_in_float16_is_not_written_wider(pairs: EncodedPhotos, tmp_path: Path) -> None:
    nearest = fit(make("nearest"), pairs)
    save_inverters([nearest], tmp_path / "file.safetensors")
    kept = {f"nearest.{name}": value.dtype for name, value in nearest.state().items()}
    with safe_open(tmp_path / "file.safetensors", framework="pt") as content:
        assert {name: content.get_tensor(name).dtype for name in kept} == kept
    assert torch.float16 in kept.values()
