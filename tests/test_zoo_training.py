"""The whole zoo is trained by one command, which can be stopped anywhere and goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from conftest import TINY_ZOO
from preimage import zoo, zoo_training
from preimage.config import load_preset, overrides_for
from preimage.errors import DivergedError, ImageError, RunError, SettingsError, UnknownNameError
from preimage.evaluation import Evaluation
from preimage.images import Photos
from preimage.inverters import Ridge, load_inverters, read_inverters, save_inverters
from preimage.metrics import distance, mean_pairwise_distance_of
from preimage.networks.weights import file_hash
from preimage.pairs import EncodedPhotos
from preimage.runs import Reporter, Run
from preimage.training import Progress
from preimage.zoo_training import Standing, export_zoo, measure_slow_baselines, standing, train_zoo

NAMES = ["lbp", "hog"]


def train_tiny(crops: Path, folder: Path, *more: str, names: list[str] = NAMES, **options: Any) -> dict[str, Standing]:
    found = train_zoo(names, crops, folder, validation=crops, overrides=[*TINY_ZOO, *more], device="cpu", **options)
    return {one.name: one for one in found}


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "zoo.jsonl").read_text().splitlines()]


def test_every_name_gets_its_run_and_its_standing(trained_zoo: Path) -> None:
    for name in NAMES:
        one = standing(name, trained_zoo)
        assert (trained_zoo / name / "summary.json").exists()
        assert (one.state, one.step, one.steps) == ("finished", 60, 60)
        assert one.nre is not None
        assert 0 < one.nre < 2
        assert one.images_per_second is not None
        assert one.images_per_second > 0
        assert one.waiting is not None
        assert 0 <= one.waiting <= 1
        assert one.seconds > 0


def test_one_log_tells_what_happened_to_all(trained_zoo: Path) -> None:
    events = [(line["name"], line["event"]) for line in log_of(trained_zoo)]
    expected = ["train", "planned", "validated", "finished"]
    assert events == [(name, event) for name in NAMES for event in expected]


def test_what_is_finished_is_skipped(crops: Path, trained_zoo: Path) -> None:
    actions: list[tuple[str, str]] = []
    after = train_tiny(crops, trained_zoo, on_begin=lambda *action: actions.append(action))
    assert actions == [(name, "skip") for name in NAMES]
    assert after == {name: standing(name, trained_zoo) for name in NAMES}


def test_what_another_process_trains_is_left_to_it(crops: Path, tmp_path: Path) -> None:
    actions: list[tuple[str, str]] = []
    with Run.new(tmp_path / "lbp").held():
        after = train_tiny(crops, tmp_path, "training.steps=2", on_begin=lambda *action: actions.append(action))
    assert actions == [("lbp", "train"), ("lbp", "busy"), ("hog", "train")]
    assert {name: one.state for name, one in after.items()} == {"lbp": "missing", "hog": "finished"}


class StopAt(Reporter):
    """Asks to stop after some steps in all."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stepped(self, progress: Progress) -> None:
        self.left -= 1

    def __call__(self) -> bool:
        return self.left <= 1


def test_stopped_in_the_middle_it_goes_on_where_each_stands(crops: Path, tmp_path: Path) -> None:
    stop = StopAt(70)
    first = train_tiny(crops, tmp_path, reporter=stop, should_stop=stop)
    assert first["lbp"].state == "finished"
    assert first["hog"].state == "begun"
    assert 0 < first["hog"].step < 60
    actions: dict[str, str] = {}
    second = train_tiny(crops, tmp_path, on_begin=actions.__setitem__)
    assert actions == {"lbp": "skip", "hog": "resume"}
    assert {one.state for one in second.values()} == {"finished"}
    assert [line["event"] for line in log_of(tmp_path) if line["name"] == "hog"][-1] == "finished"


def test_a_run_begun_with_other_settings_is_not_gone_on_with(crops: Path, tmp_path: Path) -> None:
    stop = StopAt(5)
    train_tiny(crops, tmp_path, names=["hog"], reporter=stop, should_stop=stop)
    found = train_tiny(crops, tmp_path, "decoder.width=0.1", names=["hog"])["hog"]
    assert found.state == "failed"
    assert "other settings than decoder.width=0.1 (was 0.05)" in found.reason


def test_photographs_may_have_moved_meanwhile(crops: Path, tmp_path: Path) -> None:
    shutil.copytree(crops, tmp_path / "photos")
    stop = StopAt(5)
    train_tiny(tmp_path / "photos", tmp_path / "runs", names=["hog"], reporter=stop, should_stop=stop)
    shutil.rmtree(tmp_path / "photos")
    assert train_tiny(crops, tmp_path / "runs", names=["hog"])["hog"].state == "finished"


def test_one_that_fails_does_not_stop_the_others(crops: Path, tmp_path: Path) -> None:
    found = train_tiny(crops, tmp_path, "caffenet:representation.weights=nowhere.npz", names=["caffenet.fc6", "hog"])
    assert found["caffenet.fc6"].state == "failed"
    assert found["hog"].state == "finished"
    assert log_of(tmp_path)[1]["event"] == "failed"


def test_a_damaged_run_does_not_stop_the_others(crops: Path, tmp_path: Path) -> None:
    train_tiny(crops, tmp_path, names=["lbp"])
    (tmp_path / "hog").mkdir()
    (tmp_path / "hog" / "settings.json").write_text("{")
    found = train_tiny(crops, tmp_path, names=["hog", "lbp", "lbp"])
    assert {name: one.state for name, one in found.items()} == {"hog": "failed", "lbp": "finished"}
    assert "settings.json" in found["hog"].reason
    exported = export_zoo([], tmp_path, tmp_path / "files", licence="free")
    assert [file.stem for file in exported] == ["lbp"]
    with pytest.raises(RunError, match=r"hog is failed, not finished: .*settings\.json"):
        export_zoo(["hog"], tmp_path, tmp_path / "files", licence="free")


def test_mistakes_are_told_before_anything_is_trained(crops: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hog'"):
        train_tiny(crops, tmp_path, names=["hogg"])
    with pytest.raises(UnknownNameError, match="Did you mean 'hog'"):
        train_tiny(crops, tmp_path, "hogg:decoder.width=1")
    with pytest.raises(SettingsError, match=r"width is decoder\.width"):
        train_tiny(crops, tmp_path, "width=1", names=["hog"])
    with pytest.raises(UnknownNameError, match="Did you mean 'width'"):
        train_tiny(crops, tmp_path, "decoder.widht=1")
    with pytest.raises(UnknownNameError, match="Did you mean 'compact'"):
        train_tiny(crops, tmp_path, "decoder.name=compakt")
    with pytest.raises(SettingsError, match="width is a positive factor, got 0"):
        train_tiny(crops, tmp_path, "decoder.width=0")
    with pytest.raises(ImageError, match="there is no file or folder"):
        train_zoo(["hog"], "nowhere", tmp_path)
    assert not any(tmp_path.iterdir())


def test_weights_go_only_to_networks_that_bring_none() -> None:
    general, own = "representation.weights=a.npz", "bvlc_alexnet:representation.weights=b.npz"
    assert overrides_for("hog", [general, own]) == []
    assert overrides_for("efficientnet_lite0.head", [general, own]) == []
    assert overrides_for("alexnet.conv1", [general, own]) == [general]
    assert overrides_for("hog", ["weights=a.npz", "cell_size=4"]) == ["cell_size=4"]
    assert overrides_for("bvlc_alexnet.fc6", [own]) == ["representation.weights=b.npz"]
    assert overrides_for("hog", ["hog:decoder.width=1", "lbp:decoder.width=2"]) == ["decoder.width=1"]


def test_finished_runs_become_files_with_cards(exported_zoo: Path, trained_zoo: Path) -> None:
    for name in NAMES:
        card = json.loads((exported_zoo / f"{name}.json").read_text())
        one = standing(name, trained_zoo)
        assert (card["licence"], card["note"]) == ("free", "tiny")
        assert card["photos"]["n"] == card["photos"]["validation"] == 64
        assert card["training"]["steps"] == 60
        assert card["training"]["waiting"] == one.waiting
        assert card["made_with"]["device"].startswith("cpu")
        rows = {row["inverter"] for row in card["evaluation"]["rows"]}
        assert rows == {"upconv", "mean-image", "ridge", "nearest", "other-image", *({"decoder-size"} & rows)}
        assert {row["n"] for row in card["evaluation"]["rows"]} == {64}
        assert card["size_bytes"] < 2 * card["decoder"]["parameters"] + 2**20


def test_the_check_passes_what_was_exported(exported_zoo: Path) -> None:
    found = zoo.check(exported_zoo)
    assert [one.name for one in found] == ["hog", "lbp", "together"]
    assert [problem for one in found for problem in one.problems] == []
    assert [note for one in found for note in one.notes] == []


def altered(exported_zoo: Path, folder: Path) -> Path:
    return Path(shutil.copytree(exported_zoo, folder / "altered"))


def test_the_check_finds_a_file_that_is_not_its_cards(exported_zoo: Path, tmp_path: Path) -> None:
    folder = altered(exported_zoo, tmp_path)
    shutil.copy(folder / "lbp.safetensors", folder / "hog.safetensors")
    assert "SHA-256" in zoo.check(folder)[0].problems[0]


def test_the_check_finds_a_card_that_is_none(exported_zoo: Path, tmp_path: Path) -> None:
    folder = altered(exported_zoo, tmp_path)
    (folder / "hog.json").write_text("[]")
    (folder / "lbp.json").write_text("{}")
    hog, lbp, _ = zoo.check(folder)
    assert "no JSON object" in hog.problems[0]
    assert "SHA-256" in lbp.problems[0]


def test_where_there_is_nothing_to_check_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no folder of"):
        zoo.check(tmp_path)


def test_the_check_finds_files_that_are_too_large(
    exported_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "LARGEST_FILE", 1000)
    monkeypatch.setattr(zoo, "LARGEST_ZOO", 2000)
    hog, _, together = zoo.check(exported_zoo)
    assert "larger than" in hog.problems[0]
    assert "more than" in together.problems[0]


def test_the_check_compares_the_probe_even_where_the_fingerprint_agrees(
    exported_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    representation = next(iter(load_inverters(exported_zoo / "hog.safetensors").values())).representation
    encode = type(representation).encode
    monkeypatch.setattr(type(representation), "encode", lambda self, images: encode(self, images.roll(3, 2)) + 0.1)
    assert "features of the probe differ by" in zoo.check(exported_zoo)[0].problems[0]


def test_weights_that_are_not_at_hand_are_a_note(exported_zoo: Path, tmp_path: Path) -> None:
    folder = altered(exported_zoo, tmp_path)
    description, tensors = read_inverters(folder / "hog.safetensors")
    another = asdict(description) | {"representation": {"name": "caffenet.fc6"}}
    save_file(tensors, folder / "mine.safetensors", {"preimage": json.dumps(another)})
    card = json.loads((folder / "hog.json").read_text()) | {"sha256": file_hash(folder / "mine.safetensors")}
    (folder / "mine.json").write_text(json.dumps(card))
    found = {one.name: one for one in zoo.check(folder)}["mine"]
    assert "needs weights" in found.notes[0]
    assert found.problems == []


def test_unfinished_runs_are_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is missing, not finished"):
        export_zoo(["hog"], tmp_path, tmp_path / "out", licence="free")
    with pytest.raises(RunError, match="holds no finished run"):
        export_zoo([], tmp_path, tmp_path / "out", licence="free")
    with pytest.raises(SettingsError, match="--licence"):
        export_zoo([], tmp_path, tmp_path / "out", licence="")


def test_hardware_names_every_device_a_run_was_on() -> None:
    assert zoo.hardware({"device": "cpu, 2 cores"}) == "cpu, 2 cores"
    resumed = [{"device": "NVIDIA H100"}, {"device": "cpu, 2 cores"}]
    assert zoo.hardware({"device": "cpu, 2 cores", "resumed": resumed}) == "cpu, 2 cores, then NVIDIA H100"


@pytest.mark.parametrize("name", zoo.PLANNED)
def test_all_that_is_meant_to_ship_has_a_preset(name: str) -> None:
    assert load_preset(name).keys() >= {"decoder", "augmentation"}


def test_a_file_of_another_name_is_a_note(exported_zoo: Path, tmp_path: Path) -> None:
    folder = altered(exported_zoo, tmp_path)
    for suffix in (".json", ".safetensors"):
        (folder / f"hog{suffix}").rename(folder / f"mine{suffix}")
    mine = {one.name: one for one in zoo.check(folder)}["mine"]
    assert (mine.problems, mine.notes) == ([], ["inverts hog"])


def test_slow_baselines_are_measured_where_they_can_invert(exported_zoo: Path, tmp_path: Path, crops: Path) -> None:
    folder, begun = altered(exported_zoo, tmp_path), {}
    written = list(measure_slow_baselines([], folder, crops, limit=4, on_begin=begun.__setitem__))
    assert begun == {"hog": ["gradient-descent"], "lbp": []}
    assert written == [folder / "hog.json"]
    card = json.loads(written[0].read_text())
    rows = {row["inverter"]: row for row in card["slow_baselines"]}
    assert list(rows) == ["upconv", "ridge", "gradient-descent"]
    assert {row["n"] for row in rows.values()} == {4}
    for row in rows.values():
        assert row["difference"] == pytest.approx(row["nre"] - rows["upconv"]["nre"])


def test_the_encoder_of_a_file_is_that_which_it_names(exported_zoo: Path, tmp_path: Path, crops: Path) -> None:
    folder = altered(exported_zoo, tmp_path)
    for suffix in (".json", ".safetensors"):
        (folder / f"hog{suffix}").rename(folder / f"mine{suffix}")
    encoder = load_inverters(folder / "mine.safetensors")["upconv"].representation
    ridge, begun = tmp_path / "ridge.safetensors", {}
    save_inverters([Ridge(encoder).fit(EncodedPhotos(encoder, Photos.open(crops, 64).load()))], ridge)
    (card,) = measure_slow_baselines(["mine"], folder, crops, baselines=[ridge], limit=2, on_begin=begun.__setitem__)
    assert begun == {"mine": [str(ridge)]}
    assert [row["inverter"] for row in json.loads(card.read_text())["slow_baselines"]] == ["upconv", "ridge"]


def test_a_card_without_a_table_is_refused_before_anything_is_measured(
    exported_zoo: Path, tmp_path: Path, crops: Path
) -> None:
    folder = altered(exported_zoo, tmp_path)
    card = json.loads((folder / "hog.json").read_text())
    del card["evaluation"]
    (folder / "hog.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match="had no validation photographs"):
        next(measure_slow_baselines(["hog"], folder, crops))


def test_a_baseline_that_diverges_does_not_stop_the_others(
    exported_zoo: Path, tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, measure = altered(exported_zoo, tmp_path), zoo_training.evaluate
    fates = iter([True, False])

    def evaluate(*arguments: Any, **options: Any) -> Evaluation:
        if next(fates):
            raise DivergedError("the loss became nan")
        return measure(*arguments, **options)

    monkeypatch.setattr(zoo_training, "evaluate", evaluate)
    measured = measure_slow_baselines(["hog", "hog"], folder, crops, limit=2)
    assert next(measured) == folder / "hog.json"  # the second time
    with pytest.raises(DivergedError, match="hog: the loss became nan"):
        next(measured)


def test_few_photographs_keep_the_distance_of_all(exported_zoo: Path, tmp_path: Path, crops: Path) -> None:
    """NRE of some is their distances over N of all."""
    folder = altered(exported_zoo, tmp_path)
    assert not list(measure_slow_baselines(["hog"], folder, crops, baselines=[], limit=64))
    assert "slow_baselines" not in json.loads((folder / "hog.json").read_text())
    assert len(list(measure_slow_baselines(["hog"], folder, crops, limit=2))) == 1
    card = json.loads((folder / "hog.json").read_text())
    inverter, *_ = load_inverters(folder / "hog.safetensors").values()
    photos = Photos.open(crops, 64).load()
    images = photos.images([0, 1])
    inverted = inverter.invert(inverter.representation.encode(images))
    expected = float(distance(images, inverted).mean()) / mean_pairwise_distance_of(len(photos), photos.images)
    assert card["slow_baselines"][0]["nre"] == pytest.approx(expected, rel=1e-4)
