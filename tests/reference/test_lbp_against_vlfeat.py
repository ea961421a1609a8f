"""LBP is VLFeat's LBP, to float precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from preimage.images import Photos, grey
from preimage.representations import LBP
from reference import vlfeat

pytestmark = pytest.mark.reference

TOLERANCE = 1e-6


def greatest_difference(images: Tensor, cell_size: int = 16) -> float:
    """Between our features of images (N, 3, H, W) and VLFeat's."""
    ours = LBP(cell_size=cell_size).encode(images).numpy()
    theirs = np.stack([vlfeat.lbp(image.numpy(), cell_size) for image in grey(images)])
    return float(np.abs(ours - theirs).max())


def test_equal_on_200_photographs(validation: Photos) -> None:
    assert max(greatest_difference(images) for _, images in validation.batches(50)) < TOLERANCE


@pytest.mark.parametrize(("cell_size", "height", "width"), [(8, 256, 256), (16, 250, 231), (15, 90, 231), (7, 100, 90)])
def test_equal_for_other_cells_and_sizes(sample_images: Tensor, cell_size: int, height: int, width: int) -> None:
    assert greatest_difference(sample_images[:, :, :height, :width], cell_size) < TOLERANCE


def patch(*rows: list[int]) -> Tensor:
    """One image of 32 x 32 grey levels 0 ... 255 that repeats a small patch."""
    tile = torch.tensor(rows) / 255
    repeats = [-(-32 // side) for side in tile.shape]
    return tile.repeat(*repeats)[:32, :32].expand(1, 3, -1, -1)


@pytest.mark.parametrize(
    "image",
    [
        patch([7]),
        patch([0, 255]),
        patch([0], [255]),
        patch([0, 1, 2, 3], [3, 2, 1, 0], [9, 9, 0, 0]),
        patch([10, 20, 30], [80, 50, 40], [70, 60, 50]),
        torch.randint(0, 256, (1, 1, 32, 32), generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1) / 255,
    ],
    ids=["flat", "columns", "rows", "mixed", "spiral", "noise"],
)
def test_equal_on_patches_made_by_hand(image: Tensor) -> None:
    assert greatest_difference(image, cell_size=8) < TOLERANCE
