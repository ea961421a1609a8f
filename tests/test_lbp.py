"""LBP by hand: what is known without a library."""

from __future__ import annotations

import pytest
import torch

from preimage.errors import ImageError, SettingsError
from preimage.representations import LBP
from preimage.representations.lbp import EQUAL_BITS, OTHER, bin_of_pattern, patterns


def test_a_neighbour_counts_only_if_it_is_brighter() -> None:
    """Bits in the order E SE S SW W NW N NE."""
    image = torch.tensor([[9, 5, 5], [5, 5, 6], [1, 5, 7]], dtype=torch.uint8)[None]
    assert patterns(image)[0, 1, 1].item() == 0b00100011


def test_runs_have_bins_of_their_own() -> None:
    bins = bin_of_pattern()
    assert bins[0b00000001] == 0  # one bit, starting east
    assert bins[0b00000011] == 1
    assert bins[0b00000010] == 7
    assert bins[0b10000001] == 7 * 7 + 1  # from north-east on to east
    assert bins[0] == bins[255] == EQUAL_BITS
    assert bins[0b00000101] == OTHER
    assert sorted(set(bins)) == list(range(58))


def test_a_flat_image_is_all_equal_bits() -> None:
    features = LBP().encode(torch.full((1, 3, 256, 256), 0.5))
    assert (features[:, EQUAL_BITS] == 1).all()
    assert features.sum() == 256


def test_every_cell_is_a_distribution_under_a_root() -> None:
    features = LBP().encode(torch.rand(2, 3, 256, 256))
    torch.testing.assert_close(features.square().sum(dim=1), torch.ones(2, 16, 16))


def test_brightness_and_contrast_do_not_matter() -> None:
    image = torch.rand(1, 3, 64, 64)
    lbp = LBP(image_size=64, round_grey=False)
    torch.testing.assert_close(lbp.encode(image), lbp.encode(image * 0.25 + 0.5), atol=1e-2, rtol=0)


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(ImageError, match="smaller than a cell of 16"):
        LBP().encode(torch.rand(1, 3, 64, 15))
    with pytest.raises(SettingsError, match="larger than image_size"):
        LBP(image_size=8)
