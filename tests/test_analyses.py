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
from preimage.analyses.attributes import turn_hue
from preimage.analyses.perturbation import binarise, drop_least, dropout, with_norm_of
from preimage.analyses.sampling import from_gaussian, from_histograms, rectified_gaussian
from preimage.errors import SettingsError, UnknownNameError
from preimage.findings import Finding, read_finding, redraw
from preimage.interfaces import Inverter, Pairs, Representation


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


def test_a_representation_that_keeps_brightness_is_thrown_by_a_brighter_image(images: Tensor) -> None:
    errors = column(ask("brightness", images, factors=[10]), "condition", "nre")
    assert errors["x10"] > 2 * errors["x1"]


def test_a_representation_without_a_scale_says_why_not(images: Tensor) -> None:
    class Fixed(Thumbnail):
        def brightened(self, factor: float) -> None:  # type: ignore[override]
            return None

    finding = ask("brightness", images, Enlarged(Fixed()))
    assert "no scale to multiply" in finding.reason
    assert not finding.records


def test_dark_knowledge_needs_class_scores(images: Tensor) -> None:
    class Named(Thumbnail):
        name: ClassVar[str] = "thumbnail"

    assert "no class scores" in ask("dark-knowledge", images, Enlarged(Named())).reason
    errors = column(ask("dark-knowledge", images, k=192 - 1), "condition", "nre")
    assert errors["only the 191 largest"] == pytest.approx(errors["all scores"], rel=0.05)


def test_a_linear_inverter_overlays(images: Tensor) -> None:
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
