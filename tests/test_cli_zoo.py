"""The zoo on the command line, as whoever makes a release meets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from command import preimage
from conftest import TINY_ZOO
from preimage import cli
from preimage.api import sample_files
from preimage.errors import WeightsWarning

SETTINGS = [argument for setting in TINY_ZOO for argument in ("--set", setting)]


def test_ctrl_c_leaves_everything_resumable(crops: Path, tmp_path: Path) -> None:
    log = tmp_path / "hog" / "train.jsonl"
    arguments = [
        "zoo", "train", "hog", "lbp", "--images", crops, "--runs", tmp_path, *SETTINGS, "--set", "training.steps=150",
        "--device", "cpu",
    ]  # fmt: skip
    command = [sys.executable, "-m", "preimage", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (log.exists() and log.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "the same command goes on" in stderr
    assert re.search(r"^hog .*\b\d+/150\b", stdout, re.MULTILINE)
    assert re.search(r"^lbp .*\bmissing\b", stdout, re.MULTILINE)
    result = preimage(*arguments)
    assert "hog: going on" in result.stderr
    assert "lbp: training" in result.stderr
    for name in ("hog", "lbp"):
        assert re.search(rf"^{name} .*\b150\b", result.stdout, re.MULTILINE)
    assert "finished already" in preimage(*arguments).stderr


def test_runs_are_exported_checked_and_damage_is_found(trained_zoo: Path, tmp_path: Path) -> None:
    stdout = preimage("zoo", "export", "lbp", "--runs", trained_zoo, "-o", tmp_path, "--licence", "free").stdout
    assert "lbp.safetensors" in stdout
    assert json.loads((tmp_path / "lbp.json").read_text())["licence"] == "free"
    assert "none" in preimage("zoo", "check", tmp_path).stdout
    content = bytearray((tmp_path / "lbp.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "lbp.safetensors").write_bytes(content)
    assert "SHA-256" in preimage("zoo", "check", tmp_path, check=1).stdout


def test_cards_are_listed() -> None:
    cards = json.loads(preimage("zoo", "list", "--json").stdout)
    text = preimage("zoo", "list").stdout
    for name, card in cards.items():
        assert name in text
        assert f"{card['evaluation']['rows'][0]['nre']:.3f} ± " in text
    assert "licence" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zoo", "train"], "name --images"),
        (["zoo", "train", "hogg", "--images", "x"], "Did you mean 'hog'"),
        (["zoo", "train", "hog", "--images", "nowhere/*.tar"], "nothing matches nowhere/*.tar"),
        (["zoo", "train", "hog", "--images", "x", "--set", "hogg:decoder.width=1"], "Did you mean 'hog'"),
        (["zoo", "export"], "--licence"),
        (["zoo", "export", "hog", "--licence", "free"], "is missing, not finished"),
        (["zoo", "check", "--set", "training.steps=1"], "only settings of the representation"),
        (["results", "--sheets", "x"], "go together"),
        (["invert", "x.jpg", "-r", "hog", "--set", "weights=x.npz"], "weights=x.npz is no setting of hog"),
        (
            ["invert", str(sample_files()[0]), "-r", "hog", "--set", "cell_size=16"],
            "cell_size=8, not with cell_size=16",
        ),
        (["evaluate", "hog", "--images", str(sample_files()[0]), "--set", "cell_sise=16"], "Did you mean 'cell_size'"),
    ],
)
def test_mistakes_get_a_message_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in " ".join(preimage(*arguments, check=2).stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_warning_about_weights_is_a_note(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: others.append(str(message)))
    cli.show_notes()
    warnings.filterwarnings("always", module=__name__)
    warnings.warn_explicit("Corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
    warnings.warn("features differ by 0.03 %", WeightsWarning, stacklevel=1)
    warnings.warn("another matter", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "note: features differ by 0.03 %\n"
    assert others == ["another matter"]
