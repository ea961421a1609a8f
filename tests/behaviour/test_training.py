"""Training learns, stops, resumes, and is the same however it was interrupted or shared out."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from preimage import api, cache, runs, training, zoo
from preimage.config import load_preset, make_settings
from preimage.errors import (
    BusyError,
    DivergedError,
    PreimageError,
    PreimageWarning,
    RunError,
    SettingsError,
    WeightsWarning,
)
from preimage.files import write_json
from preimage.images import Photos
from preimage.interfaces import never
from preimage.inverters import MeanImage, UpConv, save_inverters
from preimage.kept import Kept
from preimage.networks import alexnet
from preimage.networks.preprocessing import Preprocessing
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG
from preimage.representations.network import ModuleLayer
from preimage.runs import Plan, Reporter, Run, Validation
from preimage.training import (
    Progress,
    TrainingSettings,
    grid_energy,
    grid_penalty,
    learning_rate,
    squared_error,
    steepness,
)

TINY = [
    "representation.image_size=64", "decoder.width=0.05", "training.batch_size=8", "training.precision=float32",
    "training.warmup_steps=5", "training.checkpoint_every=10", "training.evaluate_every=20", "training.ema_decay=0.9",
]  # fmt: skip


def train_tiny(crops: Path, run: Path, *more: str, **options: object) -> Run:
    tiny = [one for one in TINY if not (one.startswith("decoder.") and "start_from" in options)]
    return api.train("hog", crops, run, validation=crops, overrides=[*tiny, *more], device="cpu", **options)  # type: ignore[arg-type]


def weights(run: Path) -> dict[str, Tensor]:
    (file,) = (run / "checkpoint").glob("state-*.safetensors")
    return load_file(file)


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


class Listener(Reporter):
    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.steps: list[Progress] = []
        self.validations: list[Validation] = []

    def planned(self, plan: Plan) -> None:
        self.plans.append(plan)

    def stepped(self, progress: Progress) -> None:
        self.steps.append(progress)

    def validated(self, validation: Validation) -> None:
        self.validations.append(validation)


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


class Impatient(Reporter):
    """Interrupts a run that has told its plan and has not begun."""

    planned = interrupt


@pytest.fixture(scope="module")
def finished(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 40 steps."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train_tiny(crops, folder, "training.steps=40")
    return folder


def test_the_scale_of_features_is_not_that_of_the_first_photograph(crops: Path) -> None:
    photos, hog = Photos.open(crops, 64).load(), HOG(image_size=64)
    scales = []
    for batch_size in (1, len(photos)):
        inverter = UpConv(hog, width=0.05).fit(EncodedPhotos(hog, photos, batch_size), TrainingSettings(steps=1))
        scales.append(inverter.decoder.standardise.deviation)
    torch.testing.assert_close(*scales)


def test_a_run_folder_holds_what_it_promises(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "settings.json", "provenance.json", "checkpoint", "train.jsonl", "records.csv", "summary.json", "figures",
    }  # fmt: skip
    assert sorted(path.suffix for path in (finished / "checkpoint").iterdir()) == [".json", ".safetensors"]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["steps"] == 40
    assert [row["inverter"] for row in summary["rows"]] == ["upconv", "mean-image", "decoder-size", "other-image"]
    assert len((finished / "records.csv").read_text().splitlines()) == 1 + 4 * 64
    assert list((finished / "figures").glob("*.png"))


@pytest.mark.slow
def test_training_beats_the_mean_image_and_its_control(crops: Path, tmp_path: Path) -> None:
    run = train_tiny(crops, tmp_path / "run", "training.steps=300", "decoder.width=0.1", "training.evaluate_every=300")
    rows = {row["inverter"]: row["nre"] for row in json.loads(run.summary_file.read_text())["rows"]}
    assert rows["upconv"] < 0.9 * rows["mean-image"]
    assert rows["other-image"] > rows["upconv"] + 0.05


def test_the_same_seed_gives_the_same_weights_and_another_does_not(finished: Path, crops: Path, tmp_path: Path) -> None:
    train_tiny(crops, tmp_path / "again", "training.steps=40")
    assert_identical(weights(finished), weights(tmp_path / "again"))
    train_tiny(crops, tmp_path / "other", "training.steps=40", "seed=1")
    assert any(not torch.equal(a, b) for a, b in zip(weights(finished).values(), weights(tmp_path / "other").values()))  # noqa: B905


@pytest.mark.parametrize("stop_at", [1, 13, 20])
def test_stopping_and_resuming_ends_with_identical_weights(
    finished: Path, crops: Path, tmp_path: Path, stop_at: int
) -> None:
    listener = Listener()
    run = train_tiny(
        crops, tmp_path / "run", "training.steps=40", reporter=listener,
        should_stop=lambda: len(listener.steps) + 1 >= stop_at,
    )  # fmt: skip
    assert run.step == stop_at
    with pytest.warns(PreimageWarning, match=f"trained for {stop_at} of its 40 steps so far"):
        runs.load_inverter(run.folder)
    runs.resume(run.folder, device="cpu")
    assert_identical(weights(finished), weights(run.folder))
    logged = [record["step"] for record in run.log_records() if "loss" in record]
    assert logged == sorted(set(logged))


def test_a_changed_byte_in_a_checkpoint_is_noticed(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (file,) = (tmp_path / "run" / "checkpoint").glob("state-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1  # in the last tensor
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"state-00000040\.safetensors is damaged"):
        runs.load_inverter(tmp_path / "run")


def test_training_starts_where_another_ended(finished: Path, crops: Path, tmp_path: Path) -> None:
    few = ("training.steps=4", "training.learning_rate=1e-6", "training.evaluate_every=1")
    first = Run(finished).validations[-1]["nre"]
    with pytest.warns(PreimageWarning, match="64 of 64 .* were trained on by .*finished: on others"):
        further = train_tiny(crops, tmp_path / "further", *few, start_from=finished)
    assert [one["nre"] for one in further.validations] == pytest.approx([first] * 4, abs=1e-3)
    assert further.settings.decoder == Run(finished).settings.decoder
    assert train_tiny(crops, tmp_path / "anew", *few).validations[0]["nre"] > first + 0.01


def test_a_run_that_starts_from_another_goes_on_without_it(finished: Path, crops: Path, tmp_path: Path) -> None:
    few = ("training.steps=4", "training.learning_rate=1e-3")
    whole = train_tiny(crops, tmp_path / "whole", *few, start_from=finished)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(crops, tmp_path / "cut", *few, start_from=finished, reporter=Impatient())
    assert Run(tmp_path / "cut").step == 0
    runs.resume(tmp_path / "cut", device="cpu")
    assert_identical(weights(whole.folder), weights(tmp_path / "cut"))
    origin = Run(tmp_path / "cut").provenance["started_from"]
    assert origin == whole.provenance["started_from"]
    assert (origin["inverter"], origin["training"]["steps"]) == (str(finished), 40)
    assert zoo.describe(whole)["started_from"] == origin


def test_what_a_run_held_out_is_not_what_it_was_trained_on(crops: Path, tmp_path: Path) -> None:
    apart = ("training.steps=1", "photos.held_out=0.25")

    def train(name: str, seed: int, start_from: Path | None = None) -> Run:
        overrides = [*(TINY if start_from is None else TINY[:1] + TINY[2:]), *apart]
        return api.train(
            "hog", crops, tmp_path / name, overrides=overrides, seed=seed, start_from=start_from, device="cpu"
        )

    first = train("first", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PreimageWarning)
        again = train("again", 0, first.folder)
        found = api.evaluate(again.folder)  # by default on what it held out
        assert found.n == 16
        assert found.images == "held out from the run's photographs"
        assert next(row.nre for row in found.rows if row.inverter == "nearest") > 0.1
    with pytest.warns(PreimageWarning, match=r"1\d of 1\d .* were trained on by .*first: on others"):
        train("other", 1, first.folder)
    with pytest.warns(PreimageWarning, match="48 of 64 photographs to measure on were trained on"):
        api.evaluate(first.folder, crops)
    with pytest.warns(PreimageWarning, match="16 of 16 .* are those that baselines are fitted on"):
        api.evaluate(first.folder, train_images=crops)


def test_a_photograph_that_never_could_be_read_has_not_changed(crops: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(crops, tmp_path / "photos")
    (photos / "0-broken.jpg").write_bytes(b"no picture")
    run = api.train("hog", photos, tmp_path / "run", validation=crops, overrides=[*TINY, "training.steps=1"]).folder
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "what .* was trained on is not there as it was")
        assert {row.inverter for row in api.evaluate(run, limit=4).rows} >= {"upconv", "ridge", "nearest"}


def test_what_a_run_was_trained_on_is_known_without_reading_it(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = shutil.copytree(crops, tmp_path / "photos")
    (photos / "0-broken.jpg").write_bytes(b"no picture")
    overrides = [*TINY, "training.steps=1", "photos.held_out=0.25"]
    run = api.train("hog", photos, tmp_path / "run", overrides=overrides, device="cpu")
    monkeypatch.setattr(Photos, "load", lambda self, *_: pytest.fail("photographs are read"))
    trained_on, held_out = runs.photos_of(run, HOG(image_size=64))
    assert held_out is not None
    assert (len(trained_on), len(held_out)) == (48, 16)


def test_photographs_that_are_not_measured_are_not_told(crops: Path, tmp_path: Path) -> None:
    """Nor does a broken photograph for validation cost the one of the same name that was trained on."""
    others = tmp_path / "a-others"
    others.mkdir()
    for index, file in enumerate(sorted(crops.iterdir())[:4]):
        shutil.copy(file, others / f"other-{index}{file.suffix}")
    broken = shutil.copytree(crops, tmp_path / "val")
    next(iter(sorted(broken.iterdir()))).write_bytes(b"no picture")
    run = api.train("hog", crops, tmp_path / "run", validation=broken, overrides=[*TINY, "training.steps=1"]).folder
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*(were trained on|is not there as it was)")
        assert api.evaluate(run, [others, crops], limit=4).n == 4


def test_what_a_run_held_out_of_other_photographs_is_not_known(crops: Path, tmp_path: Path) -> None:
    """Drawn again from fewer photographs, most of what is held out would have been trained on."""
    photos = shutil.copytree(crops, tmp_path / "photos")
    overrides = [*TINY, "training.steps=1", "photos.held_out=0.25"]
    run = api.train("hog", photos, tmp_path / "run", overrides=overrides, device="cpu").folder
    next(iter(sorted(photos.iterdir()))).unlink()
    changed = "photographs of .* have changed since it began"
    with pytest.warns(PreimageWarning, match=changed), pytest.raises(SettingsError, match="name the photographs"):
        api.evaluate(run)
    with pytest.warns(PreimageWarning, match=changed):
        assert api.evaluate(run, crops, limit=4).n == 4  # others are as good as ever
    with pytest.raises(RunError, match="have changed since it began"):
        zoo.export(run, tmp_path / "file.safetensors", licence="none")


def test_features_of_crops_that_never_recur_are_not_kept(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(HOG, "costly", True)
    train_tiny(crops, tmp_path / "run", "training.steps=2", "augmentation.variants=0")
    assert len(list((tmp_path / "kept").rglob("*.npz"))) == 64  # those of the validation photographs


def test_training_starts_only_from_a_network_that_fits(finished: Path, crops: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the decoder is that of .*: leave out decoder.width=2"):
        train_tiny(crops, tmp_path / "run", "decoder.width=2", start_from=finished)
    with pytest.raises(SettingsError, match=r"cannot start from .* of 58 x 16 x 16: .* of 31 x 8 x 8"):
        train_tiny(crops, tmp_path / "run", start_from="lbp")
    mean = MeanImage(HOG(image_size=64)).fit(EncodedPhotos(HOG(image_size=64), Photos.open(crops, 64)))
    save_inverters([mean], tmp_path / "mean.safetensors")
    with pytest.raises(SettingsError, match="holds 'mean-image': training starts from a trained network"):
        train_tiny(crops, tmp_path / "run", start_from=tmp_path / "mean.safetensors")
    assert not (tmp_path / "run").exists()


def test_a_run_interrupted_before_its_first_checkpoint_begins_anew(finished: Path, crops: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_tiny(crops, tmp_path / "run", "training.steps=40", reporter=Impatient())
    run = Run(tmp_path / "run")
    write_json(run.provenance_file, run.provenance | {"photos": "others, which have been replaced since"})
    runs.resume(run.folder, device="cpu")
    assert run.provenance["photos"] == Run(finished).provenance["photos"]
    assert "resumed" not in run.provenance
    assert_identical(weights(finished), weights(run.folder))


def test_dropout_is_the_same_after_resuming(crops: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).random((64, 40), np.float32))
    overrides = ["representation.image_size=32", *TINY[1:], "training.steps=6"]

    def train(name: str, should_stop: Callable[[], bool]) -> Run:
        return api.train(
            None, crops, tmp_path / name, features=tmp_path / "vectors.npy", overrides=overrides, device="cpu",
            should_stop=should_stop,
        )  # fmt: skip

    whole, parts = train("whole", never), train("parts", iter([False, False, True]).__next__)
    assert parts.step == 3
    runs.resume(parts.folder, device="cpu")
    assert_identical(weights(whole.folder), weights(parts.folder))


def start_in_background(crops: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "preimage", "train"]
    if (folder / "settings.json").exists():
        command += ["--resume", str(folder)]
    else:
        settings = [argument for setting in [*TINY, "training.checkpoint_every=5"] for argument in ("--set", setting)]
        command += [
            "hog",
            "--images",
            str(crops),
            "--val",
            str(crops),
            "--run",
            str(folder),
            "--steps",
            "40",
            *settings,
        ]
    return subprocess.Popen([*command, "--device", "cpu"], env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_identical_weights(crops: Path, tmp_path: Path, finished: Path) -> None:
    """SIGKILL at several moments, whatever is being written just then."""
    folder, delays = tmp_path / "run", iter([0.0, 0.05, 0.2])
    for delay in delays:
        process = start_in_background(crops, folder)
        before = latest_step(folder)
        deadline = time.monotonic() + 60
        while latest_step(folder) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if not Run(folder).summary_file.exists():
        assert start_in_background(crops, folder).wait() == 0
    assert_identical(weights(finished), weights(folder))
    assert (folder / "records.csv").read_text() == (finished / "records.csv").read_text()


def latest_step(folder: Path) -> int:
    return Run(folder).step if (folder / "checkpoint").exists() else 0


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(finished: Path, crops: Path, tmp_path: Path) -> None:
    """`accelerate launch --num_processes 2` with the same global batch."""
    settings = [argument for setting in TINY for argument in ("--set", setting)]
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "-m", "preimage", "train", "hog", "--images", str(crops), "--val", str(crops), "--run", str(tmp_path / "run"),
        "--steps", "40", "--device", "cpu", *settings,
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["processes"] == 2
    one, two = (
        torch.cat([value.flatten() for name, value in weights(run).items() if name.startswith("decoder.")])
        for run in (finished, tmp_path / "run")
    )
    assert torch.dist(one, two) < 1e-4 * one.norm()
    nre = [json.loads((run / "summary.json").read_text())["rows"][0]["nre"] for run in (finished, tmp_path / "run")]
    assert nre[0] == pytest.approx(nre[1], abs=1e-3)


def test_a_second_run_into_the_same_folder_is_refused(finished: Path, crops: Path) -> None:
    with pytest.raises(RunError, match="already holds a run"):
        train_tiny(crops, finished, "training.steps=40")
    with pytest.raises(RunError, match="is not a run: name a new folder"):
        train_tiny(crops, crops, "training.steps=40")


def test_what_a_run_left_that_never_began_is_not_part_of_the_next(
    finished: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("training.steps=2",)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", interrupt)
        patch.setattr(Run, "clear_unbegun", lambda run: None)  # as if it had been killed
        with pytest.raises(KeyboardInterrupt):
            train_tiny(crops, tmp_path / "run", *few, start_from=finished)
    (tmp_path / "run" / "lock").touch()
    write_json(Run(tmp_path / "run").provenance_file, {"photos": 3})
    run = train_tiny(crops, tmp_path / "run", *few, start_from=finished)
    assert "started_from" in run.provenance
    assert "resumed" not in run.provenance


def test_two_processes_do_not_train_into_one_folder(finished: Path, crops: Path, tmp_path: Path) -> None:
    with runs.Run.new(tmp_path / "run").held(), pytest.raises(BusyError, match="another process is training into"):
        train_tiny(crops, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing had begun
    with runs.Run.open(finished).held(), pytest.raises(BusyError):
        runs.resume(finished)


def test_resuming_what_cannot_be_resumed_explains_itself(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is finished: 40 of 40 steps"):
        runs.resume(finished)
    with pytest.raises(RunError, match="is not a run"):
        runs.resume(tmp_path)


def test_epochs_are_passes_over_the_photographs() -> None:
    settings = make_settings(load_preset("hog"), ["training.epochs=30", "training.batch_size=32"])
    assert (
        runs.training.with_steps(settings, 33, 1.0).training.steps == 31
    )  # 992 pictures; a batch may belong to two passes


def test_weights_may_move_before_resuming(crops: Path, tmp_path: Path) -> None:
    state = alexnet.AlexNet("bvlc", convolutions_only=True).state_dict()
    torch.save({name.replace(".conv.", "."): value for name, value in state.items()}, tmp_path / "w.pth")
    overrides = ["decoder.width=0.05", "training.steps=4", "training.batch_size=2", "training.precision=float32",
                 f"representation.weights={tmp_path}/w.pth"]  # fmt: skip
    run = api.train("bvlc_alexnet.conv5", crops, tmp_path / "run", overrides=overrides, device="cpu",
                    should_stop=lambda: True)  # fmt: skip
    assert run.step < 4
    (tmp_path / "w.pth").rename(tmp_path / "moved.pth")
    with pytest.raises(PreimageError, match="there is no weights file"):
        api.resume(run.folder, device="cpu")
    assert api.resume(run.folder, weights=str(tmp_path / "moved.pth"), device="cpu").step == 4


def test_photographs_may_move_but_not_change_before_resuming(crops: Path, tmp_path: Path) -> None:
    photos, moved = tmp_path / "photos", tmp_path / "moved"
    shutil.copytree(crops, photos)
    run = train_tiny(photos, tmp_path / "run", "training.steps=40", should_stop=lambda: True)
    photos.rename(moved)
    api.resume(run.folder, images=moved, validation=moved, device="cpu", should_stop=lambda: True)
    assert run.step == 2
    assert run.settings.photos.train == (str(moved),)
    next(moved.iterdir()).unlink()
    with pytest.raises(RunError, match=r"the training photographs of .* have changed"):
        runs.resume(run.folder, device="cpu")
    with pytest.raises(RunError, match=r"the validation photographs of .* have changed"):
        api.resume(run.folder, images=crops, device="cpu")


def test_a_full_disk_keeps_the_last_checkpoint(
    crops: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "state-00000030" in path.name:
            real(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"No space left.*step 20 is kept"):
        train_tiny(crops, tmp_path / "run", "training.steps=40")
    monkeypatch.undo()
    assert Run(tmp_path / "run").step == 20
    runs.resume(tmp_path / "run", device="cpu")
    assert_identical(weights(finished), weights(tmp_path / "run"))


def test_a_disk_that_is_full_for_a_while_costs_a_sheet_and_no_training(
    crops: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "sheet.png")

    monkeypatch.setattr(runs.training, "draw_sheet", full)
    with pytest.warns(PreimageWarning, match=r"No space left on device: 'sheet\.png': training goes on without it"):
        train_tiny(crops, tmp_path / "run", "training.steps=40")
    assert_identical(weights(finished), weights(tmp_path / "run"))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.learning_rate

    def explode(step: int, steps: int, settings: TrainingSettings) -> float:
        return 1e30 if step == 24 and steps == 40 else real(step, steps, settings)

    monkeypatch.setattr(training, "learning_rate", explode)
    with pytest.raises(DivergedError, match=r"at step 2\d: training stopped.*lower learning_rate"):
        train_tiny(crops, tmp_path / "run", "training.steps=40")
    assert Run(tmp_path / "run").step == 20
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


@pytest.mark.filterwarnings("ignore:64 of 64 photographs")
def test_a_run_is_a_path_to_itself(finished: Path) -> None:
    run = Run.open(finished)
    assert repr(run) == f"Run({str(finished)!r}, step 40)"
    assert repr(api.load_inverter(run)) == "UpConv of hog"
    assert str(api.evaluate(run, limit=4)) == str(api.evaluate(finished, limit=4))


def test_a_training_that_loses_itself_says_so_once(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.learning_rate
    monkeypatch.setattr(training, "learning_rate", lambda step, *rest: 0.5 if step == 4 else real(step, *rest))
    with pytest.warns(
        PreimageWarning, match=r"at step \d the error is .*begin anew with a lower learning_rate"
    ) as told:
        train_tiny(crops, tmp_path / "run", "training.steps=12")
    assert len([one for one in told if "begin anew" in str(one.message)]) == 1


def test_a_run_killed_after_its_last_step_still_gets_its_table(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "summary.json").unlink()
    (copy / "records.csv").unlink()
    runs.resume(copy, device="cpu")
    assert (copy / "records.csv").read_text() == (finished / "records.csv").read_text()


def test_vectors_train_too(crops: Path, tmp_path: Path) -> None:
    settings = ["training.steps=3", "training.batch_size=4", "decoder.width=0.02", "training.precision=float32"]
    run = api.train("efficientnet_lite0.pool", crops, tmp_path / "run", overrides=settings, device="cpu")
    assert runs.load_inverter(run.folder).invert(torch.rand(2, 1280)).shape == (2, 3, 224, 224)


def test_precisions_can_follow_each_other_in_one_process(crops: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16", "float32"):
        run = train_tiny(
            crops, tmp_path / f"{precision}-{time.monotonic()}", "training.steps=2", f"training.precision={precision}"
        )
        assert run.provenance["precision"] == precision


@pytest.mark.slow
def test_a_compiled_decoder_trains_to_the_same_picture(finished: Path, crops: Path, tmp_path: Path) -> None:
    train_tiny(crops, tmp_path / "run", "training.steps=40", "training.compile=true")
    plain, compiled = (
        json.loads((run / "summary.json").read_text())["rows"][0]["nre"] for run in (finished, tmp_path / "run")
    )
    assert plain == pytest.approx(compiled, abs=5e-3)


def test_a_baseline_by_name_learns_from_what_a_run_was_trained_on(finished: Path, crops: Path) -> None:
    with pytest.warns(PreimageWarning, match="were trained on"):
        rows = {row.inverter: row for row in api.evaluate(finished, crops, limit=4, baselines=["ridge"]).rows}
    assert (rows["ridge"].n, rows["ridge"].fitted_on) == (4, f"{crops} (64 photographs)")


def test_a_run_on_another_encoder_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOG, "version", 2)
    runs.load_inverter(finished)  # whose features are the same
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    Run(run).probe_file.unlink()
    with pytest.raises(RunError, match="was trained on another 'hog'"):
        runs.load_inverter(run)


def test_code_may_change_as_long_as_features_stay(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = tmp_path / "changing.py"
    text = "SHARE = 1\ndef f(images): return SHARE * images[:, ::4, ::4].reshape(len(images), -1)\n"
    code.write_text(text)
    tiny = ["representation.image_size=16", "training.steps=1", "training.batch_size=4", "decoder.width=0.05"]
    run = api.train("python:changing:f", crops, tmp_path / "run", validation=crops, overrides=tiny, device="cpu").folder

    def changed_to(text: str) -> None:
        code.write_text(text)
        importlib.reload(importlib.import_module("changing"))

    changed_to(text + "# a remark\n")
    api.load_inverter(run)
    changed_to(text.replace("SHARE = 1", "SHARE = 1.001"))
    with pytest.warns(WeightsWarning, match=r"features of the probe picture differ by 0\.1"):
        api.load_inverter(run)
    changed_to(text.replace("SHARE = 1", "SHARE = 2"))
    with pytest.raises(RunError, match=r"features of the probe picture differ by 100\.0 %"):
        api.load_inverter(run)


def test_a_damaged_mean_image_costs_only_itself(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    Run(run).mean_file.write_bytes(b"")
    with pytest.warns(PreimageWarning, match="is damaged, and left out"):
        assert list(Kept.of(run).load()) == ["upconv"]


def test_a_finished_run_keeps_the_mean_image(finished: Path, crops: Path) -> None:
    kept = Kept.of(finished).load()
    assert list(kept) == ["upconv", "mean-image"]
    evaluation = api.evaluate(finished, crops)
    mean = next(row for row in evaluation.rows if row.inverter == "mean-image")
    again = api.evaluate(kept["mean-image"], crops)
    assert again.rows[0].nre == pytest.approx(mean.nre, abs=1e-6)


def test_minutes_become_steps(crops: Path, tmp_path: Path) -> None:
    listener = Listener()
    run = train_tiny(crops, tmp_path / "run", "training.minutes=0.02", reporter=listener, should_stop=lambda: True)
    (plan,) = listener.plans
    assert run.settings.training.steps == plan.steps == max(1, int(0.02 * 60 / plan.seconds_per_step))
    assert run.settings.training.minutes is None


def test_the_plan_tells_the_cost(crops: Path, tmp_path: Path) -> None:
    listener = Listener()
    train_tiny(crops, tmp_path / "run", "training.steps=1", reporter=listener)
    (plan,) = listener.plans
    assert plan.photos == plan.validation_photos == 64
    assert plan.cost.parameters > 0
    assert plan.cost.flops > 0
    assert plan.memory > 5 * 4 * plan.cost.parameters


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    settings = TrainingSettings(steps=100, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_a_short_training_warms_up_for_a_part_of_it_only() -> None:
    settings = TrainingSettings(steps=20, learning_rate=1.0, warmup_steps=200)
    rates = [learning_rate(step, 20, settings) for step in range(20)]
    assert max(rates) == rates[3] == pytest.approx(1.0)
    assert rates[-1] < 0.05


def test_the_error_is_taken_at_the_size_of_the_images_or_of_the_decoder(sample_images: Tensor) -> None:
    small = F.interpolate(sample_images, (64, 64), mode="bilinear", antialias=True)
    enlarged = F.interpolate(small, sample_images.shape[2:], mode="bilinear")
    assert squared_error(small, sample_images, "decoder") == 0
    assert squared_error(small, sample_images, "image") == F.mse_loss(enlarged, sample_images) > 0


def test_grid_energy_sees_a_grid_and_nothing_else(sample_images: Tensor) -> None:
    grid = torch.zeros_like(sample_images)
    grid[..., ::8] = 0.05

    def energy(images: Tensor) -> float:
        return float(grid_energy(steepness(images, images, 8)))

    assert energy(sample_images) < 0.01
    assert energy((sample_images + grid).clamp(0, 1)) > 10 * energy(sample_images)
    assert math.isfinite(energy(torch.full((1, 3, 64, 64), 0.5)))


def test_the_grid_penalty_has_the_slope_of_the_energy(sample_images: Tensor) -> None:
    images = sample_images.clone().requires_grad_()
    grid_penalty(images, 8, Accelerator(cpu=True)).backward()
    assert images.grad is not None
    again = sample_images.clone().requires_grad_()
    grid_energy(steepness(again[::4, :, ::5], again[::4, :, :, ::5], 8)).backward()
    torch.testing.assert_close(images.grad, again.grad)


def test_the_grid_penalty_keeps_the_places_of_a_networks_map_from_showing(crops: Path) -> None:
    layer = ModuleLayer(nn.Conv2d(3, 8, 8, stride=8), "", Preprocessing(64))
    pairs = EncodedPhotos(layer, Photos.open([crops], 64))

    def energy(grid_weight: float) -> float:
        settings = TrainingSettings(steps=40, warmup_steps=5, precision="float32", grid_weight=grid_weight)
        inverter = UpConv(layer, "paper-map", width=0.1).fit(pairs, settings)
        images = inverter.invert(next(iter(pairs)).features)
        return float(grid_energy(steepness(images, images, 8)))

    assert energy(1.0) < 0.5 * energy(0.0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"ema_decay is in \[0, 1\)"):
        TrainingSettings(steps=1, ema_decay=1.0)
    with pytest.raises(SettingsError, match="steps is positive"):
        TrainingSettings(steps=0)
    with pytest.raises(SettingsError, match="loss_size"):
        TrainingSettings(loss_size="both")  # type: ignore[arg-type]
