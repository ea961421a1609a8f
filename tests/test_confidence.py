"""Confidence maps, where it is known by hand which pixels are determined and which are guessed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import ClassVar, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage import api
from preimage.analyses.confidence import OTHER, ConfidenceMap, judged, reliability, reliability_plot
from preimage.errors import ImageError, NotFittedError, SettingsError
from preimage.evaluation import Inverted, sheet_columns
from preimage.findings import Finding, redraw
from preimage.images import Photos
from preimage.interfaces import Batch, Inverter, Pairs, Representation
from preimage.inverters import MeanImage, Nearest, load_inverters, save_inverters
from preimage.inverters.confidence import (
    CONSTANT,
    DEFAULT,
    GRADIENT,
    HELD_OUT,
    MAP,
    Confidence,
    fit_scales,
    gradient,
    log_likelihood,
)
from preimage.kept import Kept
from preimage.networks.preprocessing import Preprocessing
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG, ModuleLayer

SIZE = 32
QUICK = dataclasses.replace(DEFAULT, steps=50, warmup_steps=5, learning_rate=1e-2, precision="float32", ema_decay=0)


@dataclasses.dataclass(frozen=True)
class RightHalf(Representation):
    """The image in nine levels, its left half made grey: the right is nearly known, the left must be guessed."""

    name: ClassVar[str] = "right-half"
    image_size: int = SIZE

    def encode(self, images: Tensor) -> Tensor:
        halved = (8 * images).round() / 8
        halved[:, :, :, : images.shape[3] // 2] = 0.5
        return halved

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (3, height, width)


class AsItIs(Inverter):
    name = "as-it-is"

    def __init__(self) -> None:
        self.representation = RightHalf()
        self.settings = {}

    def fit(self, pairs: Pairs) -> Self:
        return self

    def invert(self, features: Tensor) -> Tensor:
        return features

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> Self:
        return self


@pytest.fixture(scope="module")
def photos(crops: Path) -> Photos:
    """Small pictures, those of a photograph not one after the other."""
    found = Photos.open(crops, SIZE).load()
    return found.subset(torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist())


class Drawn(list[Batch]):
    """Smooth pictures made of random colours, as pairs; as many as are asked for, no two alike."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        self.images = F.interpolate(coarse, (SIZE, SIZE), mode="bilinear").sigmoid()
        self.ids = [f"{seed}-{place}" for place in range(count)]
        parts = zip(range(0, count, 50), self.images.split(50), strict=True)
        super().__init__(RightHalf().batch(self.ids[start : start + 50], part) for start, part in parts)

    def __len__(self) -> int:
        return self.count


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    """An inverter whose map has been learnt."""
    made = AsItIs()
    made.confidence = Confidence(made, width=0.05).fit(Drawn(1200, seed=0), QUICK)
    return made


@pytest.fixture(scope="module")
def unseen() -> Drawn:
    """Pictures that neither the map nor its intervals have been learnt from."""
    return Drawn(300, seed=1)


@pytest.fixture(scope="module")
def finding(inverter: Inverter, unseen: Drawn) -> Finding:
    return ConfidenceMap()(inverter, unseen.ids, unseen.images)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_the_map_is_large_where_the_inverter_guesses(inverter: Inverter, unseen: Drawn) -> None:
    images = unseen.images[:8]
    assert inverter.confidence is not None
    expected = inverter.confidence.predict(inverter.representation.encode(images))
    assert expected.shape == (8, 1, SIZE, SIZE)
    left, right = expected[..., : SIZE // 2].mean(), expected[..., SIZE // 2 :].mean()
    assert left > 2.5 * right


def test_fitting_twice_gives_the_same(photos: Photos) -> None:
    made = AsItIs()
    pairs = EncodedPhotos(made.representation, photos, batch_size=8)
    once, again = (
        Confidence(made).fit(pairs, dataclasses.replace(QUICK, steps=3)).predict(next(iter(pairs)).features)
        for _ in range(2)
    )
    assert torch.equal(once, again)


def test_the_seed_alone_decides_what_is_dropped_from_a_vector(photos: Photos) -> None:
    encoder = ModuleLayer(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), "1", Preprocessing(SIZE))
    pairs = EncodedPhotos(encoder, photos, batch_size=8)
    mean, maps = MeanImage(encoder).fit(pairs), []
    for state in (1, 2):
        torch.manual_seed(state)
        made = Confidence(mean).fit(pairs, dataclasses.replace(QUICK, steps=3))
        maps.append(made.predict(next(iter(pairs)).features))
    assert torch.equal(*maps)


def test_the_scale_of_features_is_not_that_of_one_photograph(photos: Photos) -> None:
    made = AsItIs()
    settings = dataclasses.replace(QUICK, steps=1)
    one, all_ = (
        Confidence(made, width=0.05).fit(EncodedPhotos(made.representation, photos, batch_size), settings)
        for batch_size in (1, len(photos))
    )
    deviations = [each.network.decoder.standardise.deviation for each in (one, all_)]
    torch.testing.assert_close(*deviations)


def test_photographs_held_out_are_not_learnt_from(photos: Photos) -> None:
    made = AsItIs()
    pairs = EncodedPhotos(made.representation, photos, batch_size=7)
    learnt, held_out = (
        torch.cat([one.errors + one.reconstructions for one in Confidence(made).examples(pairs, held_out=wanted)])
        for wanted in (False, True)
    )
    assert len(held_out) == len(photos) // HELD_OUT
    together = torch.cat([learnt, held_out]).flatten(1)
    assert len(together) == len(photos)
    assert len(together.mul(255).round().unique(dim=0)) == len(photos)


def test_a_few_photographs_are_refused(photos: Photos) -> None:
    made = AsItIs()
    with pytest.raises(ImageError, match="20 photographs or more"):
        Confidence(made).fit(EncodedPhotos(made.representation, photos.subset(range(5))))


def test_unfitted_use_explains_itself() -> None:
    made = AsItIs()
    with pytest.raises(NotFittedError, match="confidence"):
        Confidence(made).predict(torch.rand(1, 3, SIZE, SIZE))
    with pytest.raises(NotFittedError):
        Confidence(made).state()


# --- its parts --------------------------------------------------------------------------------------------------------


def test_scales_are_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    steepness = torch.rand(50_000, generator=generator, dtype=torch.float64)
    deviations = 0.05 + 0.2 * steepness
    errors = deviations * torch.randn(50_000, generator=generator, dtype=torch.float64)
    scales = fit_scales(errors, deviations / 3, steepness)  # a map three times too sure
    assert scales["map"] == pytest.approx(3, rel=0.02)
    assert scales["constant"] == pytest.approx(float(errors.std()), rel=1e-3)
    assert scales["gradient"].tolist() == pytest.approx([0.05, 0.2], rel=0.05)
    assert scales["factors"][0].tolist() == pytest.approx([0.674, 1.282, 1.960], rel=0.03)  # of a normal distribution


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    error, deviation = torch.tensor([0.1, -0.3]), torch.tensor([0.2, 0.1])
    wanted = torch.distributions.Normal(0, deviation).log_prob(error)
    torch.testing.assert_close(log_likelihood(error.square(), deviation.square()), wanted)


def test_the_gradient_of_a_slope_is_its_steepness() -> None:
    slope = (torch.arange(16.0) / 20).expand(1, 3, 16, 16)
    torch.testing.assert_close(gradient(slope)[..., 1:-1], torch.full((1, 1, 16, 14), 0.05))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_map_is_kept_beside_its_inverter_and_changes_nothing(crops: Path, tmp_path: Path) -> None:
    pairs = EncodedPhotos(HOG(image_size=64), Photos.open(crops, 64).load())
    features = next(iter(pairs)).features[:3]
    plain = MeanImage(pairs.representation).fit(pairs)
    before = plain.invert(features)
    plain.confidence = Confidence(plain, width=0.05).fit(pairs, dataclasses.replace(QUICK, steps=2))
    save_inverters([plain], tmp_path / "both.safetensors")
    loaded = load_inverters(tmp_path / "both.safetensors")["mean-image"]
    assert torch.equal(loaded.invert(features), before)
    assert loaded.confidence is not None
    assert torch.equal(loaded.confidence.predict(features), plain.confidence.predict(features))
    images = next(iter(pairs)).images[:3]
    assert "expected error, 0 to 0.25" in sheet_columns(loaded, Inverted([], images, features, before))


def test_a_file_without_a_map_has_none(crops: Path, tmp_path: Path) -> None:
    pairs = EncodedPhotos(HOG(image_size=64), Photos.open(crops, 64).load())
    save_inverters([MeanImage(pairs.representation).fit(pairs)], tmp_path / "plain.safetensors")
    assert load_inverters(tmp_path / "plain.safetensors")["mean-image"].confidence is None


def test_inverters_of_a_file_stay_as_they_are_beside_a_map(crops: Path, tmp_path: Path) -> None:
    pairs = EncodedPhotos(HOG(image_size=64), Photos.open(crops, 64).load())
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    save_inverters([kind(pairs.representation).fit(pairs) for kind in (MeanImage, Nearest)], before)
    steps: list[tuple[int, int]] = []
    api.fit_confidence(before, crops, after, steps=2, on_progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    loaded, features = Kept.of(after).load(), next(iter(pairs)).features[:2]
    for name, own in Kept.of(before).load().items():
        assert torch.equal(loaded[name].invert(features), own.invert(features))
    assert [one.confidence is not None for one in loaded.values()] == [True, False]


def test_only_safetensors_are_written(crops: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.safetensors"):
        api.fit_confidence("hog", crops, tmp_path / "hog.pth")


# --- the analysis -----------------------------------------------------------------------------------------------------


def test_the_map_is_likelier_than_its_rivals(finding: Finding) -> None:
    likelihoods = {row["deviation"]: float(row["log_likelihood"]) for row in finding.table}
    assert likelihoods[MAP] > max(likelihoods[CONSTANT], likelihoods[GRADIENT]) + 0.3


@pytest.mark.parametrize("level", [50, 80, 95])
def test_calibrated_intervals_hold_what_they_should_of_unseen_pictures(finding: Finding, level: int) -> None:
    """Errors on the left and on the right differ widely, and so do their intervals."""
    (own,) = (row for row in finding.table if row["deviation"] == MAP)
    assert own[f"covered_{level}"] == pytest.approx(level / 100, abs=0.05)


def test_every_photograph_is_judged_by_every_map(finding: Finding, unseen: Drawn) -> None:
    assert sum("log_likelihood" in record for record in finding.records) == 4 * len(unseen)
    assert {row["deviation"] for row in finding.table} == {MAP, CONSTANT, GRADIENT, OTHER}
    assert f"n = {len(unseen)}" in finding.answer


def test_errors_of_one_deviation_lie_within_the_wider_intervals() -> None:
    values = judged(torch.full((3, 4, 4), 0.1), torch.full((1, 4, 4), 0.1), reach=[0.9, 1.1, 2.0])
    assert [values[f"covered_{level}"] for level in (50, 80, 95)] == [0, 1, 1]
    assert [values[f"normal_{level}"] for level in (50, 80, 95)] == [0, 1, 1]
    assert values["log_likelihood"] == pytest.approx(-0.5 - math.log(0.1 * math.sqrt(2 * math.pi)))


def test_errors_as_large_as_expected_lie_on_the_level() -> None:
    expected = torch.rand(5, 1, 8, 8)
    ratios = reliability(2 * expected, expected).ratios()
    assert len(ratios) == 10
    assert [ratio for _, ratio, _ in ratios] == pytest.approx([2] * 10, rel=1e-5)


def test_what_expects_the_same_of_all_pixels_is_not_drawn() -> None:
    error, flat = torch.rand(5, 1, 8, 8), torch.full((5, 1, 8, 8), 0.1)
    plot = reliability_plot({MAP: reliability(error, error), CONSTANT: reliability(error, flat)})
    assert set(plot.series) == {MAP}
    assert plot.level == 1


def test_the_reliability_that_is_drawn_can_be_computed_from_the_records(finding: Finding) -> None:
    drawn = finding.plots[2].series[MAP]
    own = [record for record in finding.records if record["deviation"] == MAP and "group" in record]
    for group, (expected, ratio, _) in enumerate(drawn, start=1):
        rows = [record for record in own if record["group"] == group]
        pixels = sum(float(r["pixels"]) for r in rows)
        squares = [sum(float(r["pixels"]) * float(r[key]) ** 2 for r in rows) for key in ("expected", "actual")]
        assert math.sqrt(squares[0] / pixels) == pytest.approx(expected)
        assert math.sqrt(squares[1] / squares[0]) == pytest.approx(ratio)


def test_without_a_map_it_says_how_to_get_one(photos: Photos) -> None:
    ids, images = next(photos.batches(4))
    finding = ConfidenceMap()(AsItIs(), ids, images)
    assert "preimage confidence" in finding.reason
    assert not finding.table


def test_a_finding_is_saved_with_its_pictures(finding: Finding, tmp_path: Path) -> None:
    finding.save(tmp_path)
    written = {file.name for file in (tmp_path / "confidence").iterdir()}
    assert {"records.csv", "finding.json", "plot-0.png", "plot-2.png", "sheet-0.png"} <= written


def test_a_finding_with_unknown_errors_is_valid_json_and_can_be_redrawn(finding: Finding, tmp_path: Path) -> None:
    finding.save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((tmp_path / "confidence" / "finding.json").read_text(), parse_constant=refuse)
    assert any(math.isnan(error) for plot in finding.plots for points in plot.series.values() for _, _, error in points)
    drawn = {file: file.read_bytes() for file in (tmp_path / "confidence").glob("plot-*.png")}
    assert {file: file.read_bytes() for file in redraw(tmp_path / "confidence")} == drawn
