"""What is kept, where it is known by hand: by all pixels, by a thumbnail, by a histogram of grey levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from preimage.analyses.attributes import Hue
from preimage.analyses.conditions import CONTROL, KEPT, MEAN
from preimage.analyses.detail import Detail, cosine_transform, frequencies, share_kept
from preimage.analyses.place import ESTIMATOR, Place, estimate_shift, move
from preimage.analyses.recognition import Class, Identity, ranks
from preimage.analyses.retention import Colour, Lightness
from preimage.errors import SettingsError, UnknownNameError
from preimage.findings import Analysis, Finding, Record
from preimage.images import Photos, grey
from preimage.interfaces import Inverter, Pairs, Representation
from preimage.metrics import wilson
from preimage.networks.classes import class_names
from preimage.networks.squeezenet import SqueezeNet
from preimage.representations import get_representation

SIZE = 128  # pixels
BLOCK = 8  # pixels: a thumbnail of 16 x 16, which holds up to 8 cycles per image
LEVELS = 16


class Known(Inverter):
    """An inverter that needs no fitting."""

    def __init__(self) -> None:
        self.settings = {}

    def fit(self, pairs: Pairs) -> Self:
        return self

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> Self:
        return self


@dataclass(frozen=True)
class Pixels(Representation):
    """The image itself."""

    name: ClassVar[str] = "all-pixels"
    image_size: int = SIZE

    def encode(self, images: Tensor) -> Tensor:
        return images

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (3, height, width)


class Everything(Known):
    name = "everything"
    representation = Pixels()

    def invert(self, features: Tensor) -> Tensor:
        return features


@dataclass(frozen=True)
class Blocks(Pixels):
    """The mean colour of every block."""

    name: ClassVar[str] = "blocks"

    def encode(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, BLOCK)

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (3, height // BLOCK, width // BLOCK)


class Thumbnail(Known):
    """Bilinear enlargement: keeps colour and place, and no detail."""

    name = "thumbnail"
    representation = Blocks()

    def invert(self, features: Tensor) -> Tensor:
        return F.interpolate(features, (SIZE, SIZE), mode="bilinear")


@dataclass(frozen=True)
class GreyHistogram(Pixels):
    """The shares of the grey levels."""

    name: ClassVar[str] = "grey-histogram"

    def encode(self, images: Tensor) -> Tensor:
        bins = (grey(images, scale=1, rounded=False) * LEVELS).long().clamp(max=LEVELS - 1)
        return F.one_hot(bins.flatten(1), LEVELS).float().mean(dim=1)

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (LEVELS,)


class MeanGrey(Known):
    """The mean grey level everywhere: keeps brightness, and neither colour nor place."""

    name = "mean-grey"
    representation = GreyHistogram()

    def invert(self, features: Tensor) -> Tensor:
        level = features @ ((torch.arange(LEVELS) + 0.5) / LEVELS)
        return level[:, None, None, None].expand(-1, 3, SIZE, SIZE)


@pytest.fixture(scope="module")
def pictures(samples: Photos, sample_images: Tensor) -> tuple[list[str], Tensor]:
    """The four quarters of each sample photograph."""
    quarters = [sample_images[:, :, y : y + SIZE, x : x + SIZE] for y in (0, SIZE) for x in (0, SIZE)]
    ids = [f"{name}-{place}" for place in range(4) for name in samples.ids]
    return ids, torch.cat(quarters).contiguous()


def asked(analysis: Analysis, inverter: Inverter, pictures: tuple[list[str], Tensor]) -> Finding:
    finding = analysis(inverter, *pictures)
    assert not finding.reason
    return finding


def row(finding: Finding, **wanted: str | float) -> Record:
    (found,) = [one for one in finding.table if all(one[key] == value for key, value in wanted.items())]
    return found


def kept(finding: Finding, channel: str, condition: str = KEPT) -> list[float]:
    """The shares kept from the coarsest band to the finest."""
    return [float(r["kept"]) for r in finding.table if (r["channel"], r["condition"]) == (channel, condition)]


# --- detail -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["luminance", "chroma"])
def test_all_pixels_keep_every_band(pictures: tuple[list[str], Tensor], channel: str) -> None:
    finding = asked(Detail(), Everything(), pictures)
    assert kept(finding, channel) == pytest.approx([1.0] * 6)
    assert "finest band" in finding.answer


@pytest.mark.parametrize("channel", ["luminance", "chroma"])
def test_a_thumbnail_keeps_the_bands_below_its_nyquist_frequency_only(
    pictures: tuple[list[str], Tensor], channel: str
) -> None:
    finding = asked(Detail(), Thumbnail(), pictures)
    shares = {float(r["to"]): share for r, share in zip(finding.table, kept(finding, channel), strict=False)}
    assert shares[2] > 0.95
    assert shares[4] > 0.8
    assert max(share for to, share in shares.items() if to > 8) < 0.2


def test_another_photographs_features_keep_no_band(pictures: tuple[list[str], Tensor]) -> None:
    assert max(kept(asked(Detail(), Everything(), pictures), "luminance", CONTROL)) < 0.1


class AlwaysGrey(Everything):
    """The same picture for all: knows nothing of any."""

    def invert(self, features: Tensor) -> Tensor:
        return torch.full_like(features, 0.5)


class SmallGrey(AlwaysGrey):
    representation = Pixels(image_size=64)


@pytest.mark.parametrize("n", [4, 8, 20])
def test_one_picture_for_all_keeps_nothing_however_few_are_measured(n: int) -> None:
    """Noise around mid-grey, whose mean over all such pictures is known: that mean tells no more and no less than 0."""
    noise = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(n))
    finding = Detail()(SmallGrey(), [f"{place}" for place in range(n)], noise)
    for channel in ("luminance", "chroma"):  # in fine bands, of many values
        assert kept(finding, channel)[3:] == pytest.approx([0.0] * 2, abs=0.4 / n)


def test_a_share_below_the_noise_floor_is_called_noise(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Detail(), AlwaysGrey(), pictures)
    own = [r for r in finding.table if r["condition"] == KEPT]
    assert all(float(r["kept"]) < float(r["noise_floor"]) for r in own)
    assert "No band keeps half of the luminance variance, and nothing that is told from noise" in finding.answer


def test_chance_is_seldom_taken_for_detail() -> None:
    """In 5 % of cases, over all bands together."""
    chance = 0
    for seed in range(40):
        noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        finding = Detail()(SmallGrey(), list("abcdefgh"), noise)
        chance += finding.answer.count("nothing that is told from noise") < 2
    assert chance <= 5


def test_grey_photographs_have_no_chroma_to_keep(pictures: tuple[list[str], Tensor]) -> None:
    ids, images = pictures
    greys = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    finding = Detail()(Everything(), ids, greys)
    assert "no colour by which they differ" in finding.answer
    assert {row["channel"] for row in finding.table} == {"luminance"}


def test_two_photographs_tell_no_detail(pictures: tuple[list[str], Tensor]) -> None:
    ids, images = pictures
    assert "too few" in Detail()(Everything(), ids[:2], images[:2]).answer


def test_a_band_of_noise_does_not_take_the_plot_from_the_others() -> None:
    band: Record = {"condition": KEPT, "channel": "chroma", "n": 9}
    table = [band | {"from": 0.0, "to": 2.0, "kept": 0.9, "kept_sem": 0.1}]
    table += [band | {"from": 2.0, "to": 4.0, "kept": -25.0, "kept_sem": 1.0}]
    plot = Detail().plot(table)
    assert [point[1] for point in plot.series["chroma"]] == [0.9, -1.5]
    assert plot.series["chroma"][1][2] == (-1.5, -1.5)
    assert "below -1.5 is drawn there" in plot.y_label


def test_the_standard_error_is_that_of_leaving_out_each_photograph() -> None:
    around, errors = torch.randn(7, 5).double(), torch.rand(7).double()

    def share(chosen: Sequence[int]) -> float:
        own = around[list(chosen)]
        return 1 - float(errors[list(chosen)].mean() / own.var(dim=0).sum())

    without = torch.tensor([share([j for j in range(7) if j != i]) for i in range(7)]).double()
    variance = (around - around.mean(dim=0)).square().sum(dim=1) * 7 / 6
    found, sem = share_kept(errors, variance)
    assert found == pytest.approx(share(range(7)))
    assert sem == pytest.approx(math.sqrt(6 / 7 * float((without - without.mean()).square().sum())))


def test_the_bands_add_up_to_the_pixels(pictures: tuple[list[str], Tensor]) -> None:
    ids, images = pictures
    records = [r for r in asked(Detail(), Thumbnail(), pictures).records if r["condition"] == KEPT]
    error = sum(float(r["error"]) for r in records if r["id"] == ids[0] and r["channel"] == "luminance")
    back = Thumbnail().invert(Blocks().encode(images[:1]))
    difference = grey(images[:1].double(), 1, rounded=False) - grey(back.double(), 1, rounded=False)
    assert error == pytest.approx(float(difference.square().sum()), rel=1e-6)


def test_a_wave_lies_at_its_own_frequency() -> None:
    places = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    wave = (2 * math.pi * 5 * places).cos().expand(1, 1, 64, 64)
    strongest = cosine_transform(wave)[0, 0].abs().flatten().argmax()
    assert frequencies(wave).flatten()[strongest] == 5


def test_the_transform_can_be_undone() -> None:
    image = torch.rand(1, 1, 12, 20, dtype=torch.float64)
    torch.testing.assert_close(cosine_transform(cosine_transform(image), inverse=True), image)


# --- place ------------------------------------------------------------------------------------------------------------

NEAR = Place(shifts=(2, 8))


def test_all_pixels_keep_the_place(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(NEAR, Everything(), pictures)
    assert float(row(finding, condition=KEPT, shift=2)["pixel_error"]) < 0.05
    for shift in (2, 8):  # a patch of empty sky tells no shift: the estimate's own error stands beside it
        own, known = (row(finding, condition=one, shift=shift)["pixel_error"] for one in (KEPT, ESTIMATOR))
        assert own == pytest.approx(known, abs=1e-6)


def test_a_thumbnail_keeps_the_place_to_a_fraction_of_its_blocks(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(NEAR, Thumbnail(), pictures)
    assert float(row(finding, condition=KEPT, shift=2)["pixel_error"]) < BLOCK / 4


def test_a_histogram_keeps_no_place(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(NEAR, MeanGrey(), pictures)
    for shift in (2, 8):
        guess = row(finding, condition="guessing 0", shift=shift)["pixel_error"]
        assert row(finding, condition=KEPT, shift=shift)["pixel_error"] == guess == shift
    assert "the reconstruction is no better at 2, 8 px" in finding.answer


def test_guessing_is_drawn_beside_the_reconstruction(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(NEAR, Everything(), pictures)
    assert [point[:2] for point in finding.plots[0].series["guessing 0"]] == [(2, 2), (8, 8)]
    assert "the reconstruction is better at every shift" in finding.answer


def test_another_photograph_tells_no_shift(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(NEAR, Everything(), pictures)
    assert float(row(finding, condition=CONTROL, shift=2)["pixel_error"]) > 4


@pytest.mark.parametrize(("direction", "wanted"), [("down", [5, 0]), ("right", [0, 5])])
def test_a_shift_is_down_and_right(sample_images: Tensor, direction: str, wanted: Sequence[float]) -> None:
    before, after = (
        grey(one.double(), 1, rounded=False)[0].numpy() for one in (sample_images, move(sample_images, 5, direction))
    )
    np.testing.assert_allclose(estimate_shift(before, after, 8), wanted, atol=0.1)


def test_shifts_too_large_for_the_image_are_refused(pictures: tuple[list[str], Tensor]) -> None:
    assert "give smaller shifts" in Place(shifts=(20,))(Everything(), *pictures).reason
    with pytest.raises(SettingsError, match="from 1 upwards"):
        Place(shifts=(0, 2))


# --- colour and lightness ---------------------------------------------------------------------------------------------


def test_all_pixels_keep_the_colour(pictures: tuple[list[str], Tensor]) -> None:
    own = row(asked(Colour(), Everything(), pictures), condition=KEPT)
    assert own["ab_error"] == pytest.approx(0, abs=1e-3)
    assert own["ab_correlation"] == pytest.approx(1)


def test_a_thumbnail_keeps_most_of_the_colour(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Colour(), Thumbnail(), pictures)
    assert float(row(finding, condition=KEPT)["ab_error"]) < 0.5 * float(row(finding, condition="grey")["ab_error"])


def test_a_grey_histogram_keeps_no_colour(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Colour(), MeanGrey(), pictures)
    own = row(finding, condition=KEPT)
    assert own["ab_error"] == pytest.approx(row(finding, condition="grey")["ab_error"], rel=1e-3)
    assert math.isnan(own["ab_correlation"])  # grey does not vary: there is nothing to correlate
    assert "no closer than without any colour" in finding.answer
    assert "nan" not in finding.answer


def test_grey_photographs_have_no_colour_to_keep(pictures: tuple[list[str], Tensor]) -> None:
    ids, images = pictures
    greys = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    assert "no colour to keep" in Colour()(Everything(), ids, greys).answer


def test_three_photographs_have_no_correlation_to_show(pictures: tuple[list[str], Tensor]) -> None:
    ids, images = pictures
    assert "for a correlation 4 are needed" in Lightness()(Everything(), ids[:3], images[:3]).answer


def test_a_grey_histogram_keeps_the_brightness(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Lightness(), MeanGrey(), pictures)
    own = row(finding, condition=KEPT)
    assert float(own["correlation"]) > 0.99
    assert float(own["level_error"]) < 255 / LEVELS / 2
    assert float(own["level_error"]) < float(row(finding, condition=MEAN)["level_error"])


def test_one_picture_for_all_has_no_correlation_to_show(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Lightness(), AlwaysGrey(), pictures)
    assert math.isnan(row(finding, condition=KEPT)["correlation"])
    assert "it is the same for all" in finding.answer


def test_another_photographs_features_do_not_tell_the_brightness(pictures: tuple[list[str], Tensor]) -> None:
    control = row(asked(Lightness(), Everything(), pictures), condition=CONTROL)
    r = float(control["correlation"])
    assert r < 0.6
    assert control["correlation_sem"] == pytest.approx((1 - r**2) / math.sqrt(len(pictures[0]) - 1))
    assert float(control["level_error"]) > 10


# --- identity ---------------------------------------------------------------------------------------------------------


def test_all_pixels_are_found_at_once(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Identity(), Everything(), pictures)
    for space in ("pixels", "hog", "efficientnet_lite0.pool"):
        own = row(finding, space=space, condition=KEPT)
        assert own["top1"] == 1
        assert own["top1_low"] == pytest.approx(0.806, abs=1e-3)  # Wilson's interval for 16 of 16
        assert row(finding, space=space, condition=CONTROL)["top1"] == 0


def test_shares_are_drawn_with_their_intervals_beside_chance(pictures: tuple[list[str], Tensor]) -> None:
    (plot,) = asked(Identity(("pixels",)), Everything(), pictures).plots
    assert plot.series["first"][0][2] == pytest.approx((0.806, 1), abs=1e-3)  # all of 16, and yet not sure
    assert plot.level == pytest.approx(1 / 16)
    assert "chance" in plot.level_name


def test_one_picture_for_all_finds_none(pictures: tuple[list[str], Tensor]) -> None:
    class Same(Everything):
        def invert(self, features: Tensor) -> Tensor:
            return torch.full_like(features, 0.5)

    own = row(asked(Identity(("pixels",)), Same(), pictures), condition=KEPT)
    assert own["top1"] == pytest.approx(1 / 16)  # the one photograph nearest to grey


def test_equal_distances_share_their_rank() -> None:
    assert ranks(torch.zeros(3, 3)).tolist() == [2, 2, 2]
    assert ranks(torch.tensor([[1.0, 0.5], [3.0, 2.0]])).tolist() == [2, 1]


def test_a_space_that_is_the_inverted_representation_is_marked() -> None:
    class OfHOG(Everything):
        representation = get_representation("hog")  # type: ignore[assignment]

        def invert(self, features: Tensor) -> Tensor:
            return torch.rand(len(features), 3, 256, 256)

    finding = Identity(("pixels", "hog"))(OfHOG(), ["a", "b"], torch.rand(2, 3, 256, 256))
    assert [r["space"] for r in finding.table] == ["pixels"] * 2 + ["hog (inverted itself)"] * 2


def test_unknown_spaces_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hog'"):
        Identity(("hogg",))


def test_the_interval_of_a_share() -> None:
    low, high = wilson(0.5, 10)  # Wilson's formula by hand
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 20)[0] == 0


# --- class ------------------------------------------------------------------------------------------------------------


def test_equal_images_are_named_alike(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Class(("efficientnet_lite0",)), Everything(), pictures)
    own = row(finding, condition=KEPT)
    assert (own["top1"], own["top5"]) == (1, 1)
    assert own["probability"] == row(finding, condition="photograph")["probability"]
    assert "itself" not in str(own["classifier"])


def test_classes_have_their_names() -> None:
    from skimage.data import cat, coffee

    both = [torch.from_numpy(picture()[:300, -400:].copy()).permute(2, 0, 1) / 255 for picture in (cat, coffee)]
    images = F.interpolate(torch.stack(both), (SIZE, SIZE), mode="bilinear", antialias=True)
    inverter = Everything()
    (sheet,) = asked(Class(("efficientnet_lite0",)), inverter, (["cat", "coffee"], images)).sheets
    assert [caption.splitlines()[1].partition(":")[0] for caption in sheet.captions] == ["Egyptian cat", "espresso"]
    (sheet,) = asked(Hue(degrees=(0,)), inverter, (["cat", "coffee"], images)).sheets
    assert {caption.splitlines()[1].partition(",")[0] for caption in sheet.captions} == {
        "0°: Egyptian cat", "0°: espresso",
    }  # fmt: skip


def test_a_grey_picture_is_named_less_surely(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Class(("efficientnet_lite0",)), MeanGrey(), pictures)
    before, after = (float(row(finding, condition=one)["probability"]) for one in ("photograph", KEPT))
    assert after < 0.25 * before


def test_a_classifier_that_judges_its_own_layer_is_marked() -> None:
    class OfPool(Everything):
        representation = get_representation("efficientnet_lite0.pool")  # type: ignore[assignment]

        def invert(self, features: Tensor) -> Tensor:
            return torch.full((len(features), 3, 224, 224), 0.5)

    finding = Class(("efficientnet_lite0",))(OfPool(), ["a", "b"], torch.rand(2, 3, 224, 224))
    assert all("(inverted itself)" in str(r["classifier"]) for r in finding.table)
    assert "Beware" in finding.answer
    assert "preimage weights get" in finding.answer


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights of a SqueezeNet that has learnt nothing: a file of another classifier."""
    file = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = SqueezeNet().state_dict()
    named = {name.replace(".conv.", ".") if ".conv." in name else name.replace(".", "/", 1): value
             for name, value in state.items()}  # fmt: skip
    save_file(named, file)
    return {"squeezenet": str(file)}


def test_every_classifier_at_hand_judges_on_its_own(
    pictures: tuple[list[str], Tensor], squeezenet: dict[str, str]
) -> None:
    class OfPool(Everything):
        representation = get_representation("efficientnet_lite0.pool")  # type: ignore[assignment]

        def invert(self, features: Tensor) -> Tensor:
            return torch.full((len(features), 3, 224, 224), 0.5)

    images = F.interpolate(pictures[1][:3], (224, 224), mode="bilinear")
    finding = Class(weights=squeezenet)(OfPool(), pictures[0][:3], images)
    judges = {str(r["classifier"]) for r in finding.table}
    assert {"efficientnet_lite0 (inverted itself)", "squeezenet"} <= judges
    assert len(finding.plots) == len(judges)
    assert "preimage weights get" not in finding.answer
    assert "photograph (class by efficientnet_lite0 (inverted itself))" not in finding.sheets[0].columns


def test_weights_named_for_all_questions_reach_the_classifiers(squeezenet: dict[str, str]) -> None:
    assert set(Class(classifiers=("squeezenet",)).with_weights(squeezenet).judges()) == {"squeezenet"}


def test_the_class_stands_beside_the_pictures_with_its_probability(pictures: tuple[list[str], Tensor]) -> None:
    finding = asked(Class(("efficientnet_lite0",)), Everything(), pictures)
    first = next(r for r in finding.records if r["condition"] == KEPT)
    chance = f"{100 * float(first['probability']):.0f} %"
    seen = class_names()[int(first["class"])]
    assert finding.sheets[0].captions[0].endswith(f"{seen}: {chance}\nnow {chance}, place 1")


def test_a_classifier_without_weights_says_what_it_needs(pictures: tuple[list[str], Tensor]) -> None:
    finding = Class(("squeezenet",))(Everything(), *pictures)
    assert "needs its weights" in finding.reason
    assert not finding.table


def test_unknown_classifiers_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'squeezenet'"):
        Class(("squeeznet",))


# --- all of them ------------------------------------------------------------------------------------------------------

ALL: tuple[Analysis, ...] = (Detail(), NEAR, Colour(), Lightness(), Identity(("pixels",)), Class())


@pytest.mark.parametrize("analysis", ALL, ids=lambda analysis: analysis.name)
def test_a_finding_is_saved_with_its_pictures(
    analysis: Analysis, pictures: tuple[list[str], Tensor], tmp_path: Path
) -> None:
    finding = asked(analysis, Thumbnail(), (pictures[0][:4], pictures[1][:4]))
    finding.save(tmp_path)
    written = {file.name for file in (tmp_path / analysis.name).iterdir()}
    assert {"records.csv", "finding.json", "plot-0.png"} <= written
    assert f"n = {len(pictures[0][:4])}" in finding.answer or "Of 4 photographs" in finding.answer


@pytest.mark.parametrize("analysis", ALL, ids=lambda analysis: analysis.name)
def test_one_photograph_alone_is_refused(analysis: Analysis, pictures: tuple[list[str], Tensor]) -> None:
    assert "at least two" in analysis(Everything(), pictures[0][:1], pictures[1][:1]).reason
