"""Evaluation on answers known by hand, and the company every number keeps."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import preimage
from preimage import api, metrics
from preimage.errors import ImageError, PreimageWarning, SettingsError, UnknownNameError
from preimage.evaluation import Contender, Evaluation, evaluate_contenders, fit_baselines, paired, paired_in_words
from preimage.images import Photos
from preimage.interfaces import Inverter, Pairs
from preimage.inverters import MeanImage, Nearest, Ridge, optimization
from preimage.inverters.linear import Regression
from preimage.inverters.retrieval import LONGEST, hashed
from preimage.metrics import mean_and_sem, mean_pairwise_distance
from preimage.networks.preprocessing import Preprocessing
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG, ModuleLayer


class Perfect(Inverter):
    """Knows the photographs by heart."""

    name = "perfect"

    def __init__(self, photos: Photos) -> None:
        self.representation = HOG()
        self.memory = Nearest(self.representation).fit(EncodedPhotos(self.representation, photos))

    def fit(self, pairs: Pairs) -> Self:
        return self

    def invert(self, features: Tensor) -> Tensor:
        return self.memory.invert(features)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> Self:
        return self


@pytest.fixture(scope="module")
def result(samples: Photos) -> Evaluation:
    perfect = Perfect(samples)
    contenders = [Contender(perfect, "heart"), *fit_baselines(EncodedPhotos(HOG(), samples), "the samples")]
    return evaluate_contenders(contenders, samples, "samples")


def test_a_perfect_inverter_has_no_error_and_its_control_does(result: Evaluation) -> None:
    rows = {row.inverter: row for row in result.rows}
    assert rows["perfect"].nre == 0
    assert math.isinf(rows["perfect"].psnr)
    assert rows["perfect"].ssim == 1
    assert rows["other-image"].nre == pytest.approx(1, abs=0.35)
    assert "another photograph" in rows["other-image"].fitted_on


def test_the_floor_of_a_smaller_decoder_has_its_row(samples: Photos) -> None:
    class Halved(Perfect):
        name = "halved"

        def perfect(self, images: Tensor) -> Tensor:
            small = torch.nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
            return torch.nn.functional.interpolate(small, images.shape[2:], mode="bilinear")

    rows = {
        row.inverter: row for row in evaluate_contenders([Contender(Halved(samples), "heart")], samples, "samples").rows
    }
    assert 0.02 < rows["decoder-size"].nre < 0.2
    assert "scaled to the decoder's size" in rows["decoder-size"].fitted_on


def test_photographs_may_come_from_an_iterator(tmp_path: Path) -> None:
    for index in range(3):
        Image.new("RGB", (64, 64), (80 * index, 90, 10)).save(tmp_path / f"{index}.png")
    (tmp_path / "torn.png").write_bytes(b"torn")
    with pytest.warns(PreimageWarning, match=r"left out torn\.png"):
        result = api.evaluate("hog", tmp_path.glob("[01].png"), train_images=iter([tmp_path]))
    assert result.images == f"{tmp_path / '0.png'}, {tmp_path / '1.png'}"
    fitted_on = {row.inverter: row.fitted_on for row in result.rows}["mean-image"]
    assert fitted_on.endswith("(3 photographs)")
    assert fitted_on.startswith(str(tmp_path))


def test_every_row_has_its_company(result: Evaluation) -> None:
    assert [row.inverter for row in result.rows] == ["perfect", "mean-image", "nearest", "ridge", "other-image"]
    for row in result.rows:
        assert row.n == result.n == 4
        assert row.fitted_on
        assert row.nre_sem >= 0


def test_nre_is_distance_over_the_mean_pairwise_distance(
    result: Evaluation, samples: Photos, sample_images: Tensor
) -> None:
    assert result.pairwise_distance == pytest.approx(mean_pairwise_distance(sample_images))
    mean = MeanImage(HOG()).fit(EncodedPhotos(HOG(), samples)).invert(HOG().encode(sample_images))[0]
    by_hand = [torch.dist(image, mean).item() / result.pairwise_distance for image in sample_images]
    records = [record.nre for record in result.records if record.inverter == "mean-image"]
    assert records == pytest.approx(by_hand, rel=1e-4)


def test_the_table_can_be_computed_again_from_its_records(result: Evaluation) -> None:
    lines = list(csv.DictReader(io.StringIO(result.records_csv())))
    assert len(lines) == len(result.rows) * result.n
    for row in result.rows:
        values = [float(line["nre"]) for line in lines if line["inverter"] == row.inverter]
        assert mean_and_sem(values) == (pytest.approx(row.nre), pytest.approx(row.nre_sem))


def test_json_has_the_agreed_shape(result: Evaluation) -> None:
    content = result.to_json()
    assert set(content) == {"representation", "images", "n", "image_size", "pairwise_distance", "rows", "remarks"}
    assert set(content["rows"][0]) >= {"inverter", "n", "fitted_on", "nre", "nre_sem", "psnr", "ssim"}


def test_a_slow_inverter_may_do_fewer_photographs_and_is_compared_on_those(samples: Photos) -> None:
    pairs, told = EncodedPhotos(HOG(), samples), []
    slow = Contender(Nearest(HOG(), skip_same=True).fit(pairs), "the others", limit=3)
    contenders = [Contender(MeanImage(HOG()).fit(pairs), "all"), slow]
    result = evaluate_contenders(contenders, samples, "samples", on_progress=lambda *step: told.append(step))
    rows = {row.inverter: row for row in result.rows}
    assert (rows["mean-image"].n, rows["nearest"].n) == (4, 3)
    assert result.pairwise_distance == evaluate_contenders(contenders[:1], samples, "").pairwise_distance
    assert told[-1] == (7, 7)

    errors = {(record.id, record.inverter): record.nre for record in result.records}
    differences = [errors[own, "nearest"] - errors[own, "mean-image"] for own in samples.ids[:3]]
    assert paired(result, "nearest", "mean-image") == (*mean_and_sem(differences), 3)


def test_a_baseline_that_is_better_is_told(samples: Photos, result: Evaluation) -> None:
    assert paired_in_words(result) == []
    contenders = [
        Contender(MeanImage(HOG()).fit(EncodedPhotos(HOG(), samples)), "all"),
        Contender(Perfect(samples), ""),
    ]
    (words,) = paired_in_words(evaluate_contenders(contenders, samples, "samples"))
    assert re.fullmatch(r"mean-image is not the best here: perfect's NRE is 0\.\d+ ± 0\.\d+ lower on the same 4", words)


def test_photographs_are_held_a_few_at_a_time(
    samples: Photos, result: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 2)
    read, images = [], Photos.images

    def spy(self: Photos, indices: Sequence[int]) -> Tensor:
        read.append(len(indices))
        return images(self, indices)

    contenders = [Contender(Perfect(samples), "heart"), *fit_baselines(EncodedPhotos(HOG(), samples), "the samples")]
    monkeypatch.setattr(Photos, "images", spy)
    again = evaluate_contenders(contenders, samples, "samples", batch_size=2)
    assert max(read) == 2
    for one, other in zip(sorted(again.rows, key=str), sorted(result.rows, key=str), strict=True):
        assert (one.nre, one.ssim) == (pytest.approx(other.nre), pytest.approx(other.ssim))


def test_only_rows_of_the_table_can_be_paired(result: Evaluation) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'nearest'"):
        paired(result, "neares", "perfect")


def test_a_baseline_by_name_has_its_row(samples: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimization.SCHEDULES, "hog", [(2, 4e-3)])
    files = preimage.api.sample_files()  # type: ignore[attr-defined]
    result = preimage.evaluate(Perfect(samples), files, baselines=["gradient-descent"], baseline_limit=2)
    row = next(row for row in result.rows if row.inverter == "gradient-descent")
    assert row.n == 2
    assert (row.fitted_on, row.remark) == ("the 4 evaluated photographs", "the published schedule")
    assert "gradient-descent: fitted on the 4 evaluated photographs; the published schedule" in str(result)


def test_a_baseline_may_not_learn_from_the_photographs_it_is_judged_on(samples: Photos) -> None:
    with pytest.raises(SettingsError, match="give --train-images, or a file that `preimage fit hoggles` wrote"):
        preimage.evaluate(Perfect(samples), preimage.api.sample_files(), baselines=["hoggles"])  # type: ignore[attr-defined]


def test_a_baseline_of_another_representation_is_refused(samples: Photos, crops: Path, tmp_path: Path) -> None:
    file = tmp_path / "mean.safetensors"
    preimage.api.fit_inverter("mean-image", HOG(image_size=64), crops, file)  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="'image_size': 64"):
        preimage.evaluate(Perfect(samples), preimage.api.sample_files(), baselines=[file])  # type: ignore[attr-defined]


def test_a_network_is_not_fitted_but_trained(crops: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="preimage train hog"):
        preimage.api.fit_inverter("upconv", "hog", crops, tmp_path / "a.safetensors")  # type: ignore[attr-defined]


def test_fitting_warns_of_photographs_that_cannot_be_read(crops: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    for name in ("0-00.png", "0-01.png"):
        (tmp_path / name).write_bytes((crops / name).read_bytes())
    with pytest.warns(PreimageWarning, match=r"left out torn\.png"):
        preimage.api.fit_inverter("mean-image", HOG(image_size=64), tmp_path, tmp_path / "a.safetensors")  # type: ignore[attr-defined]


def test_mean_and_standard_error_by_hand() -> None:
    assert mean_and_sem([1, 2, 3]) == (2, pytest.approx(1 / math.sqrt(3)))
    assert math.isnan(mean_and_sem([1])[1])


def test_one_photograph_is_not_enough(samples: Photos) -> None:
    with pytest.raises(ImageError, match="at least two"):
        evaluate_contenders([Contender(Perfect(samples), "")], samples.subset([0]), "one")


def test_the_nearest_neighbour_can_leave_itself_out(samples: Photos, sample_images: Tensor) -> None:
    pairs = EncodedPhotos(HOG(), samples)
    features = HOG().encode(sample_images)
    torch.testing.assert_close(Nearest(HOG()).fit(pairs).invert(features), sample_images)
    others = Nearest(HOG(), skip_same=True).fit(pairs).nearest(features)
    distances = torch.cdist(features.flatten(1), features.flatten(1)).fill_diagonal_(torch.inf)
    assert others.tolist() == distances.argmin(dim=1).tolist()


def test_the_nearest_neighbour_keeps_no_photographs_but_reads_them_again(
    samples: Photos, sample_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest, read = Nearest(HOG()).fit(EncodedPhotos(HOG(), samples)), []
    monkeypatch.setattr(Photos, "images", lambda _, indices: read.append(indices) or sample_images[indices])
    assert torch.equal(nearest.invert(HOG().encode(sample_images[[2, 0]])), sample_images[[2, 0]])
    assert read == [[2, 0]]


def predicted_by(regression: Regression, x: Tensor) -> Tensor:
    solution = regression.solve()
    return (x - solution["centre"]) / solution["scale"] @ solution["weight"] + solution["bias"]


def test_ridge_finds_a_linear_map() -> None:
    """Where pixels are a linear function of the features, ridge regression is right to the size of its thumbnail."""
    x, truth = torch.randn(500, 20), torch.randn(20, 7)
    regression = Regression(20, 7)
    for part in x.split(100):
        regression.add(part, part @ truth + 3)
    torch.testing.assert_close(predicted_by(regression, x), x @ truth + 3, atol=3e-2, rtol=1e-2)


def test_ridge_makes_little_of_inputs_that_are_rarely_active() -> None:
    """Numbers that a rectifier leaves to one example in fifty do not drown the others."""
    generator = torch.Generator().manual_seed(0)

    def examples(n: int) -> tuple[Tensor, Tensor]:
        dense = torch.randn(n, 20, generator=generator)
        rare = torch.randn(n, 300, generator=generator).abs() * (torch.rand(n, 300, generator=generator) < 0.02)
        return torch.cat([dense, 0.1 * rare], dim=1), dense[:, :5]

    (x, y), (unseen, truth) = examples(300), examples(300)
    regression = Regression(320, 5)
    regression.add(x, y)
    assert (predicted_by(regression, unseen) - truth).square().mean() < 0.1


@pytest.mark.parametrize("n", [2, 3])
def test_ridge_takes_no_few_examples_for_a_rule(n: int) -> None:
    """Noise: what is best is to say nothing."""
    generator = torch.Generator().manual_seed(0)
    regression = Regression(20, 7)
    regression.add(torch.randn(n, 20, generator=generator), torch.randn(n, 7, generator=generator))
    assert predicted_by(regression, torch.randn(1000, 20, generator=generator)).std(dim=0).mean() < 0.3


def test_ridge_pools_maps_of_any_shape_to_no_more_numbers_than_it_may_read() -> None:
    images = torch.rand(2, 3, 32, 32)
    for layer, wanted in ((nn.AvgPool2d((8, 4)), 3 * 4 * 8), (nn.Conv2d(3, 3000, (8, 4), (8, 4)), 2048)):
        wide = ModuleLayer(nn.Sequential(layer), "0", Preprocessing(image_size=32))
        assert Ridge(wide).pooled(wide.encode(images)).shape == (2, wanted)


def test_ridge_beats_the_mean_image_on_photographs_it_has_not_seen(validation: Photos) -> None:
    hog = HOG()
    known, unknown = validation.subset(range(160)), validation.subset(range(160, 200))
    baselines = [Contender(kind(hog).fit(EncodedPhotos(hog, known)), "") for kind in (Ridge, MeanImage)]
    rows = {row.inverter: row for row in evaluate_contenders(baselines, unknown, "validation").rows}
    assert rows["ridge"].nre < rows["mean-image"].nre


def test_evaluate_takes_an_inverter_object(samples: Photos) -> None:
    files = preimage.api.sample_files()  # type: ignore[attr-defined]
    result = preimage.evaluate(Perfect(samples), files)
    assert [row.inverter for row in result.rows] == ["perfect", "mean-image", "nearest", "other-image"]
    assert "other 3 evaluated" in result.rows[2].fitted_on


def test_the_nearest_neighbour_leaves_itself_out_whatever_the_rounding() -> None:
    """Squares of long features, expanded, are 0 only to their rounding."""
    features = torch.tensor([[1.1], [1.2], [1.4], [1.7]]).repeat(1, LONGEST).half()
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    state = {"features": features, "images": images, "scales": torch.ones(4), "centre": torch.zeros(LONGEST)}
    others = Nearest(HOG(), skip_same=True).restore(state).nearest(features.float())
    assert (others != torch.arange(4)).all()


def test_long_features_are_hashed_to_nearly_the_same_distances() -> None:
    short, long = torch.randn(6, 100), torch.randn(6, 3, 300, 300)
    assert torch.equal(hashed(short), short)
    assert hashed(long).shape == (6, LONGEST)
    flat, kept = long.flatten(1), hashed(long)
    torch.testing.assert_close(torch.cdist(kept, kept), torch.cdist(flat, flat), rtol=0.02, atol=0)


def test_a_notebook_shows_the_table(result: Evaluation) -> None:
    assert result._repr_html_() == f"<pre>{html.escape(str(result))}</pre>"
