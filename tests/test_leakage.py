"""Measures of what reconstructions give away, on answers known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from preimage import leakage
from preimage.images import Photos
from preimage.leakage import true_matches


def test_the_threshold_of_matches_is_a_value_that_enough_wrong_pairs_stay_below() -> None:
    """Of six wrong pairs, 0.1 to 0.6, the threshold of one in five is the fifth: index 0.8 * 5 = 4, no rounding."""
    alike = torch.tensor([[0.55, 0.1, 0.2], [0.3, 0.45, 0.4], [0.5, 0.6, 0.5]], dtype=torch.float64)
    assert true_matches(alike, 0.2).tolist() == [1, 0, 0]
    assert true_matches(alike, 0.1).tolist() == [0, 0, 0]  # index 4.5 becomes 5


def test_thousands_of_photographs_can_be_matched() -> None:
    """More pairs than 2^24, where torch's quantile stops."""
    alike = torch.zeros(4100, 4100).fill_diagonal_(1)
    assert true_matches(alike, 0.001).all()


def flat(*colour: float) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 32, 32)


def test_the_error_of_colours_is_their_distance_in_the_ab_plane() -> None:
    red, blue = flat(1, 0, 0), flat(0, 0, 1)  # (80.1, 67.2) and (79.2, -107.9) in CIELAB
    assert leakage.colour_errors(red, red).item() == 0
    assert leakage.colour_errors(red, flat(0.5, 0.5, 0.5)).item() == pytest.approx(math.hypot(80.1, 67.2), abs=0.2)
    assert leakage.colour_errors(red, blue).item() == pytest.approx(math.hypot(0.9, 175.1), abs=0.2)
    assert leakage.colour_errors(flat(0.2, 0.2, 0.2), flat(0.9, 0.9, 0.9)).item() == pytest.approx(0, abs=0.1)


def test_among_equals_one_is_drawn() -> None:
    alike = torch.tensor([[0.9, 0.9, 0.1], [0.2, 0.1, 0.3], [0.0, 0.0, 0.5]])
    assert leakage.hits(alike).tolist() == [0.5, 0, 1]


def test_classes_that_are_frequent_enough_are_probed() -> None:
    often = ["cat"] * leakage.FOLDS + ["dog"] * leakage.FOLDS
    assert leakage.frequent([*often, "cow", ""]) == list(range(2 * leakage.FOLDS))
    assert leakage.frequent(["cat"] * 2 * leakage.FOLDS + ["dog"]) == []


def test_copies_are_recognised_scaled_fainter_and_mirrored_and_others_are_not(samples: Photos) -> None:
    images = samples.images(range(len(samples)))
    smaller = nn.functional.interpolate(images[:1], (128, 128), mode="area")
    changed = [nn.functional.interpolate(smaller, (256, 256)), images[1:2] * 0.5 + 0.3, images[2:3].flip(3)]
    unlike = images[3:, :, 64:192, 64:192]
    test = torch.cat([*changed, nn.functional.interpolate(unlike, (256, 256))])
    assert leakage.near_duplicates(test, [images[:2], images[2:]]) == [(0, 0), (1, 1), (2, 2)]
