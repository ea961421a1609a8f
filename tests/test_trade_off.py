"""What quality costs in time: who takes part, on which photographs, and what is said of those who do not."""

from __future__ import annotations

import shlex
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import Tensor

from preimage.analyses import get_analysis
from preimage.analyses.trade_off import TradeOff, as_options, titled
from preimage.cli.terminal import representation_settings
from preimage.errors import SettingsError
from preimage.evaluation import Contender
from preimage.findings import Finding, read_finding
from preimage.interfaces import Batch
from preimage.inverters import GradientDescent, MeanImage, Nearest
from preimage.representations import HOG, get_representation

IDS = ["astronaut", "cat", "coffee", "rocket"]
HOG64 = HOG(image_size=64)


class Known:
    """The four photographs as pairs."""

    def __init__(self, images: Tensor) -> None:
        self.all = images

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield Batch(IDS, self.all, HOG64.encode_photos)

    def images(self, indices: Sequence[int]) -> Tensor:
        return self.all[list(indices)]


@pytest.fixture(scope="module")
def images(sample_images: Tensor) -> Tensor:
    return F.interpolate(sample_images, (64, 64), mode="bilinear", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def finding(images: Tensor) -> Finding:
    """The nearest photograph, which is the photograph itself, beside the mean image."""
    mean = Contender(MeanImage(HOG64).fit(Known(images)), "the four")
    analysis = TradeOff(photographs=3).against(lambda: [mean])
    return analysis(Nearest(HOG64).fit(Known(images)), IDS, images)


def test_the_command_that_is_advised_makes_the_same_encoder() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of_user = get_representation("torch:encoders:small", layer="body", mean=0.5, bgr=True)
    for encoder in (of_user, HOG(cell_size=16), HOG()):
        name, *options = shlex.split(as_options(encoder))
        assert get_representation(name, **representation_settings(options[1::2])) == encoder
    assert as_options(HOG()) == "hog"


def test_all_methods_invert_the_same_photographs(finding: Finding) -> None:
    by_name = {name: [r["id"] for r in finding.records if r["inverter"] == name] for name in ("nearest", "mean-image")}
    assert by_name == {"nearest": IDS[:3], "mean-image": IDS[:3]}
    assert [row["n"] for row in finding.table] == [3, 3]


def test_differences_are_those_of_the_same_photographs(finding: Finding) -> None:
    nearest, mean = finding.table
    assert float(nearest["nre"]) < 0.01
    assert nearest["difference"] == 0
    assert mean["difference"] == pytest.approx(float(mean["nre"]) - float(nearest["nre"]))
    assert "the four (mean-image)" in finding.answer


def test_seconds_are_the_medians_of_the_records_and_are_drawn_in_equal_factors(finding: Finding) -> None:
    for row in finding.table:
        own = [float(one["seconds"]) for one in finding.records if one["inverter"] == row["inverter"]]
        assert row["seconds"] == statistics.median(own) > 0
    (plot,) = finding.plots
    assert plot.log
    assert {name: points[0][0] for name, points in plot.series.items()} == {
        str(row["inverter"]): row["cpu_seconds"] for row in finding.table
    }


def test_it_is_saved_with_its_scale(finding: Finding, tmp_path: Path) -> None:
    finding.save(tmp_path)
    assert read_finding(tmp_path / "trade-off")["plots"][0]["log"] is True


def test_what_was_not_measured_says_how_to_add_it(finding: Finding) -> None:
    for advice in ("gradient-descent (add it by --baseline gradient-descent)", "`preimage fit hoggles", "-r hog"):
        assert advice in finding.answer


def test_what_cannot_invert_the_features_says_so(images: Tensor) -> None:
    class Opaque(HOG):
        def smooth(self) -> None:  # type: ignore[override]
            return None

    answer = get_analysis("trade-off")(MeanImage(Opaque(image_size=64)).fit(Known(images)), IDS, images).answer
    assert "no gradient passes" in answer
    assert "--baseline gradient-descent" not in answer


def test_two_of_one_name_are_told_apart() -> None:
    published, adam = (GradientDescent(HOG64, method) for method in ("mahendran", "adam"))
    assert list(titled([published, adam, adam])) == [
        "gradient-descent", "gradient-descent, by Adam", "gradient-descent, by Adam, 3"
    ]  # fmt: skip


def test_no_photographs_are_too_few() -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        TradeOff(photographs=0)


def test_features_are_the_same_whoever_inverts_them(images: Tensor) -> None:
    rival = Contender(Nearest(HOG64).fit(Known(images)), "the four")
    found = TradeOff().against(lambda: [rival])(Nearest(HOG64).fit(Known(images)), IDS, images)
    errors = {name: [r["nre"] for r in found.records if r["inverter"] == name] for name in ("nearest", "nearest, 2")}
    assert errors["nearest"] == errors["nearest, 2"] != []
