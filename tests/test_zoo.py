"""What ships works, is whole, and is as good as its card says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import preimage
from conftest import weights_of
from preimage import zoo
from preimage.errors import UnknownNameError, WeightsError
from preimage.images import Photos
from preimage.inverters import Ridge
from preimage.networks import needs_weights
from preimage.pairs import EncodedPhotos
from preimage.representations import get_representation

GRID_LIMIT = 1.06  # the photographs' own figure, 1.04, and 0.02


@pytest.mark.parametrize("name", zoo.shipped())
def test_every_shipped_inverter_has_its_card(name: str) -> None:
    card = zoo.card(name)
    assert (zoo.FOLDER / f"{name}.safetensors").stat().st_size <= 8 * 2**20
    assert card["licence"]
    assert card["photos"]["n"] > 0
    assert {row["inverter"] for row in card["evaluation"]["rows"]} >= {"upconv", "mean-image", "nearest", "ridge"}


@pytest.mark.parametrize("name", zoo.shipped())
def test_it_comes_with_the_mean_image_and_a_small_ridge(name: str) -> None:
    settings = weights_of(name)
    if settings is None:
        pytest.skip(f"the weights that {name} needs are not on this machine")
    contenders = zoo.load_shipped(name, **settings)
    assert list(contenders) == ["upconv", "mean-image", "ridge"]
    assert sum(2 * tensor.numel() for tensor in contenders["ridge"].state().values()) <= 2**20


@pytest.mark.parametrize("name", [name for name in zoo.PLANNED if not needs_weights(name)])
def test_the_ridge_of_every_one_that_is_to_come_is_small_too(name: str) -> None:
    ridge = Ridge(get_representation(name))
    if ridge.is_map:
        weights = ridge.representation.feature_shape[0] * ridge.neighbourhood**2 * 3 * ridge.patch**2
        assert 10_000 < weights <= 350_000


def test_what_ships_is_whole_small_and_belongs_to_its_representation() -> None:
    assert {one.name: one.problems for one in zoo.check() if one.problems} == {}


def test_what_ships_is_listed_layer_by_layer() -> None:
    names = ["efficientnet_lite0.prob", "other", "sift", "efficientnet_lite0.stage2", "hog"]
    assert zoo.in_order(names) == ["hog", "sift", "efficientnet_lite0.stage2", "efficientnet_lite0.prob", "other"]


@pytest.mark.parametrize("name", zoo.shipped())
def test_a_damaged_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (f"{name}.safetensors", f"{name}.json"):
        shutil.copy(zoo.FOLDER / file, tmp_path)
    content = bytearray((tmp_path / f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="is damaged"):
        preimage.load_inverter(name)


def test_whose_weights_a_substitute_needs_is_said_with_the_error() -> None:
    with pytest.raises(WeightsError, match="fc6 of this network is a substitute"):
        preimage.load_inverter("bvlc_alexnet.fc6", weights="nowhere.npz")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hog'"):
        preimage.load_inverter("hogg")


def test_hog_beats_its_baselines_on_the_samples() -> None:
    rows = {row.inverter: row for row in preimage.evaluate("hog", preimage.api.sample_files()).rows}  # type: ignore[attr-defined]
    for baseline in ("mean-image", "ridge", "nearest", "other-image"):
        assert rows["upconv"].nre < rows[baseline].nre


@pytest.fixture(scope="module")
def reconstructions(validation: Photos) -> Tensor:
    inverter = preimage.load_inverter("hog")
    return torch.cat([inverter.invert(batch.features) for batch in EncodedPhotos(inverter.representation, validation)])


def test_hog_keeps_its_promise_on_the_validation_photographs(validation: Photos) -> None:
    promised = zoo.card("hog")["evaluation"]["rows"][0]
    ids = validation.ids
    result = preimage.evaluation.evaluate_contenders(  # type: ignore[attr-defined]
        [preimage.evaluation.Contender(preimage.load_inverter("hog"), "")],
        validation,
        "validation",  # type: ignore[attr-defined]
    )
    assert len(ids) == 200
    assert result.rows[0].nre == pytest.approx(promised["nre"], abs=4 * promised["nre_sem"])
    assert promised["nre"] <= 0.42


def grid_steepness(images: Tensor, axis: int) -> float:
    """Mean |x[i + 1] - x[i]| by i modulo 8, largest over median: 1 where steepness does not depend on HOG's cells."""
    steepness = images.diff(dim=axis).abs().mean(dim=(0, 1, 5 - axis))
    phases = torch.stack([steepness[phase::8].mean() for phase in range(8)])
    return float(phases.max() / phases.median())


@pytest.mark.parametrize("axis", [2, 3])
def test_hog_reconstructions_show_no_cell_grid(reconstructions: Tensor, axis: int) -> None:
    assert grid_steepness(reconstructions, axis) <= GRID_LIMIT


@pytest.mark.parametrize("axis", [2, 3])
def test_reconstructions_are_aligned_to_the_pixel(reconstructions: Tensor, validation: Photos, axis: int) -> None:
    """Shifting the reconstruction by a pixel either way makes it worse."""
    photographs = torch.cat([images for _, images in validation.batches()])

    def error(shift: int) -> float:
        inner = slice(4, -4)
        shifted = reconstructions.roll(shift, dims=axis)
        return float((shifted - photographs)[:, :, inner, inner].square().mean())

    assert error(0) < min(error(-1), error(1))
