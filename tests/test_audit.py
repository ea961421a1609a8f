"""The audit on embeddings whose answer is known: one that gives the photograph away, and some that hold nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from command import preimage as command
from preimage import leakage
from preimage.audit import ATTACKERS, Attack, Audit, AuditSettings, curve_sizes, judge_features, summary
from preimage.audit_page import page, write_page
from preimage.defences import fit_defences, neighbours_kept, neighbours_of
from preimage.errors import FeatureError, PreimageWarning, SettingsError
from preimage.images import Photos, save_image

SMALL = AuditSettings(quick=True, image_size=32, steps=60, width=0.1, permutations=699)


def smooth_pictures(count: int, seed: int) -> Tensor:
    """Pictures (N, 3, 32, 32) of a few soft colours, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(count, 3, 4, 4, generator=generator), (32, 32), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures in two folders, light and dark ones."""
    folder = tmp_path_factory.mktemp("audit")
    for index, image in enumerate(smooth_pictures(120, 0)):
        place = folder / ("dark", "light")[index % 2]
        place.mkdir(exist_ok=True)
        save_image(0.5 * image + 0.4 * (index % 2), place / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> Photos:
    return Photos.open(folder, 32).load()


@pytest.fixture(scope="module")
def thumbnails(photos: Photos) -> Tensor:
    """What an embedding that gives everything away would be: 8 x 8 averages (120, 192)."""
    return F.adaptive_avg_pool2d(next(photos.batches(len(photos)))[1], 8).flatten(1)


def saved(features: Tensor, photos: Photos, folder: Path) -> Path:
    np.savez(folder / "features.npz", features=features.numpy(), ids=np.array(photos.ids))
    return folder / "features.npz"


@pytest.fixture(scope="module")
def told(thumbnails: Tensor, photos: Photos, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """The quick audit of thumbnails."""
    return judge_features(saved(thumbnails, photos, tmp_path_factory.mktemp("told")), folder, settings=SMALL)


def row(audit: Audit, attacker: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in audit.content["rows"] if each["attacker"] == attacker)
    return found


def test_thumbnails_give_photographs_away(told: Audit) -> None:
    best, mean = row(told, told.content["best"]), row(told, "mean-image")
    assert best["nre"] < 0.6 * mean["nre"]
    assert best["top1"] > 0.8
    assert best["true_match_rate"] > 0.8
    assert best["colour_error"] < 0.7 * mean["colour_error"]
    assert told.content["above_chance_p"] < 0.01
    assert "closer than the average picture" in told.content["summary"][0]


def test_what_is_learnt_from_shuffled_pairs_does_not_beat_the_mean_image(told: Audit) -> None:
    mean = row(told, "mean-image")
    shuffled = told.content["shuffled"]
    assert shuffled["difference"] == pytest.approx(shuffled["nre"] - mean["nre"], abs=1e-6)
    assert shuffled["difference"] > -3 * shuffled["difference_sem"]
    assert told.content["other_image"]["nre"] > mean["nre"]


@pytest.mark.parametrize(
    "made",
    [
        lambda n: torch.eye(1, n).T.expand(-1, 16),
        lambda n: torch.randn(n, 16, generator=torch.Generator().manual_seed(1)),
    ],
    ids=["constant", "noise"],
)
def test_features_that_hold_nothing_are_at_chance(
    made: Callable[[int], Tensor], photos: Photos, folder: Path, tmp_path: Path
) -> None:
    audit = judge_features(saved(made(len(photos)), photos, tmp_path), folder, settings=SMALL)
    mean = row(audit, "mean-image")
    assert audit.content["above_chance_p"] > 0.05
    assert min(each["nre"] for each in audit.content["rows"]) > 0.9 * mean["nre"]
    assert "not proof" in audit.content["summary"][0]


def test_rows_without_ids_in_another_order_may_be_why_nothing_is_found(
    thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    np.save(
        tmp_path / "f.npy", thumbnails[torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))].numpy()
    )
    summary = judge_features(tmp_path / "f.npy", folder, settings=SMALL).content["summary"]
    assert "if they are in another order, nothing can be found" in summary[1]


def test_test_features_of_another_encoder_are_refused(
    thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}.npy", thumbnails.numpy())
        (tmp_path / f"{name}.npy.json").write_text(json.dumps({"ids": photos.ids, "fingerprint": name}))
    with pytest.raises(FeatureError, match="were encoded with different settings"):
        judge_features(
            tmp_path / "train.npy", folder, test_features=tmp_path / "test.npy", test_images=folder, settings=SMALL
        )


def test_the_mean_image_is_at_chance_in_everything(told: Audit) -> None:
    mean = row(told, "mean-image")
    assert mean["top1"] == pytest.approx(1 / told.content["n_test"])
    assert mean["true_match_rate"] == 0
    assert mean["p"] == 1


def test_folders_give_classes_and_brightness_gives_the_class_away(told: Audit) -> None:
    classes = told.content["classes"]
    assert classes["classes"] == 2
    assert classes["reconstructions"]["accuracy"] > 0.9 > classes["chance"]


def test_no_labels_are_told(thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for photo in photos.photos:
        (flat / Path(photo.id).name).write_bytes(photo.read())
    audit = judge_features(saved(thumbnails, photos, tmp_path), flat, settings=SMALL)
    assert audit.content["classes"] == {"available": False, "reason": "no labels"}
    labels = tmp_path / "labels.csv"
    lines = "".join(f"{Path(own).name},{int(index % 2)}\n" for index, own in enumerate(photos.ids))
    labels.write_text(lines, encoding="utf-8-sig")  # as Excel does
    settings = AuditSettings(quick=True, image_size=32, steps=1, width=0.1, permutations=600)
    audit = judge_features(saved(thumbnails, photos, tmp_path), flat, labels=labels, settings=settings)
    assert audit.content["classes"]["available"]
    labels.write_text("nobody.png,3\n")
    with pytest.raises(SettingsError, match="names none of the photographs"):
        judge_features(saved(thumbnails, photos, tmp_path), flat, labels=labels, settings=settings)


def test_the_same_seed_gives_the_same_numbers(
    told: Audit, thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    again = judge_features(saved(thumbnails, photos, tmp_path), folder, settings=SMALL)
    assert again.content["rows"] == told.content["rows"]


def test_grey_photographs_have_no_colour_to_give_away(told: Audit) -> None:
    rows = [row | {"colour_error": 0.2} for row in told.content["rows"]]
    assert "Colour: the photographs have none by which they differ." in summary(told.content | {"rows": rows})
    assert any("'s colours are" in sentence for sentence in told.content["summary"])


def test_near_duplicates_are_found_and_taken_from_the_test_side(
    thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    """Of 30 test photographs 10 are copies of training photographs: smaller, or mirrored, or badly compressed."""
    others = tmp_path / "others"
    others.mkdir()
    for index, image in enumerate(smooth_pictures(20, 7)):
        save_image(image, others / f"new-{index:02d}.png")
    for index in range(10):
        copy = Image.fromarray(photos.pixels(index))
        copy = copy.resize((24, 24)) if index % 2 else copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        copy.save(others / f"old-{index:02d}.jpg", quality=60)
    test = Photos.open(others, 32).load()
    known = F.adaptive_avg_pool2d(next(test.batches(30))[1], 8).flatten(1)
    np.savez(tmp_path / "test.npz", features=known.numpy(), ids=np.array(test.ids))
    audit = judge_features(
        saved(thumbnails, photos, tmp_path), folder, test_features=tmp_path / "test.npz", test_images=others,
        settings=SMALL,
    )  # fmt: skip
    found = audit.content["near_duplicates"]["found"]
    assert [one["test"] for one in found] == [f"old-{index:02d}.jpg" for index in range(10)]
    assert [one["train"] for one in found] == photos.ids[:10]
    assert audit.content["n_test"] == 20


def test_different_photographs_are_no_duplicates(sample_images: Tensor) -> None:
    small = F.adaptive_avg_pool2d(sample_images, 64)
    assert leakage.near_duplicates(small, [small.roll(1, 0)]) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    for index in range(len(small)):
        assert leakage.near_duplicates(small[index : index + 1], [small[:index], small[index + 1 :]]) == []


def test_too_few_pairs_are_refused(thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", features=thumbnails[:15].numpy(), ids=np.array(photos.ids[:15]))
    with pytest.raises(FeatureError, match="needs at least 20 training and 10 test pairs"):
        judge_features(tmp_path / "few.npz", folder, settings=SMALL)
    with pytest.raises(SettingsError, match="give both"):
        judge_features(tmp_path / "few.npz", folder, test_images=folder, settings=SMALL)


def test_test_pairs_whose_every_pairing_is_likely_are_refused(
    thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    """Of five pairs, one pairing in 120 is the right one: no attacker could be told from chance."""
    file = saved(thumbnails, photos, tmp_path)
    with pytest.raises(FeatureError, match="10 test pairs, got 115 and 5"):
        judge_features(file, folder, settings=replace(SMALL, max_test=5))


FULL = AuditSettings(image_size=32, steps=4, width=0.05, seeds=2, permutations=600)


@pytest.fixture(scope="module")
def full(thumbnails: Tensor, photos: Photos, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """An audit with everything, of a few steps each."""
    file = saved(thumbnails, photos, tmp_path_factory.mktemp("full"))
    told: list[tuple[str, int, int]] = []
    audit = judge_features(file, folder, settings=FULL, on_progress=lambda *facts: told.append(facts))
    assert told[-1][1] == told[-1][2]  # all the work that was announced has been done
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    return audit


def only(journal: Path) -> dict[str, Any]:
    """The rows of the only audit in a journal."""
    (rows,) = json.loads(journal.read_text()).values()
    return dict(rows)


def test_an_audit_that_was_stopped_goes_on_from_there(
    full: Audit, thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    file, journal = saved(thumbnails, photos, tmp_path), tmp_path / "unfinished.json"

    def stop(stage: str, *_: int) -> None:
        if "4 bits" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_features(file, folder, settings=FULL, journal=journal, on_progress=stop)
    found = set(only(journal))
    assert "learning curve, 96 pairs: upconv, seed 1" in found
    learnt: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        learn = Attack.learn
        patch.setattr(Attack, "learn", lambda self, name, *rest: learnt.append(name) or learn(self, name, *rest))
        again = judge_features(file, folder, settings=FULL, journal=journal)
    assert len(learnt) == len(ATTACKERS) + len(only(journal)) - len(found)
    assert again.content | {"seconds": 0, "features": ""} == full.content | {"seconds": 0, "features": ""}
    judge_features(
        file, folder, settings=SMALL, journal=journal
    )  # another audit takes nothing of it, nor takes it away
    kept = list(map(list, json.loads(journal.read_text()).values()))
    assert len(kept[0]) > len(kept[1])
    assert kept[1] == [f"control: shuffled pairs: {name}, seed 0" for name in ("upconv", "ridge")]
    journal.write_text("{")
    with pytest.warns(PreimageWarning, match="begins anew"):
        judge_features(file, folder, settings=SMALL, journal=journal)


def test_the_learning_curve_is_geometric_and_ends_at_all_pairs(full: Audit) -> None:
    sizes = sorted({each["n_train"] for each in full.content["curve"]})
    assert len(sizes) == 5
    assert sizes[-1] == full.content["n_train"] == 96
    ridge = [each["nre"] for each in full.content["curve"] if each["attacker"] == "ridge"]
    assert ridge[-1] < ridge[0]
    assert curve_sizes(20_000, 5) == [32, 160, 800, 4000, 20000]


def test_defences_cost_more_the_stronger_they_are(full: Audit) -> None:
    rows = [each for each in full.content["defences"] if each["attacker"] == "ridge"]

    def errors(name: str) -> list[float]:
        return [each["nre"] for each in sorted((e for e in rows if e["defence"] == name), key=lambda e: e["strength"])]

    assert {each["defence"] for each in rows} == {"none", "noise", "quantisation", "pca", "first", "binarisation"}
    assert errors("noise") == sorted(errors("noise"))
    assert errors("quantisation")[0] > errors("quantisation")[-1]
    assert errors("pca")[0] > errors("pca")[-1]
    assert errors("none")[0] <= min(errors("noise"))
    assert {each["attacker"] for each in full.content["defences"]} == {"ridge", "upconv"}


def test_a_defence_that_helps_an_attacker_says_that_attackers_do_not_find_everything(full: Audit) -> None:
    own = row(full, full.content["best"])
    rows = [own | {"words": words, "nre": own["nre"] + more} for words, more in (("8 bits", 0.01), ("1 bits", -0.01))]
    told = [sentence for sentence in summary(full.content | {"defences": rows}) if sentence.startswith("Defences")]
    assert len(told) == 1
    assert "behind one of them (1 bits)" in told[0]
    assert not any(one.startswith("Defences") for one in summary(full.content | {"defences": rows[:1]}))


def test_defences_change_features_as_they_say() -> None:
    sample = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    made = {(each.name, each.strength): each for each in fit_defences(sample)}
    ids = [str(index) for index in range(200)]
    noisy = made["noise", 1.0]
    torch.testing.assert_close(noisy.change(ids, sample), noisy.change(ids[::-1], sample.flip(0)).flip(0))
    assert (noisy.change(ids, sample) - sample).std() == pytest.approx(1, abs=0.05)
    assert all(len(column.unique()) <= 4 for column in made["quantisation", 2].change(ids, sample).T)
    assert made["quantisation", 2].bytes == 8
    assert made["pca", 8].change(ids, sample).shape == (200, 8)
    torch.testing.assert_close(made["first", 2].change(ids, sample), sample[:, :2])
    assert set(made["binarisation", 1].change(ids, sample).unique().tolist()) == {-1.0, 1.0}


def test_the_components_kept_are_the_first_ones() -> None:
    """They keep as much variance as any 64 can, which the spectrum of the features tells."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(300, 256, generator=generator) * torch.linspace(1.5, 1, 256)
    made = next(one for one in fit_defences(sample) if (one.name, one.strength) == ("pca", 64))
    most = torch.linalg.eigvalsh(torch.cov(sample.T))[-64:].sum()
    torch.testing.assert_close(made.change([], sample).var(dim=0).sum(), most)


def test_neighbours_are_kept_by_a_copy_and_not_by_noise() -> None:
    features = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    assert neighbours_kept(features, 3 * features) == 1
    other = torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    assert neighbours_kept(features, other) == pytest.approx(10 / 99, abs=0.05)


def test_the_permutation_test_knows_right_from_wrong_pairings() -> None:
    pictures = smooth_pictures(40, 3)
    near = (pictures + 0.1 * torch.randn(pictures.shape)).clamp(0, 1)
    assert leakage.permutation_p(near, pictures, 999) == 1 / 1000
    assert leakage.permutation_p(near.roll(1, 0), pictures, 999) > 0.05


def test_right_picks_are_told_from_luck() -> None:
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(12, 12, generator=generator)
    assert leakage.identification_p(random, 999) > 0.05
    assert leakage.identification_p(torch.eye(12), 999) == 1 / 1000
    five = random.clone()
    five[torch.arange(5), torch.arange(5)] = 2.0  # five of twelve picked right, whatever the errors are
    assert 0.001 <= leakage.identification_p(five, 9999) < 0.01
    assert leakage.identification_p(torch.zeros(12, 12), 999) == 1.0  # all alike: nobody is picked


def test_few_neighbours_are_asked_for_among_few() -> None:
    assert [neighbours_of(rows) for rows in (3, 12, 60, 101, 5000)] == [1, 1, 5, 10, 10]


def test_wilson_agrees_with_published_values() -> None:
    """81 of 263: Newcombe 1998, table I."""
    share, low, high = leakage.share_with_interval(torch.tensor([1.0] * 81 + [0.0] * 182))
    assert (round(share, 4), round(low, 4), round(high, 4)) == (0.3080, 0.2553, 0.3662)


def test_ties_are_shared_among_equals() -> None:
    assert leakage.hits(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])).tolist() == [0.5, 1, 0]


def test_the_page_holds_everything_and_loads_nothing(full: Audit, tmp_path: Path) -> None:
    write_page(full, tmp_path / "audit.html")
    text = (tmp_path / "audit.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in re.sub(r"data:[^\"]+", "", text)
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) == 4
    assert all('alt="' in each for each in pictures)
    for each in full.content["curve"] + full.content["defences"] + full.content["rows"]:
        assert f"{each['nre']:.3f} ± {each['nre_sem']:.3f}" in text


def test_names_are_escaped_on_the_page(told: Audit) -> None:
    content = told.content | {"features": "<script>alert(1)</script>"}
    assert "<script>" not in page(Audit(content, told.pictures, told.captions))


def test_the_command_prints_exactly_json(thumbnails: Tensor, photos: Photos, folder: Path, tmp_path: Path) -> None:
    file = saved(thumbnails, photos, tmp_path)
    arguments = ["audit", "--features", file, "--images", folder, "--quick", "--size", 32, "--steps", 5]
    result = command(*arguments, "--json", "-o", tmp_path / "audit.html")
    content = json.loads(result.stdout)
    assert {"n_train", "n_test", "feature_shape", "rows", "shuffled", "above_chance_p", "curve", "defences"} <= set(
        content
    )
    assert {"attacker", "nre", "nre_sem", "top1", "top1_chance"} <= set(content["rows"][0])
    assert (content["curve"], content["defences"]) == ([], [])
    assert (tmp_path / "audit.html").stat().st_size > 10_000
    assert "an .html file" in command(*arguments, "-o", tmp_path / "audit.pdf", check=2).stderr


def test_too_few_permutations_to_show_anything_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 600"):
        AuditSettings(permutations=599)
