"""Paired dictionaries against planted ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.cache import CachedRepresentation
from preimage.errors import SettingsError
from preimage.images import Photos, grey
from preimage.interfaces import Pairs
from preimage.inverters import PairedDictionary
from preimage.inverters.dictionary import PENALTY, gaussian_window, leading_directions, normalised
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG, LBP

SMALL = HOG(image_size=64)
CELL, PATCH, VALUES = 8, 56, 31 * 25


def planted(atoms: Tensor, patches: Tensor, scale: str = "minmax") -> PairedDictionary:
    inverter = PairedDictionary(HOG(image_size=128), atoms=len(atoms), scale=scale)  # type: ignore[arg-type]
    return inverter.restore({"hog": atoms, "grey": patches, "scale": torch.tensor([2.0, 0.5])})


@pytest.fixture(scope="module")
def photos(crops: Path) -> EncodedPhotos:
    return EncodedPhotos(SMALL, Photos.open(crops, 64).load())


@pytest.fixture(scope="module")
def fitted(photos: EncodedPhotos) -> PairedDictionary:
    return PairedDictionary(SMALL, windows=256, atoms=64).fit(photos)


def test_codes_over_orthogonal_atoms_are_the_planted_ones_less_the_penalty() -> None:
    atoms = torch.linalg.qr(torch.randn(VALUES, 20)).Q.T.contiguous()
    codes = torch.rand(7, 20) * (torch.rand(7, 20) < 0.3)
    found = planted(atoms, torch.zeros(20, PATCH**2)).codes(codes @ atoms)
    torch.testing.assert_close(found, (codes - PENALTY).clamp(min=0), atol=1e-4, rtol=1e-3)


def test_no_code_is_better() -> None:
    """The lasso's conditions: where a code is positive the gradient is 0, elsewhere it does not fall."""
    atoms, windows = F.normalize(torch.rand(30, VALUES)), normalised(torch.rand(5, VALUES))
    codes = planted(atoms, torch.zeros(30, PATCH**2)).codes(windows)
    gradient = (codes @ atoms - windows) @ atoms.T + PENALTY
    assert codes.count_nonzero()
    assert gradient[codes > 0].abs().max() < 1e-4
    assert gradient.min() > -1e-4


class Planted(PairedDictionary):
    """Learns from rows that are sparse sums of six known atoms."""

    truth = F.normalize(torch.randn(6, 12, generator=torch.Generator().manual_seed(0)))

    def windows(self, pairs: Pairs) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(1)
        codes = torch.rand(10_000, 6, generator=generator) * (torch.rand(10_000, 6, generator=generator) < 0.2)
        yield codes @ self.truth


def test_a_planted_dictionary_is_learnt(photos: EncodedPhotos) -> None:
    atoms = F.normalize(Planted(SMALL, windows=10_000, atoms=18).learn(photos))
    assert (Planted.truth @ atoms.T).max(dim=1).values.min() > 0.95


def test_a_window_comes_out_in_its_place_and_upright() -> None:
    """One bright channel in the middle cell of a window, whose patch is noise: only that window answers."""
    pattern = torch.zeros(1, 31, 5, 5)
    pattern[0, 3, 2, 2] = 1
    atom, patch = normalised(pattern.flatten(1)), torch.randn(1, PATCH, PATCH)
    features = torch.zeros(31, 16, 16)
    features[3, 6, 9] = 1  # so the window begins at row 4, column 7, and its patch a cell before
    picture = planted(atom, patch.flatten(1)).rebuild(features)

    fade = gaussian_window(PATCH, 9)
    overlap = torch.zeros(PATCH, PATCH)
    for down in range(-48, 49, CELL):
        for right in range(-48, 49, CELL):
            height, width = PATCH - abs(down), PATCH - abs(right)
            top, left = max(0, down), max(0, right)
            above, before = max(0, -down), max(0, -right)
            overlap[top : top + height, left : left + width] += fade[above : above + height, before : before + width]
    expected = torch.zeros(128, 128)
    expected[24:80, 48:104] = (1 - PENALTY) * patch[0] * fade / overlap
    torch.testing.assert_close(picture, expected, atol=1e-4, rtol=1e-3)


def test_windows_pair_a_patch_with_its_own_cells(sample_images: Tensor) -> None:
    """The features of a patch alone, less its border cells, are those of the window in the whole picture."""
    image = sample_images[:1, :, :64, :64]
    inverter, generator = PairedDictionary(SMALL, windows=8, atoms=1), torch.Generator().manual_seed(0)
    picture, features = grey(image, 1.0, rounded=False)[0], SMALL.encode(image)[0]
    rows = inverter.windows_of(picture, features, 4, generator)
    wanted = [
        torch.cat([
            normalised(picture[8 * y : 8 * y + 56, 8 * x : 8 * x + 56].reshape(1, -1)),
            normalised(features[:, y + 1 : y + 6, x + 1 : x + 6].reshape(1, -1)),
        ], dim=1)
        for y in (0, 1) for x in (0, 1)
    ]  # fmt: skip
    distances = torch.cdist(rows, torch.cat(wanted))
    assert sorted(distances.argmin(dim=1).tolist()) == [0, 1, 2, 3]
    assert distances.min(dim=1).values.max() < 1e-3


def test_what_it_has_seen_comes_out_like_itself(fitted: PairedDictionary, photos: EncodedPhotos) -> None:
    batch = next(iter(photos))
    originals = grey(batch.images, 1.0, rounded=False).flatten(1)
    rebuilt = torch.stack([fitted.rebuild(one) for one in batch.features]).flatten(1)
    correlations = (normalised(rebuilt) * normalised(originals)).sum(dim=1)
    assert correlations.mean() > 0.5


def test_reconstructions_are_grey(fitted: PairedDictionary, photos: EncodedPhotos) -> None:
    images = fitted.invert(next(iter(photos)).features[:3])
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


def test_the_fitted_scale_is_the_best_there_is(fitted: PairedDictionary, photos: EncodedPhotos) -> None:
    batch = next(iter(photos))
    rebuilt = torch.stack([fitted.rebuild(one) for one in batch.features[:16]])
    wanted = grey(batch.images[:16], 1.0, rounded=False)
    gain, offset = fitted.state()["scale"]
    best = torch.dist(gain * rebuilt + offset, wanted)
    for other in ((1.02 * gain, offset), (0.98 * gain, offset), (gain, offset + 0.01), (gain, offset - 0.01)):
        assert torch.dist(other[0] * rebuilt + other[1], wanted) > best


def test_minmax_uses_the_whole_range() -> None:
    inverter = planted(normalised(torch.rand(4, VALUES)), torch.randn(4, PATCH**2))
    image = inverter.invert(torch.rand(1, 31, 16, 16))
    assert (image.min(), image.max()) == (0, 1)


def test_directions_hold_what_rows_are_made_of() -> None:
    rows = torch.randn(50, 3) @ torch.randn(3, 40)
    basis = leading_directions(rows, 3, seed=0)
    torch.testing.assert_close(rows @ basis @ basis.T, rows, atol=1e-4, rtol=1e-4)


def test_maps_of_other_sizes_become_images_of_other_sizes(fitted: PairedDictionary) -> None:
    assert fitted.invert(torch.rand(1, 31, 6, 9)).shape == (1, 3, 48, 72)


def test_a_cached_hog_is_hog(tmp_path: Path) -> None:
    assert PairedDictionary(CachedRepresentation(SMALL, tmp_path)).patch == PATCH


def test_other_representations_are_refused() -> None:
    with pytest.raises(SettingsError, match="invert HOG, got 'lbp'"):
        PairedDictionary(LBP())


def test_images_too_small_for_a_window_are_refused() -> None:
    with pytest.raises(SettingsError, match="raise image_size"):
        PairedDictionary(HOG(image_size=48))


def test_too_few_windows_are_told(photos: EncodedPhotos) -> None:
    with pytest.raises(SettingsError, match=r"300 atoms need as many windows.*64 photographs hold 256"):
        PairedDictionary(SMALL, windows=1000, atoms=300).fit(photos)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(SettingsError, match="'fitted' or 'minmax'"):
        PairedDictionary(SMALL, scale="best")  # type: ignore[arg-type]
