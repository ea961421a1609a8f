"""HOG by hand: what is known without a library."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from preimage.errors import ImageError, SettingsError
from preimage.representations import HOG


def test_a_constant_image_has_no_orientation() -> None:
    assert HOG().encode(torch.full((1, 3, 256, 256), 0.5)).abs().max() == 0


def test_a_vertical_edge_points_across() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., 32:] = 1
    undirected = HOG(image_size=64).encode(image)[0, 18:27, 4, 4]
    assert undirected.argmax() == 0  # the gradient of a vertical edge is horizontal
    dark_to_bright, bright_to_dark = HOG(image_size=64).encode(torch.cat([image, 1 - image]))[:, :18, 4, 4]
    assert (dark_to_bright.argmax(), bright_to_dark.argmax()) == (0, 9)


def test_brightness_hardly_matters(sample_images: Tensor) -> None:
    once, tenfold = HOG().encode(sample_images), HOG(pixel_scale=2550).encode(sample_images)
    assert (once - tenfold).abs().mean() < 1e-3


def test_gradients_agree_with_finite_differences() -> None:
    hog = HOG(image_size=16, round_grey=False, pixel_scale=255)
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(hog.smooth(), images, eps=1e-7, atol=1e-3)


def test_gradients_are_finite_in_flat_places() -> None:
    images = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    HOG(image_size=32, round_grey=False).encode(images).sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_it_says_whether_it_is_differentiable() -> None:
    assert HOG(round_grey=False).differentiable
    assert not HOG().differentiable


def test_any_size_that_the_cell_divides(sample_images: Tensor) -> None:
    assert HOG().encode(sample_images[:, :, :64, :200]).shape == (4, 31, 8, 25)
    with pytest.raises(ImageError, match="cell_size=8 does not divide an image of 201 x 64 pixels"):
        HOG().encode(sample_images[:, :, :64, :201])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="cell_size=8 does not divide image_size=60"):
        HOG(image_size=60)
    with pytest.raises(SettingsError, match="at least 2"):
        HOG(cell_size=0)
    with pytest.raises(SettingsError, match="positive"):
        HOG(pixel_scale=0)


def test_encoding_in_inference_mode_does_no_harm_to_later_gradients() -> None:
    hog = HOG(cell_size=4, image_size=20, round_grey=False)
    with torch.inference_mode():
        hog.encode(torch.rand(1, 3, 20, 20))
    images = torch.rand(1, 3, 20, 20, requires_grad=True)
    hog.encode(images).sum().backward()
    assert images.grad is not None
