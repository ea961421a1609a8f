"""What every representation promises, checked for every name in the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from preimage.errors import ImageError, PreimageError, SettingsError, UnknownNameError
from preimage.interfaces import Representation
from preimage.representations import REPRESENTATIONS, get_representation


@pytest.fixture(params=sorted(REPRESENTATIONS))
def representation(request: pytest.FixtureRequest) -> Representation:
    return get_representation(request.param)


def test_the_declared_shape_is_the_shape_returned(representation: Representation, sample_images: Tensor) -> None:
    features = representation.encode(sample_images)
    assert features.shape == (len(sample_images), *representation.feature_shape)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()


def test_each_image_is_encoded_on_its_own(representation: Representation, sample_images: Tensor) -> None:
    together = representation.encode(sample_images)
    alone = torch.cat([representation.encode(image[None]) for image in sample_images])
    torch.testing.assert_close(together, alone)


def test_encoding_twice_gives_the_same(representation: Representation, sample_images: Tensor) -> None:
    assert torch.equal(representation.encode(sample_images), representation.encode(sample_images))


def test_different_images_have_different_features(representation: Representation, sample_images: Tensor) -> None:
    features = representation.encode(sample_images)
    assert not torch.allclose(features[0], features[1])


def test_memory_layout_does_not_matter(representation: Representation, sample_images: Tensor) -> None:
    packed = representation.encode(sample_images.contiguous())
    channels_last = representation.encode(sample_images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(packed, channels_last)


def test_eight_bit_values_are_refused_with_advice(representation: Representation, sample_images: Tensor) -> None:
    with pytest.raises(ImageError, match="divide 8-bit images by 255"):
        representation.encode(sample_images * 255)
    with pytest.raises(ImageError, match="divide 8-bit images by 255"):
        representation.encode((sample_images * 255).byte())


def test_images_that_are_no_batch_are_refused(representation: Representation, sample_images: Tensor) -> None:
    with pytest.raises(ImageError, match="add a batch dimension"):
        representation.encode(sample_images[0])
    with pytest.raises(ImageError, match=r"expected images of shape \(N, 3, H, W\)"):
        representation.encode(sample_images[:, :1])
    with pytest.raises(ImageError, match="at least one image"):
        representation.encode(sample_images[:0])
    with pytest.raises(ImageError, match=r"\[nan, nan\]"):
        representation.encode(sample_images * torch.nan)


def test_its_picture_is_a_picture(representation: Representation, sample_images: Tensor) -> None:
    picture = representation.draw(representation.encode(sample_images))
    if picture is not None:
        assert picture.ndim == 4
        assert picture.shape[:2] == (len(sample_images), 3)
        assert 0 <= picture.min() < picture.max() <= 1


def test_settings_build_it_again(representation: Representation) -> None:
    again = get_representation(representation.name, **representation.settings)
    assert again == representation
    assert again.fingerprint == representation.fingerprint


def test_another_setting_is_another_fingerprint(representation: Representation) -> None:
    resized: Any = replace(representation, image_size=2 * representation.image_size)  # type: ignore[type-var]
    assert resized.fingerprint != representation.fingerprint


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hog'"):
        get_representation("hogg")


def test_an_unknown_setting_suggests_the_nearest(representation: Representation) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'image_size'"):
        get_representation(representation.name, imagesize=128)


def test_a_setting_of_the_wrong_type_is_the_users_mistake(representation: Representation) -> None:
    with pytest.raises(SettingsError):
        get_representation(representation.name, image_size="large")
    assert issubclass(SettingsError, PreimageError)
