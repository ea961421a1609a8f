"""Metrics against independent implementations and against what can be worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from preimage import metrics
from preimage.errors import ImageError
from preimage.metrics import METRICS, distance, mean_pairwise_distance, mean_pairwise_distance_of, psnr, ssim


@pytest.fixture
def pair(sample_images: Tensor) -> tuple[Tensor, Tensor]:
    return sample_images, (sample_images + 0.1 * torch.randn_like(sample_images)).clamp(0, 1)


def test_psnr_and_ssim_are_scikit_images(pair: tuple[Tensor, Tensor]) -> None:
    for photo, back, decibels, similarity in zip(*pair, psnr(*pair), ssim(*pair), strict=True):
        expected = peak_signal_noise_ratio(photo.numpy(), back.numpy(), data_range=1.0)
        assert decibels.item() == pytest.approx(expected, abs=1e-3)
        expected = structural_similarity(photo.numpy(), back.numpy(), data_range=1.0, channel_axis=0)
        assert similarity.item() == pytest.approx(expected, abs=1e-5)


def test_an_error_of_a_tenth_everywhere() -> None:
    black, grey = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.1)
    assert distance(black, grey).item() == pytest.approx(0.1 * math.sqrt(3 * 256))
    assert psnr(black, grey).item() == pytest.approx(20)


def test_mean_pairwise_distance_is_that_over_all_pairs(sample_images: Tensor) -> None:
    pairs = [torch.dist(a.double(), b.double()).item() for a, b in itertools.combinations(sample_images, 2)]
    assert mean_pairwise_distance(sample_images) == pytest.approx(sum(pairs) / len(pairs), rel=1e-6)


def test_the_mean_pairwise_distance_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images, read = torch.rand(11, 3, 120, 120), []
    at_once = mean_pairwise_distance(images)
    monkeypatch.setattr(metrics, "BLOCK", 4)

    def part(rows: range) -> Tensor:
        read.append(len(rows))
        return images[rows.start : rows.stop]

    assert mean_pairwise_distance_of(11, part) == pytest.approx(at_once, rel=1e-12)
    assert max(read) == 4
    assert math.isnan(mean_pairwise_distance(images[:1]))
    monkeypatch.setattr("preimage.metrics.MOST_COMPARED", 4)  # of more, every third here
    assert mean_pairwise_distance(images) == pytest.approx(mean_pairwise_distance(images[::3]), rel=1e-12)


def test_nothing_is_relative_to_the_distance_of_copies() -> None:
    images = torch.rand(1, 3, 120, 120).repeat(9, 1, 1, 1)
    for copies in (images, images + 0.5 / 255 * torch.rand(images.shape).round()):  # written once more as JPEG, say
        with pytest.raises(ImageError, match="the 9 photographs are copies of one"):
            mean_pairwise_distance(copies)


def test_the_mean_image_has_an_nre_near_one_over_root_two() -> None:
    images = torch.rand(200, 3, 8, 8)
    nre = distance(images, images.mean(dim=0, keepdim=True)).mean() / mean_pairwise_distance(images)
    assert nre == pytest.approx(1 / math.sqrt(2), abs=0.01)


def test_titles_say_which_direction_is_better(pair: tuple[Tensor, Tensor]) -> None:
    photos, noisy = pair
    for name, measure in (("nre", distance), ("psnr", psnr), ("ssim", ssim)):
        better, worse = measure(photos, noisy), measure(photos, noisy.roll(1, dims=0))
        assert ((better < worse) if METRICS[name].title.endswith("↓") else (better > worse)).all()
