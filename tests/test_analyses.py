"""The paper's analyses, on representations whose answer is known by hand."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.analyses import ANALYSES, get_analysis
from preimage.analyses.attributes import mean_turn, turn_hue, verdict
from preimage.analyses.conditions import MEAN
from preimage.analyses.perturbation import TIMES, binarise, drop_least, dropout, with_norm_of
from preimage.analyses.sampling import PHOTOGRAPHS, from_gaussian, from_histograms, rectified_gaussian
from preimage.errors import DivergedError, PreimageError, RunError, SettingsError, UnknownNameError, WeightsError
from preimage.findings import Finding, read_finding, redraw
from preimage.interfaces import Inverter, Pairs, Representation
from preimage.metrics import mean_pairwise_distance


@dataclass(frozen=True)
class Thumbnail(Representation):
    """The image at 8 x 8 pixels, times `white`: linear, keeps colour and brightness."""

    name: ClassVar[str] = "thumbnail.logits"
    image_size: int = 64
    white: float = 1.0

    def encode(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 8).flatten(1) * self.white

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (192,)

    def brightened(self, factor: float) -> Thumbnail:
        return replace(self, white=self.white * factor)


class Enlarged(Inverter):
    """A thumbnail back at full size: linear too, but for the limits of pixel values."""

    name = "enlarged"

    def __init__(self, representation: Representation) -> None:
        self.representation = representation
        self.settings = {}

    def fit(self, pairs: Pairs) -> Self:
        return self

    def invert(self, features: Tensor) -> Tensor:
        return F.interpolate(features.view(-1, 3, 8, 8), (64, 64), mode="bilinear").clamp(0, 1)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> Self:
        return self


@pytest.fixture(scope="module")
def images(sample_images: Tensor) -> Tensor:
    return F.interpolate(sample_images, (64, 64), mode="bilinear", antialias=True).clamp(0, 1)


IDS = ["astronaut", "cat", "coffee", "rocket"]


def ask(name: str, images: Tensor, inverter: Inverter | None = None, **settings: object) -> Finding:
    return get_analysis(name, **settings)(inverter or Enlarged(Thumbnail()), IDS, images)


def column(finding: Finding, key: str, value: str) -> dict[object, float]:
    return {row[key]: float(row[value]) for row in finding.table}


@pytest.mark.parametrize("name", sorted(ANALYSES.keys() - {"confidence"}))  # which needs a map fitted first
def test_every_analysis_has_records_numbers_and_words(name: str, images: Tensor, tmp_path: Path) -> None:
    finding = ask(name, images, **({"shifts": [2, 4, 8]} if name == "place" else {}))
    assert not finding.reason
    assert finding.answer.endswith(".")
    assert finding.records
    assert all(math.isfinite(float(row["n"])) and row["n"] for row in finding.table)
    finding.save(tmp_path)
    saved = read_finding(tmp_path / name)
    assert saved["answer"] == finding.answer
    assert len((tmp_path / name / "records.csv").read_text().splitlines()) == len(finding.records) + 1
    assert all((tmp_path / name / one["file"]).stat().st_size > 1000 for one in saved["sheets"])


def test_figures_are_redrawn_from_the_folder(images: Tensor, tmp_path: Path) -> None:
    ask("brightness", images).save(tmp_path)
    (plot,) = (tmp_path / "brightness").glob("plot-*.png")
    before = plot.read_bytes()
    plot.unlink()
    assert redraw(tmp_path / "brightness") == [plot]
    assert plot.read_bytes() == before
    assert redraw(tmp_path / "brightness", ".pdf")[0].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("name", "setting", "reason"),
    [
        ("brightness", {"factors": [0]}, "positive"),
        ("dark-knowledge", {"k": 0}, "at least 1"),
        ("hue", {"degrees": [20]}, "counts as none"),
    ],
)
def test_settings_that_tell_nothing_are_refused(name: str, setting: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        get_analysis(name, **setting)


@pytest.mark.parametrize("name", ["brightness", "code", "trade-off"])
def test_one_photograph_has_no_error(name: str, images: Tensor) -> None:
    assert "One photograph has no NRE" in get_analysis(name)(Enlarged(Thumbnail()), IDS[:1], images[:1]).answer


@pytest.mark.parametrize(("name", "n"), [("interpolation", 2), ("random-features", 1), ("hue", 1), ("trade-off", 4)])
def test_one_value_stands_without_a_standard_error(name: str, n: int, images: Tensor) -> None:
    one = {"photographs": 1} if name == "trade-off" else {}
    answer = get_analysis(name, **one)(Enlarged(Thumbnail()), IDS[:n], images[:n]).answer
    assert "nan" not in answer
    assert "1 pair)" in answer or "n = 1" in answer


def test_a_representation_that_keeps_brightness_is_thrown_by_a_brighter_image(images: Tensor) -> None:
    errors = column(ask("brightness", images, factors=[10]), "condition", "nre")
    assert errors[f"{TIMES}10"] > 2 * errors[f"{TIMES}1"]


def test_changes_are_told_from_the_unchanged_one_photograph_by_photograph(images: Tensor) -> None:
    finding = ask("brightness", images, factors=[10])
    first, second, nothing = finding.table
    pairs = [[float(r["nre"]) for r in finding.records if r["condition"] == one] for one in (f"{TIMES}1", f"{TIMES}10")]
    differences = torch.tensor([after - before for before, after in zip(*pairs, strict=True)]).double()
    assert first["difference"] == 0
    assert second["difference"] == pytest.approx(float(differences.mean()))
    assert second["difference_sem"] == pytest.approx(float(differences.std()) / 2)  # of four
    assert f"({TIMES}10: {second['difference']:+.3f} ± {second['difference_sem']:.3f})" in finding.answer
    assert nothing["condition"] == MEAN


def test_the_mean_image_stands_beside_every_change(images: Tensor) -> None:
    finding = ask("brightness", images)
    others = torch.stack([images[[j for j in range(4) if j != i]].mean(dim=0) for i in range(4)])
    wanted = (others - images).flatten(1).norm(dim=1).mean() / mean_pairwise_distance(images)
    assert finding.table[-1]["nre"] == pytest.approx(float(wanted), rel=1e-5)
    assert finding.plots[0].level == finding.table[-1]["nre"]


@pytest.mark.parametrize("kind", [DivergedError, WeightsError, SettingsError, RunError])
def test_what_one_question_cannot_do_is_a_reason_and_no_end(images: Tensor, kind: type[PreimageError]) -> None:
    class Failing(Enlarged):
        def invert(self, features: Tensor) -> Tensor:
            raise kind("it cannot be done: do that instead")

    finding = ask("brightness", images, Failing(Thumbnail()))
    assert finding.reason == "it cannot be done: do that instead"


def test_a_mistake_of_our_own_is_no_reason(images: Tensor) -> None:
    class Broken(Enlarged):
        def invert(self, features: Tensor) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask("brightness", images, Broken(Thumbnail()))


def test_a_representation_without_a_scale_says_why_not(images: Tensor) -> None:
    class Fixed(Thumbnail):
        def brightened(self, factor: float) -> None:  # type: ignore[override]
            return None

    finding = ask("brightness", images, Enlarged(Fixed()))
    assert "no scale to multiply" in finding.reason
    assert not finding.records


def test_a_setting_given_twice_counts_no_photograph_twice(images: Tensor) -> None:
    once, twice = (ask("hue", images, degrees=(120.0,) * times) for times in (1, 2))
    assert once.table == twice.table
    assert [ask("identity", images, spaces=("pixels",) * times).table[0]["n"] for times in (1, 2)] == [len(images)] * 2


def test_one_number_stands_for_a_list_of_one() -> None:
    assert get_analysis("place", shifts=4) == get_analysis("place", shifts=[4])


def test_dark_knowledge_needs_class_scores(images: Tensor) -> None:
    class Named(Thumbnail):
        name: ClassVar[str] = "thumbnail"

    assert "no class scores" in ask("dark-knowledge", images, Enlarged(Named())).reason
    errors = column(ask("dark-knowledge", images, k=192 - 1), "condition", "nre")
    assert "less than the 192 classes" in ask("dark-knowledge", images, k=192).reason
    assert errors["only the 191 largest"] == pytest.approx(errors["all scores"], rel=0.05)


def test_a_linear_inverter_overlays(images: Tensor) -> None:
    assert ask("interpolation", images, steps=4).answer.startswith("At 67% of the second photograph")
    off = column(ask("interpolation", images), "share", "off_overlay")
    assert max(off.values()) < 1e-4
    assert set(off) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_threshold_does_not_overlay(images: Tensor) -> None:
    class Threshold(Enlarged):
        def invert(self, features: Tensor) -> Tensor:
            return (super().invert(features) > 0.5).float()

    off = column(ask("interpolation", images, Threshold(Thumbnail())), "share", "off_overlay")
    assert off[0.5] > 0.2


def test_a_thumbnail_follows_the_hue_and_a_grey_one_does_not(images: Tensor) -> None:
    class Grey(Thumbnail):
        def encode(self, images: Tensor) -> Tensor:
            return super().encode(images.mean(dim=1, keepdim=True).expand_as(images))

    colour, grey = (
        column(ask("hue", images, Enlarged(kind())), "degrees", "colour_error") for kind in (Thumbnail, Grey)
    )
    assert all(colour[turn] < 0.7 * grey[turn] for turn in grey)


def test_the_turn_of_the_hue_is_read_off_the_reconstruction(images: Tensor) -> None:
    finding = ask("hue", images)
    shifts = column(finding, "degrees", "hue_shift")
    assert shifts == pytest.approx({0: 0, 120: 120, 240: 240}, abs=1)  # a third of a circle swaps the colours
    assert "it follows the photograph's" in finding.answer
    assert {row["n"] for row in finding.table} == {4}


def test_colours_made_up_do_not_follow_the_hue(images: Tensor) -> None:
    class Tinted(Enlarged):
        """Grey levels alone, in one tint."""

        def invert(self, features: Tensor) -> Tensor:
            return super().invert(features).mean(dim=1, keepdim=True) * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)

    finding = ask("hue", images, Tinted(Thumbnail()))
    assert column(finding, "degrees", "hue_shift") == pytest.approx({0: 0, 120: 0, 240: 0}, abs=1e-3)
    assert "it does not follow the photograph's" in finding.answer


def test_without_colour_the_error_is_that_of_grey_and_no_turn_is_read(images: Tensor) -> None:
    class Colourless(Enlarged):
        def invert(self, features: Tensor) -> Tensor:
            return super().invert(features).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)

    finding = ask("hue", images, Colourless(Thumbnail()))
    errors, grey = (column(finding, "degrees", value) for value in ("colour_error", "grey_error"))
    assert errors == pytest.approx(grey, rel=1e-3)
    assert all(math.isnan(row["hue_shift"]) for row in finding.table)
    assert "no colour whose hue could turn" in finding.answer


@pytest.mark.parametrize(("read", "words"), [(38.0, "it follows"), (15.0, "it does not follow")])
def test_a_small_turn_must_be_nearer_to_that_given_than_to_none(read: float, words: str) -> None:
    assert verdict([{"degrees": 40.0, "hue_shift": read, "hue_shift_sem": 1.0}]).startswith(words)


def test_grey_photographs_have_no_hue_to_turn(images: Tensor) -> None:
    finding = ask("hue", images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1))
    assert finding.answer.startswith("The photographs have no colour")


def test_the_classes_of_the_most_colourful_stand_beside_them(images: Tensor) -> None:
    (sheet,) = ask("hue", torch.cat([images[:1].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1), images[1:]]),
                   photographs=3).sheets  # fmt: skip
    assert "astronaut" not in "".join(sheet.captions)  # made grey
    assert all(caption.count("°: ") == 3 and caption.count(" %") == 3 for caption in sheet.captions)


def test_the_mean_of_turns_goes_round_the_circle() -> None:
    mean, sem = mean_turn(torch.polar(torch.ones(2).double(), torch.tensor([170.0, 190.0]).double().deg2rad()))
    assert mean == pytest.approx(180)
    assert sem == pytest.approx(10)  # as of two plain numbers 20 apart


def test_turning_the_hue_by_a_third_makes_red_green() -> None:
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.allclose(turn_hue(red, 120)[0, :, 0, 0], torch.tensor([0.2, 0.8, 0.2]), atol=1e-6)
    assert torch.allclose(turn_hue(red, 360), red, atol=1e-6)


# --- what is done to features -----------------------------------------------------------------------------------------

FEATURES = torch.tensor([[3.0, 0.0, -4.0, 0.0], [0.5, -1.0, 2.0, 4.0]])


def test_binarising_keeps_signs_zeros_and_the_norm() -> None:
    expected = torch.tensor([[5 / math.sqrt(2), 0, -5 / math.sqrt(2), 0]])
    assert torch.allclose(binarise(FEATURES)[:1], expected)
    assert torch.allclose(binarise(FEATURES).norm(dim=1), FEATURES.norm(dim=1))


def test_dropping_the_least_leaves_the_largest_half_of_what_is_not_zero() -> None:
    assert drop_least(FEATURES, 0.5).tolist() == [[0, 0, -4, 0], [0, 0, 2, 4]]


class Bits(Thumbnail):
    """Of an 8 x 8 picture, which colours are on, each at its own strength."""

    name: ClassVar[str] = "bits"

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) * (1 + torch.arange(192) % 3)


class Lit(Enlarged):
    """Every colour that is on at full strength."""

    def invert(self, features: Tensor) -> Tensor:
        return F.interpolate((features > 0).float().view(-1, 3, 8, 8), (64, 64))


@pytest.fixture(scope="module")
def bits() -> Tensor:
    """Pictures of which half the colours of each of 64 places are on, no two the same."""
    order = torch.rand(4, 192, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    return F.interpolate((order < 96).float().view(4, 3, 8, 8), (64, 64))


def test_a_picture_of_which_features_are_on_stays_when_they_are_binarised(bits: Tensor) -> None:
    finding = ask("code", bits, Lit(Bits()))
    errors, changes = (column(finding, "condition", value) for value in ("nre", "difference"))
    assert errors["unchanged"] == errors["binarised"] == changes["binarised"] == 0
    dropped = math.sqrt(48 * 64) / mean_pairwise_distance(bits)  # 48 of 96 colours, each of 8 x 8 pixels
    assert changes["binarised, least 50% dropped"] == pytest.approx(dropped, rel=1e-5)
    assert changes["50% dropped"] == changes["binarised, 50% dropped"] == pytest.approx(dropped, rel=0.15)


def test_random_features_of_bits_have_the_spread_of_bits(bits: Tensor) -> None:
    """0 and 1, half of each, is 0.5 around its mean; a normal distribution cut off at 0 has as many zeros."""
    finding = ask("random-features", bits, Lit(Thumbnail()), samples=3)
    spreads = column(finding, "condition", "spread")
    assert spreads == pytest.approx({PHOTOGRAPHS: 0.5, "histograms": 0.5, "gaussian": 0.5}, abs=0.02)
    assert [row["n"] for row in finding.table] == [4, 3, 3]


def test_all_features_are_multiplied_by_the_contrast(bits: Tensor) -> None:
    spreads = [column(ask("random-features", 0.1 * bits, contrast=c), "condition", "spread") for c in (1, 2)]
    assert spreads[1] == pytest.approx({kind: 2 * spread for kind, spread in spreads[0].items()}, rel=0.05)


def test_samples_are_told_apart_by_the_photographs_beside_them(bits: Tensor) -> None:
    (sheet,) = ask("random-features", bits, Lit(Thumbnail()), samples=9).sheets
    assert sheet.captions == [f"{one}\nsample {place}" for place, one in enumerate(IDS, start=1)]
    assert {len(pictures) for pictures in sheet.columns.values()} == {4}


def test_dropping_at_random_hits_about_the_share_and_the_norm_is_restored() -> None:
    features = torch.rand(3, 50, 10, 10)
    dropped = dropout(features, 0.3, torch.Generator().manual_seed(0))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    restored = with_norm_of(features, dropped)
    assert torch.allclose(restored.flatten(1).norm(dim=1), features.flatten(1).norm(dim=1))


def test_random_features_have_the_histograms_of_the_photographs() -> None:
    features = torch.randn(200, 30).clamp(min=0) * torch.arange(30)
    drawn = from_histograms(features, 400, torch.Generator().manual_seed(0))
    assert all(set(drawn[:, d].tolist()) <= set(features[:, d].tolist()) for d in range(30))
    assert torch.allclose(drawn.mean(dim=0), features.mean(dim=0), atol=0.2 * 30)
    assert float((drawn == 0).float().mean()) == pytest.approx(float((features == 0).float().mean()), abs=0.02)


@pytest.mark.parametrize("zeros", [0.3, 0.9])
def test_a_cut_off_gaussian_has_the_zeros_and_the_mean(zeros: float) -> None:
    offset, deviation = rectified_gaussian(zeros, mean=0.2)
    drawn = (torch.randn(400_000, generator=torch.Generator().manual_seed(0)) + offset).clamp(min=0) * deviation
    assert float((drawn == 0).float().mean()) == pytest.approx(zeros, abs=0.005)
    assert float(drawn.mean()) == pytest.approx(0.2, rel=0.02)


def test_signed_features_are_drawn_signed() -> None:
    drawn = from_gaussian(torch.randn(50, 100) * 3 + 1, 500, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(1, abs=0.1)
    assert float(drawn.std()) == pytest.approx(3, abs=0.1)


def test_names_and_settings_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'brightness'"):
        get_analysis("brigtness")
    with pytest.raises(SettingsError, match="share"):
        get_analysis("code", share=1.5)


def test_a_finding_is_plain_json(images: Tensor, tmp_path: Path) -> None:
    ask("code", images).save(tmp_path)
    content = json.loads((tmp_path / "code" / "finding.json").read_text())
    assert [row["condition"] for row in content["table"]][:2] == ["unchanged", "binarised"]
