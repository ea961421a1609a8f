"""What every representation promises, checked for every name in the table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conftest import weights_of
from preimage.contract import PROMISES
from preimage.errors import ImageError, PreimageError, SettingsError, UnknownNameError
from preimage.interfaces import Representation
from preimage.representations import REPRESENTATIONS, get_representation

MISSING = sorted({name for name in REPRESENTATIONS if weights_of(name) is None})


@pytest.fixture(params=sorted(set(REPRESENTATIONS) - set(MISSING)), scope="module")
def representation(request: pytest.FixtureRequest) -> Representation:
    return get_representation(request.param, **weights_of(request.param) or {})


if MISSING:

    @pytest.mark.parametrize("name", MISSING)
    def test_what_cannot_be_tested_here(name: str) -> None:
        pytest.skip(f"the weights or the extra that {name} needs are not on this machine")


@pytest.fixture(scope="module")
def images(representation: Representation, sample_images: Tensor) -> Tensor:
    """The sample photographs at the representation's own size."""
    size = representation.image_size
    return torch.nn.functional.interpolate(sample_images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_kept(promise: str, representation: Representation, images: Tensor) -> None:
    PROMISES[promise](representation, images)


def test_images_that_are_no_batch_are_refused(representation: Representation, images: Tensor) -> None:
    with pytest.raises(ImageError, match="add a batch dimension"):
        representation.encode(images[0])
    with pytest.raises(ImageError, match=r"expected images of shape \(N, 3, H, W\)"):
        representation.encode(images[:, :1])
    with pytest.raises(ImageError, match="at least one image"):
        representation.encode(images[:0])
    with pytest.raises(ImageError, match=r"\[nan, nan\]"):
        representation.encode(images * torch.nan)
    with pytest.raises(ImageError, match=r"got \[.*, 1.001\]; images.clamp"):
        representation.encode(images / images.max() * 1.001)


def test_images_of_other_kinds_are_refused_with_a_way_on(representation: Representation, images: Tensor) -> None:
    with pytest.raises(ImageError, match="without mean subtracted"):
        representation.encode((images - 0.5) / 0.25)
    with pytest.raises(ImageError, match=r"give images\.float\(\)"):
        representation.encode(images.half())
    with pytest.raises(ImageError, match=r"torch\.from_numpy"):
        representation.encode(images.numpy())  # type: ignore[arg-type]


def test_resizing_may_leave_the_range_by_rounding(representation: Representation, images: Tensor) -> None:
    features = representation.encode(images / images.max() * (1 + 1e-6))
    assert torch.isfinite(features).all()


def test_its_picture_is_a_picture(representation: Representation, images: Tensor) -> None:
    picture = representation.draw(representation.encode(images))
    if picture is not None:
        assert picture.ndim == 4
        assert picture.shape[:2] == (len(images), 3)
        assert 0 <= picture.min() < picture.max() <= 1


WITH_SETTINGS = [name for name in sorted(REPRESENTATIONS) if "." not in name]


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_another_setting_is_another_fingerprint(name: str) -> None:
    usual = get_representation(name)
    larger = get_representation(name, image_size=2 * usual.image_size)
    assert larger.fingerprint != usual.fingerprint


def test_no_two_representations_share_a_fingerprint() -> None:
    names = [name for name in REPRESENTATIONS if name.partition(".")[0] in ("hog", "lbp", "efficientnet_lite0")]
    assert len({get_representation(name).fingerprint for name in names}) == len(names)


def test_a_smooth_form_encodes_alike_and_takes_any_pixel_values(representation: Representation, images: Tensor) -> None:
    smooth = representation.smooth()
    if smooth is None:
        assert not representation.differentiable
        return
    features, alike = representation.encode(images), smooth(images)
    assert torch.dist(features, alike) < (1e-5 if representation.differentiable else 0.2) * features.norm()
    wild = (3 * images[:1] - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(smooth(wild).sum(), wild)
    assert torch.isfinite(gradient).all()


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hog'"):
        get_representation("hogg")


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_an_unknown_setting_suggests_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'image_size'"):
        get_representation(name, imagesize=128)


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_a_setting_of_the_wrong_type_is_the_users_mistake(name: str) -> None:
    with pytest.raises(SettingsError):
        get_representation(name, image_size="large")
    assert issubclass(SettingsError, PreimageError)


def test_a_setting_where_there_is_none_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"setting of efficientnet_lite0\.pool"):
        get_representation("efficientnet_lite0.pool", image_size=128)
