"""The command line as its users meet it, mistakes included."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from command import preimage
from preimage.api import sample_files
from preimage.cli import one_by_one, terminal
from preimage.findings import read_finding
from preimage.inversion import file_names

SAMPLES = [str(sample_files()[0]), "--images", str(sample_files()[1])]


@pytest.fixture(scope="module")
def cat() -> Path:
    return sample_files()[1]


@pytest.fixture(scope="module")
def run(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run made by the command."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = preimage(
        "train", "hog", "--images", crops, "--val", crops, "--run", folder, "--steps", 20, "--seed", 3,
        "--set", "representation.image_size=64", "--set", "decoder.width=0.05", "--set", "training.batch_size=8",
        "--device", "cpu",
    )  # fmt: skip
    assert str(folder) in result.stdout
    for expected in ("64 photographs", "M parameters", "GFLOP", "GiB", "step 20: NRE"):
        assert expected in result.stderr
    return folder


COMMANDS = ["list", "encode", "invert", "train", "evaluate", "fit", "confidence", "analyse", "compare", "report",
            "reproduce", "audit", "export", "demo", "results", "zoo"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert "--help" in preimage(command, "--help").stdout


def test_list_names_everything(run: Path) -> None:
    text = preimage("list").stdout
    names = [
        "hog",
        "lbp",
        "efficientnet_lite0.stage3",
        "paper-hog",
        "compact",
        "upconv",
        "mean-image",
        "nearest",
        "ridge",
    ]
    assert [name for name in names if name not in text] == []
    content = json.loads(preimage("list", "--json").stdout)
    assert set(content) == {"representations", "doors", "decoders", "inverters", "analyses", "presets", "shipped"}


def test_a_fitted_baseline_has_its_row_and_is_compared_in_pairs(run: Path, crops: Path, tmp_path: Path) -> None:
    file = tmp_path / "hoggles.safetensors"
    preimage(
        "fit", "hoggles", "--images", crops, "-o", file, "--set", "representation.image_size=64",
        "--set", "windows=64", "--set", "atoms=8", "--device", "cpu",
    )  # fmt: skip
    text = preimage(
        "evaluate", run, "--images", crops, "--limit", 6, "--baseline", file, "--baseline-limit", 3, "--device", "cpu"
    ).stdout
    assert re.search(r"hoggles: [+-]\d\.\d{3} ± \d\.\d{3} NRE against upconv on the same 3", text)
    assert "grey, with one gain and offset for all images" in text


def test_a_fitted_baseline_takes_the_place_of_the_usual_one(run: Path, crops: Path, tmp_path: Path) -> None:
    own = ["--set", "representation.image_size=64", "--device", "cpu"]
    preimage("fit", "ridge", "--images", crops, "-o", tmp_path / "ridge.safetensors", *own)
    text = preimage("evaluate", run, "--images", *SAMPLES, "--baseline", tmp_path / "ridge.safetensors").stdout
    assert text.count("\nridge  ") == 1
    assert "ridge: fitted on its training photographs" in re.sub(r"\s+", " ", text)


def test_mistakes_in_fitting_are_told(crops: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    assert "Did you mean 'hoggles'" in preimage("fit", "hogles", "--images", crops, "-o", file, check=2).stderr
    wrong = preimage("fit", "hoggles", "--images", crops, "-o", file, "--set", "atom=3", check=2).stderr
    assert "Did you mean 'atoms'" in wrong
    assert "'lbp'" in preimage("fit", "hoggles", "-r", "lbp", "--images", crops, "-o", file, check=2).stderr


def test_encode_writes_features_and_their_settings(cat: Path, tmp_path: Path) -> None:
    preimage("encode", cat, "-r", "hog", "-o", tmp_path / "cat.npy", "--set", "cell_size=16")
    features = np.load(tmp_path / "cat.npy")
    described = json.loads((tmp_path / "cat.npy.json").read_text())
    assert features.shape == tuple(described["shape"]) == (1, 31, 16, 16)
    assert described["representation"]["cell_size"] == 16
    assert described["ids"] == ["chelsea.png"]


def test_invert_with_ones_own_run(run: Path, cat: Path, tmp_path: Path) -> None:
    preimage("invert", cat, "--run", run, "-o", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "chelsea.run.png").size == (64, 64)
    assert Image.open(tmp_path / "out" / "chelsea.run.sheet.png").width > 4 * 200


def test_several_inverters_share_a_sheet_and_overwrite_nothing(
    run: Path, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[list[str]] = []
    monkeypatch.setattr("preimage.inversion.sheet", lambda columns, path: titles.append(list(columns)))
    shutil.copytree(run, tmp_path / "longer")
    preimage("invert", cat, "-r", "hog", "--run", run, "--run", tmp_path / "longer", "-o", tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"chelsea.hog.png", "chelsea.run.png", "chelsea.longer.png"}
    (words,) = titles
    assert [title.split("\n")[0] for title in words] == [
        "photograph", "from hog", "from run", "from longer", "mean image",
    ]  # fmt: skip
    assert all(re.search(r"PSNR \d+\.\d dB", title) for title in words[1:])
    result = preimage("invert", cat, "-r", "hog", "--run", run, "--size", "native", "-o", tmp_path / "out", check=2)
    assert "one inverter at a time" in result.stderr


def test_a_photograph_of_any_size_is_inverted_whole(run: Path, tmp_path: Path) -> None:
    Image.open(sample_files()[1]).resize((203, 130)).save(tmp_path / "wide.png")
    preimage("invert", tmp_path / "wide.png", "--run", run, "--size", "native", "-o", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "wide.run.png").size == (200, 128)
    Image.new("RGB", (7, 100)).save(tmp_path / "thin.png")
    result = preimage("invert", tmp_path / "thin.png", "--run", run, "--size", "native", "-o", tmp_path, check=2)
    assert "smaller than a cell of 8" in result.stderr
    native = ("--size", "native", "--fit", "whole")
    assert "leave out --fit" in preimage("invert", tmp_path / "wide.png", "--run", run, *native, check=2).stderr


def test_of_a_folder_what_is_too_small_is_left_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (7, 100)).save(tmp_path / "photos" / "thin.png")
    Image.new("RGB", (64, 100), "red").save(tmp_path / "photos" / "wide.png")
    result = preimage("invert", tmp_path / "photos", "--run", run, "--size", "native", "-o", tmp_path / "out")
    assert "left out thin.png: " in result.stderr
    assert (tmp_path / "out" / "wide.run.png").exists()


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["encode", SAMPLES[0]], "features.npy"),
        (["invert", SAMPLES[0]], ""),
        (["evaluate", "hog", "--images", SAMPLES[0], "--records"], "records.csv"),
        (["fit", "ridge", "--images", SAMPLES[0]], "ridge.safetensors"),
        (["analyse", "code", "hog", "--images", SAMPLES[0]], ""),
        (["report", "hog", "--images", SAMPLES[0]], "page.html"),
        (["audit", "--features", "nothing.npy", "--images", SAMPLES[0]], "page.html"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_the_work(
    command: list[object], place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    option = [] if command[-1] == "--records" else ["-o"]
    result = preimage(*command, *option, tmp_path / "file" / place, check=2)
    assert "is a file, not a folder" in result.stderr


def test_a_run_knows_its_photographs_from_any_folder(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(crops.parent)
    given = ["--images", crops.name, "--val", crops.name, "--run", tmp_path / "run"]
    small = ["representation.image_size=64", "decoder.width=0.05", "training.steps=2", "training.batch_size=8"]
    result = preimage("train", "hog", *given, *(part for one in small for part in ("--set", one)))
    assert "64 of 64 photographs to measure on are trained on too" in result.stderr
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["photos"]["train"] == [str(crops)]


def test_photographs_of_the_same_name_do_not_overwrite_each_other(run: Path, cat: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.open(cat).save(tmp_path / folder / "cat.png")
    preimage("invert", tmp_path / "a" / "cat.png", tmp_path / "b" / "cat.png", "--run", run, "-o", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.run.png"))) == 2


def test_ctrl_c_saves_a_checkpoint_and_resume_goes_on(crops: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "run" / "train.jsonl"
    command = [
        sys.executable, "-m", "preimage", "train", "hog", "--images", crops, "--run", run, "--steps", "200",
        "--set", "representation.image_size=64", "--set", "decoder.width=0.05", "--set", "training.batch_size=8",
        "--set", "training.checkpoint_every=100000", "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    while not (log.exists() and log.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert f"preimage train --resume {run}" in stderr
    assert 50 <= json.loads((run / "checkpoint" / "checkpoint.json").read_text())["step"] < 200
    assert "takes no others" in preimage("train", "--resume", run, "--steps", 5, check=2).stderr
    preimage("train", "--resume", run, "--device", "cpu")
    assert json.loads((run / "summary.json").read_text())["steps"] == 200


def test_inverting_saved_features_gives_the_same_picture(run: Path, cat: Path, tmp_path: Path) -> None:
    preimage("encode", cat, "-o", tmp_path / "cat.npy", "--set", "image_size=64")
    preimage("invert", "--features", tmp_path / "cat.npy", "--run", run, "-o", tmp_path / "a")
    preimage("invert", cat, "--run", run, "-o", tmp_path / "b")
    a, b = (np.asarray(Image.open(tmp_path / name / "chelsea.run.png")) for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_saved_features_are_inverted_by_what_they_say_they_are(cat: Path, tmp_path: Path) -> None:
    preimage("encode", cat, "-r", "efficientnet_lite0.stage2", "-o", tmp_path / "cat.npy")
    preimage("invert", "--features", tmp_path / "cat.npy", "-o", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["chelsea.efficientnet_lite0.stage2.png"]


def test_pictures_written_before_are_no_photographs(
    run: Path, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(cat, tmp_path / "chelsea.png")
    monkeypatch.chdir(tmp_path)
    first, second = (preimage("invert", ".", "--run", run).stdout for _ in range(2))
    assert first == second
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_layers_of_a_known_network_are_those_with_names() -> None:
    layers = preimage("layers", "efficientnet_lite0").stdout
    assert re.search(r"efficientnet_lite0\.stage3 +40 x 28 x 28", layers)


def test_programs_read_what_people_do(run: Path, crops: Path, tmp_path: Path) -> None:
    assert json.loads(preimage("layers", "efficientnet_lite0", "--json").stdout)["efficientnet_lite0.pool"] == "1280"
    sources = (f"{run}/", "--images", crops, "--limit", 4, "--json", "-o", tmp_path / "out")
    compared = json.loads(preimage("compare", *sources).stdout)
    assert compared["table"] == read_finding(tmp_path / "out" / "compare")["table"]
    ((title, findings),) = json.loads(preimage("analyse", "code", *sources).stdout).items()
    assert findings[0]["table"] == read_finding(tmp_path / "out" / title / "code")["table"]


def test_a_pattern_need_not_be_quoted(crops: Path, tmp_path: Path) -> None:
    files = sorted(crops.glob("*.png"))[:5]
    rows = json.loads(preimage("evaluate", "--json", "--images", *files, "hog").stdout)["rows"]
    assert {row["n"] for row in rows} == {5}
    one, other = map(str, files[:2])
    told = one_by_one(["train", "--images", one, "hog", "--val", one, other, "--run", one])
    assert told == ["train", "--images", one, "hog", "--val", one, "--val", other, "--run", one]


def test_features_of_other_settings_are_refused(run: Path, cat: Path, tmp_path: Path) -> None:
    preimage("encode", cat, "-o", tmp_path / "cat.npy", "--set", "image_size=64", "--set", "pixel_scale=1.0")
    result = preimage("invert", "--features", tmp_path / "cat.npy", "--run", run, "-o", tmp_path / "a", check=2)
    assert "encode again" in result.stderr


def test_names_with_brackets_are_printed_as_they_are(run: Path, crops: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[bold]a[/b]"
    shutil.copytree(run, folder / "run")
    shutil.copytree(crops, folder / "crops")
    text = preimage("evaluate", folder / "run", "--images", folder / "crops").stdout
    assert str(folder / "crops") in text.replace("\n", "")
    assert "\x1b" not in text


def test_evaluate_prints_a_table_and_json(run: Path, crops: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.csv"
    text = preimage("evaluate", run, "--images", crops, "--limit", 12, "--records", records).stdout
    content = json.loads(preimage("evaluate", run, "--images", crops, "--limit", 12, "--json").stdout)
    assert [row["inverter"] for row in content["rows"]] == [
        "upconv", "mean-image", "nearest", "ridge", "decoder-size", "other-image",
    ]  # fmt: skip
    assert content["n"] == 12
    assert all(row["inverter"] in text for row in content["rows"])
    assert len(records.read_text().splitlines()) == 1 + 6 * 12


def test_a_run_judged_on_its_training_photographs_says_so(run: Path, crops: Path) -> None:
    assert "64 of 64 photographs to measure on were" in preimage("evaluate", run, "--images", crops).stderr
    assert "to measure on" not in preimage("evaluate", run, "--images", *SAMPLES).stderr


def test_the_bare_name_of_a_run_leads_to_its_path(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "runs/mine")
    assert "Did you mean './runs/mine'" in preimage("evaluate", "mine", "--images", *SAMPLES, check=2).stderr


def test_an_exported_run_is_an_inverter(run: Path, cat: Path, crops: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    preimage("export", run, "-o", file)
    preimage("invert", cat, "--run", file, "-o", tmp_path / "out")
    rows = json.loads(preimage("evaluate", file, "--images", crops, "--limit", 4, "--json").stdout)["rows"]
    assert [row["inverter"] for row in rows] == [
        "upconv", "mean-image", "ridge", "nearest", "decoder-size", "other-image",
    ]  # fmt: skip


def test_a_run_gets_a_confidence_map(run: Path, crops: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    assert str(file) in preimage("confidence", run, "--images", crops, "-o", file, "--steps", 2).stdout
    assert "upconv" in preimage("evaluate", file, "--images", crops).stdout
    assert ".safetensors" in preimage("confidence", run, "--images", crops, "-o", tmp_path / "run.pth", check=2).stderr


def test_a_folder_with_a_text_file_among_the_photos(run: Path, cat: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.open(cat).save(folder / "cat.png")
    Image.new("RGB", (3, 3), "red").save(folder / "tiny.png")
    (folder / "notes.txt").write_text("dear diary")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    result = preimage("invert", folder, "--run", run, "-o", tmp_path / "out")
    assert "left out" in result.stderr
    assert "notes.txt" in result.stderr
    assert "torn.jpg" in result.stderr
    assert (tmp_path / "out" / "cat.run.png").exists()
    assert (tmp_path / "out" / "tiny.run.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "x.jpg", "-r", "hogg", "-o", "x.npy"], "Did you mean 'hog'"),
        (["encode", "nowhere.jpg", "-o", "x.npy"], "there is no file or folder nowhere.jpg"),
        (["encode", __file__, "-o", "x.npy"], "is not a picture"),
        (["invert", SAMPLES[0], "-r", "hogg"], "no shipped inverter is called 'hogg'"),
        (["invert", SAMPLES[0], "-r", "efficientnet_lite0"], "_lite0.stage3', 'efficientnet_lite0.stage5'?"),
        (["train", "hog", "--output", "embedding"], "No such option: --output"),
        (["invert", SAMPLES[0], "--run", "runs/nothing"], "there is no run runs/nothing"),
        (["invert", SAMPLES[0], "-r", "caffenet.conv3"], "preimage train caffenet.conv3"),
        (["invert"], "either photographs or --features"),
        (["train", "hogg", "--images", "x", "--run", "r"], "Did you mean 'hog'"),
        (["train", "hog"], "to train, name --images, --run too"),
        (["train", "hog", "--images", "nowhere/*.tar", "--run", "r"], "nowhere/*.tar"),
        (["train", "hog", "--images", "x", "--run", "r", "--set", "training.stepz=3"], "Did you mean 'steps'"),
        (["train", "hog", "--images", "x", "--run", "r", "--steps", "3", "--minutes", "1"], "one budget"),
        (["train", "--resume", "runs/nothing"], "there is no run runs/nothing"),
        (["evaluate", "./runs/nothing", "--images", SAMPLES[0]], "there is no run ./runs/nothing"),
        (["evaluate", "hogg", "--images", SAMPLES[0]], "no shipped inverter is called 'hogg'"),
        (["train", "hog", "--images", "x", "--run", "r", "--device", "gpu"], "gpu"),
        (["train", "hog", "--images", "x", "--run", "r", "--seed", "-1"], "seed is from 0"),
        (["train", "hog", "--images", "x", "--run", "r", "--minutes", "inf"], "minutes is positive and finite"),
        (["train", "hog", "--images", "x", "--run", "r", "--set", "representation.cell_size=8.0"], "cell_size is int"),
        (["train", "hog", "--images", "x", "--run", "r", "--set", "photos.train=5"], "photos.train is str, got 5"),
        (["evaluate", "hog"], "name the photographs to evaluate on"),
        (["evaluate", "hog", "--images", *SAMPLES, "--baseline", "hogles"], "Did you mean 'hoggles'"),
        (["audit", "--features", "x.npy", "--images", "."], "there is no file of features x.npy"),
        (["audit", "--features", "x.npy", "--images", ".", "--seed", "-1"], "seed is from 0 to 2^63 - 1, got -1"),
        (["audit", "--features", "x.npy", "--images", ".", "--steps", "0"], "steps is positive, got 0"),
        (["reproduce", "--images", "x", "--run", "hog"], "--run takes NAME=PATH, got 'hog'"),
        (["reproduce", "--images", SAMPLES[0], "--run", "hogg=./r"], "Did you mean 'hog'"),
        (["reproduce", "--images", "x", "--autoencoder", "hog="], "--autoencoder takes NAME=PATH, got 'hog='"),
        (["evaluate", "hog", "--images", "[/old] x"], "nothing matches [/old] x"),
        (["export", "x", "-o", "x.npz"], "written to a .safetensors file, not x.npz"),
        (["analyse", "code", "hog", "--images", SAMPLES[0], "--set", "cell_sizes=1"], "Did you mean 'cell_size'"),
        (["report", "hog", "--images", SAMPLES[0], "--set", "hogg:cell_size=4"], "Did you mean 'hog'"),
        (["compare", "hog", "--images", SAMPLES[0], "--set", "decoder.width=1"], "only settings of the representation"),
        (
            ["confidence", "hog", "--images", "x", "-o", "a.safetensors", "--set", "cell_sizes=1"],
            "Did you mean 'cell_size'",
        ),
        (["encode", "x.jpg", "-o", "x.txt"], "features are written as .npy"),
        (["encode", "x.jpg", "-o", "x.npy", "-r", "onnx:no.onnx"], "there is no ONNX file no.onnx"),
        (["encode", "x.jpg", "-o", "x.npy", "-r", "torch:nowhere:make"], "Looked in the current folder"),
        (["train", "hog", "-r", "lbp", "--images", "x", "--run", "r"], "name either a preset (hog)"),
        (["train", "-r", "tork:a:b", "--images", "x", "--run", "r"], "Did you mean 'torch'"),
        (["encode", "x.jpg", "-o", "x.npy", "-r", "my/hists.py:hist"], "is named python:hists:hist"),
        (["train", "hog", "--images", "x", "--run", "r", "--set", "batch_size=4"], "batch_size is training.batch_size"),
        (["fit", "ridge", "--images", "x", "-o", "x.safetensors", "--set", "cell_size=16"], "no file or folder x"),
        (["encode", "cat.jpg", "-r", "HOG", "-o", "cat.npy"], "Did you mean 'hog'"),
        (["train", "hog", "--images", "https://example.org/a.tar", "--run", "r"], "is an address"),
        (["invert", "cat.jpg", "--run", "nothere.safetensors"], "there is no file nothere.safetensors"),
        (["invert", "nothere.jpg"], "there is no file or folder nothere.jpg"),
        (["evaluate", "hog", "--images", SAMPLES[0], "--device", "gpu"], "name one of cpu, cuda, mps"),
        (["train", "hog", "--images", "x"], "to train, name --run too"),
        (["train", "--run", "r"], "to train, name a preset (hog), -r or --features, --images too"),
        (["train", "hog", "--features", "x.npy", "--images", "x", "--run", "r"], "either a preset (hog) or --features"),
        (["layers", "hog"], "hog is no torch module"),
        (["invert", SAMPLES[0], "--run", "hog"], "hog is no run but what ships: name it by -r hog"),
        (["invert", "hog", SAMPLES[0]], "hog is no photograph but what ships: name it by -r hog"),
        (["invert", SAMPLES[0], "-o", "one.pdf"], "into a folder: name one, not one.pdf"),
        (["invert", SAMPLES[0], "--fit", "whol"], "'whol' is not one of"),
        (["fit", "upconv", "--images", "x", "-o", "a.safetensors"], "train it by"),
        (
            ["fit", "ridgee", "--images", "x", "-o", "a.safetensors"],
            "'ridge'? Available: gradient-descent",
        ),
        (
            ["fit", "gradient-descent", "--images", "x", "-o", "a.safetensors", "--set", "step=5"],
            "Available: iterations, method, seed",
        ),
        (["compare", "hog", "hog", "--images", SAMPLES[0]], "hog is named twice"),
        (
            ["evaluate", "hog", "--images", SAMPLES[0], "--set", "cell_size=16"],
            "cell_size=8, not with cell_size=16",
        ),
    ],
)
def test_mistakes_get_a_message_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in preimage(*arguments, check=2).stderr
    assert not (tmp_path / "r").exists()


def test_inverting_what_does_not_ship_says_how_to_train_it_and_how_long_that_takes(cat: Path, tmp_path: Path) -> None:
    message = preimage("invert", cat, "-r", "efficientnet_lite0.stage7", "-o", tmp_path, check=2).stderr
    assert "preimage train efficientnet_lite0.stage7" in message
    assert re.search(r"1,000 steps of 32 photographs take\s+about \d+ min", message)


def test_with_its_weights_the_time_is_told_too(cat: Path, shared_alexnet: str, tmp_path: Path) -> None:
    given = ["--set", f"weights={shared_alexnet}"]
    message = preimage("invert", cat, "-r", "bvlc_alexnet.prob", *given, "-o", tmp_path, check=2).stderr
    assert re.search(r"1,000 steps of 64 photographs take\s+about \d+ min", message)


def test_the_version_is_told() -> None:
    assert preimage("--version").stdout.split() == ["preimage", version("preimage")]


def test_features_of_another_encoder_are_refused_with_what_is_different(cat: Path, tmp_path: Path) -> None:
    preimage("encode", cat, "--set", "cell_size=16", "-o", tmp_path / "f.npy")
    given = ["--features", tmp_path / "f.npy", "-o", tmp_path / "out"]
    assert "cell_size=16 instead of 8" in preimage("invert", *given, "-r", "hog", check=2).stderr
    assert "name=hog instead of lbp" in preimage("invert", *given, "-r", "lbp", check=2).stderr


def test_an_image_without_a_keypoint_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "flat.png")
    result = preimage("encode", tmp_path / "flat.png", "-r", "sift", "-o", tmp_path / "features.npy")
    assert "flat.png: all features are zero (no keypoint" in result.stderr


def test_an_encoder_of_the_current_folder_is_trained_on_encoded_and_inverted(
    crops: Path, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU())"
    Path("mine.py").write_text(code)
    preimage(
        "train", "-r", "torch:mine:make", "--layer", "0", "--images", crops, "--run", "run", "--steps", 5,
        "--set", "representation.image_size=64", "--set", "decoder.width=0.05", "--device", "cpu",
    )  # fmt: skip
    preimage("invert", cat, "--run", "run", "-o", "out")
    assert Image.open(tmp_path / "out" / "chelsea.run.png").size == (64, 64)
    preimage("encode", cat, "-r", "torch:mine:make", "--layer", "0", "--set", "image_size=64", "-o", "cat.npy")
    assert np.load("cat.npy").shape == (1, 8, 8, 8)
    preimage("invert", "--features", "cat.npy", "--run", "run", "-o", "again")
    assert Image.open(tmp_path / "again" / "chelsea.run.png").size == (64, 64)
    Path("mine.py").write_text(code.replace("8, 8", "8, 4").replace("stride=8", "stride=4"))
    assert "was trained on another 'torch:mine:make'" in preimage("invert", cat, "--run", "run", check=2).stderr


def test_no_two_photographs_get_the_name_of_one_file() -> None:
    assert file_names(["a/cat.jpg", "b/cat.jpg"]) == {"a/cat.jpg": "a_cat", "b/cat.jpg": "b_cat"}
    assert file_names(["cat.jpg", "cat.png"]) == {"cat.jpg": "cat.jpg", "cat.png": "cat.png"}
    assert file_names(["cat.jpg", "cat.png", "../dog.jpg"])["../dog.jpg"] == "dog"  # ".._dog" would be hidden
    assert len(set(file_names(["a/b.jpg", "a_b.jpg", "c.jpg"]).values())) == 3


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("evaluate ho", ["hog"]), ("train efficientnet_lite0.p", ["efficientnet_lite0.pool", "efficientnet_lite0.prob"])],
)
def test_the_tab_key_completes_names(typed: str, offered: list[str]) -> None:
    words = {"_PREIMAGE_COMPLETE": "complete_bash", "COMP_WORDS": f"preimage {typed}", "COMP_CWORD": "2"}
    command = Path(sys.executable).with_name("preimage")
    result = subprocess.run([command], env=os.environ | words, capture_output=True, text=True, check=True)
    assert result.stdout.split() == offered


def test_a_table_that_is_too_wide_continues_below_with_whole_cells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "out", Console(width=40))
    rows = [["mean-image", "0.705 ± 0.038", "13.4", "0.151 ± 0.015"]]
    terminal.print_columns(["inverter", "NRE ↓", "colour error", "NRE of another photograph"], rows)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "                           colour",
        "inverter    NRE ↓          error",
        "mean-image  0.705 ± 0.038  13.4",
        "",
        "            NRE of",
        "            another",
        "inverter    photograph",
        "mean-image  0.151 ± 0.015",
    ]
