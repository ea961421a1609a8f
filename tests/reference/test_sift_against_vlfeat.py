"""The keypoints are VLFeat's, and every number lies where it should in the map of cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.images import Photos, grey
from preimage.representations import SparseSIFT
from preimage.representations.sift import DESCRIPTOR, PARALLEL_FROM, keypoints
from reference import vlfeat

pytest.importorskip("vlsift")

pytestmark = pytest.mark.reference


def sorted_by_frame(frames: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort(frames.T)
    return frames[order], descriptors[order]


def test_keypoints_and_descriptors_are_vlfeats_on_50_photographs(validation: Photos) -> None:
    for _, images in validation.subset(range(50)).batches(10):
        for level in grey(images).numpy():
            frames, descriptors = keypoints(level)
            ours = sorted_by_frame(frames[:, [1, 0, 2, 3]], descriptors)  # (y, x, ...) -> (x, y, ...)
            their_frames, their_descriptors = vlfeat.sift(level)
            described = their_descriptors.any(axis=1)  # at the border VLFeat describes nothing
            theirs = sorted_by_frame(their_frames[described], their_descriptors[described])
            np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
            np.testing.assert_allclose(ours[1], np.minimum(512 * theirs[1], 255), atol=1)  # 8 bits: rounded down


def blob(x: float, y: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 8**2)).expand(1, 3, -1, -1)


def test_a_blob_off_the_centre_is_found_where_it_is() -> None:
    """A blob at x = 182, y = 61 belongs to column 45, row 15, at 2 and 1 pixels within the cell."""
    features = SparseSIFT().encode(blob(182, 61))[0]
    assert (features.abs().sum(dim=0) > 0).nonzero().tolist() == [[15, 45]]
    x, y, sine, cosine, log_scale = features[DESCRIPTOR:, 15, 45].tolist()
    assert (x, y) == (pytest.approx(2, abs=0.1), pytest.approx(1, abs=0.1))
    assert sine**2 + cosine**2 == pytest.approx(1, abs=1e-5)
    assert np.exp(log_scale) == pytest.approx(8, rel=0.2)


def test_one_keypoint_stays_in_a_cell_and_the_loss_is_told() -> None:
    lost, found = SparseSIFT().collisions(blob(182, 61))  # one blob, several orientations
    assert (lost, found) == (found - 1, found)
    assert found > 1


def test_a_brighter_picture_keeps_the_same_keypoints(sample_images: Tensor) -> None:
    """Which of several stays in a cell is drawn at random, but not anew."""
    usual, brighter = (one.encode(sample_images)[:, DESCRIPTOR:] for one in (SparseSIFT(), SparseSIFT().brightened(10)))
    both = (usual.abs().sum(dim=1) > 0) & (brighter.abs().sum(dim=1) > 0)
    moved = (usual - brighter).abs().amax(dim=1)[both] > 0.1
    assert moved.float().mean() < 0.02  # drawn anew, it was 0.075


@pytest.mark.parametrize("size", [252, 220])
def test_keypoints_at_the_border_are_described_where_octaves_are_not_whole(size: int) -> None:
    """VLFeat halves the height and rounds it down; what it does not describe gets the descriptor before."""
    noise = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    level = 255 * F.avg_pool2d(noise[None, None], 9, stride=1, padding=4)[0, 0]
    _, theirs = vlfeat.sift(level.numpy())
    assert len(keypoints(level.numpy())[0]) == theirs.any(axis=1).sum()


def test_many_large_images_are_encoded_as_each_is() -> None:
    """Large ones went to other processes as memory that VLFeat's wrapper could not read."""
    images = torch.rand(1, 3, 520, 520, generator=torch.Generator().manual_seed(0)).expand(PARALLEL_FROM, -1, -1, -1)
    together = SparseSIFT(image_size=520).encode(images)
    assert torch.equal(together[:1], SparseSIFT(image_size=520).encode(images[:1]))


def test_its_picture_shows_the_keypoint_where_it_is() -> None:
    picture = SparseSIFT().draw(SparseSIFT().encode(blob(181.5, 62.5)))[0, 0]  # at twice the size
    rows, columns = picture.nonzero().T
    assert rows.float().mean() == pytest.approx(125, abs=15)
    assert columns.float().mean() == pytest.approx(363, abs=15)


def test_an_image_without_keypoints_is_all_zeros() -> None:
    assert SparseSIFT().encode(torch.full((2, 3, 256, 256), 0.5)).abs().sum() == 0


def test_descriptors_have_a_norm_near_one(sample_images: Tensor) -> None:
    features = SparseSIFT().encode(sample_images)
    norms = features[:, :DESCRIPTOR].norm(dim=1)
    assert norms[norms > 0].mean() == pytest.approx(1, abs=0.02)
