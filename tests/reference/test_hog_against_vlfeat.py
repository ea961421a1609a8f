"""HOG is VLFeat's HOG, to float precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from preimage.images import Photos, grey
from preimage.representations import HOG
from preimage.representations.hog import normalise, oriented_histograms
from reference import vlfeat

pytestmark = pytest.mark.reference

TOLERANCE = 1e-5


def greatest_difference(grey_images: Tensor, cell_size: int = 8, num_orientations: int = 9) -> float:
    """Between our features and VLFeat's, over a batch of grey images (N, H, W)."""
    ours = normalise(oriented_histograms(grey_images, cell_size, num_orientations)).numpy()
    theirs = np.stack([vlfeat.hog(image.numpy(), cell_size, num_orientations) for image in grey_images])
    return float(np.abs(ours - theirs).max())


def test_equal_on_200_photographs(validation: Photos) -> None:
    hog = HOG()
    for _, images in validation.batches(50):
        theirs = np.stack([vlfeat.hog(image.numpy()) for image in grey(images)])
        assert np.abs(hog.encode(images).numpy() - theirs).max() < TOLERANCE


def test_equal_on_the_samples_at_other_pixel_scales(sample_images: Tensor) -> None:
    for scale in (1.0, 2550.0):
        theirs = np.stack([vlfeat.hog(image.numpy()) for image in grey(sample_images, scale=scale)])
        assert np.abs(HOG(pixel_scale=scale).encode(sample_images).numpy() - theirs).max() < TOLERANCE


@pytest.mark.parametrize("cell_size", [4, 5, 7, 8, 16])
@pytest.mark.parametrize("num_orientations", [4, 6, 7, 9, 10, 12])
def test_equal_for_other_cells_and_orientations(sample_images: Tensor, cell_size: int, num_orientations: int) -> None:
    height, width = 96 // cell_size * cell_size, 160 // cell_size * cell_size
    part = grey(sample_images)[:, 40 : 40 + height, 20 : 20 + width]
    assert greatest_difference(part.contiguous(), cell_size, num_orientations) < TOLERANCE


def odd_images() -> dict[str, Tensor]:
    line, column, dot = torch.zeros(3, 64, 64).unbind(0)
    line[31], column[:, 32], dot[17, 40] = 255, 255, 255
    diagonal = torch.eye(64) * 255
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return {
        "constant": torch.full((64, 64), 128.0), "black": torch.zeros(64, 64), "horizontal line": line,
        "vertical line": column, "dot": dot, "diagonal": diagonal, "other diagonal": diagonal.flip(0),
        "slope": (x + y).round(), "falling slope": (126 - x - y).round(), "chessboard": ((x + y) % 2) * 255,
        "noise": torch.randint(0, 256, (64, 64), generator=torch.Generator().manual_seed(0)).float(),
    }  # fmt: skip


@pytest.mark.parametrize("num_orientations", [6, 8, 9])
@pytest.mark.parametrize("name", list(odd_images()))
def test_equal_on_odd_images(name: str, num_orientations: int) -> None:
    assert greatest_difference(odd_images()[name][None], 8, num_orientations) < TOLERANCE
