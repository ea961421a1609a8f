"""Measures of what reconstructions give away, on answers known by hand."""

from __future__ import annotations

import torch

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
