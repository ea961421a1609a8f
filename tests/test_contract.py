"""A broken promise is noticed, and no other than the one that was broken."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

import encoders
from command import preimage as command
from preimage import load_inverter
from preimage.contract import PROMISES, broken_promises
from preimage.errors import (
    FeatureError,
    PreimageError,
    PreprocessingWarning,
    SettingsError,
    UnknownNameError,
    WeightsError,
)
from preimage.images import Photos
from preimage.inverters import MeanImage, Ridge, load_inverters, read_inverters, save_inverters
from preimage.pairs import EncodedPhotos
from preimage.representations import get_representation
from preimage.representations.code import own_files

NAME = "python:encoders:Thumbnails"


def test_a_class_of_the_user_s_keeps_all_promises() -> None:
    assert broken_promises(get_representation(NAME)) == {}
    assert broken_promises(get_representation(NAME, side=4, image_size=64)) == {}
    assert broken_promises(get_representation("python:encoders:made_thumbnails")) == {}
    assert get_representation("python:encoders:made_thumbnails", image_size=64).feature_shape == (3, 2, 2)


def test_images_that_ask_for_gradients_are_no_mistake_where_none_are_promised() -> None:
    encoder = get_representation("python:encoders:Medians")
    assert not encoder.encode(torch.rand(2, 3, 32, 32, requires_grad=True)).requires_grad
    assert broken_promises(encoder) == {}


@dataclass(frozen=True)
class Bare(encoders.Thumbnails):
    """The same without the door's checks, and found by its own name."""

    name: ClassVar[str] = NAME

    @property
    def fingerprint(self) -> str:
        return get_representation(NAME, **self.settings).fingerprint


class WrongShape(Bare):
    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (7,)


class KnowsItsCompany(Bare):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) + len(images)


class Draws(Bare):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) + 1e-7 * torch.rand(1)


class SaysNothing(Bare):
    def encode(self, images: Tensor) -> Tensor:
        return torch.zeros_like(super().encode(images)) * images.sum()


class ReadsMemory(Bare):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) + (not images.is_contiguous())


class TakesBytes(Bare):
    def encode(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images.float(), self.side)


class Forgetful(Bare):
    @property
    def settings(self) -> dict[str, object]:
        return {"side": 2}

    @property
    def fingerprint(self) -> str:
        return "mine"


class NoGradient(Bare):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images.detach())


BREAKERS = dict(
    zip(PROMISES, (WrongShape, KnowsItsCompany, Draws, SaysNothing, ReadsMemory, TakesBytes, Forgetful, NoGradient),
        strict=True)
)  # fmt: skip


@pytest.mark.parametrize("promise", PROMISES)
def test_a_broken_promise_is_noticed(promise: str) -> None:
    broken = broken_promises(BREAKERS[promise]())
    assert promise in broken
    assert set(broken) <= {promise, "encoding twice gives the same"}


# --- a class behind the door ------------------------------------------------------------------------------------------


def test_it_is_distrusted_like_any_encoder() -> None:
    with pytest.raises(FeatureError, match="draws random numbers"):
        get_representation("python:encoders:Restless").encode(torch.rand(2, 3, 32, 32))
    with pytest.raises(FeatureError, match=r"says by feature_shape_at that features are \(7,\), and they are \(3, 8"):
        get_representation("python:encoders:Boastful").encode(torch.rand(2, 3, 32, 32))
    with pytest.raises(FeatureError, match="ValueError: it is too dark"):
        get_representation("python:encoders:Moody").encode(torch.zeros(2, 3, 32, 32))


def test_mistakes_with_classes_are_told() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'side'"):
        get_representation(NAME, sid=4)
    with pytest.raises(SettingsError, match="lacks encode and feature_shape_at"):
        get_representation("python:encoders:Unfinished")
    with pytest.raises(SettingsError, match="must say by image_size"):
        get_representation("python:encoders:Sizeless")


def test_an_inverter_of_it_finds_it_again(crops: Path, tmp_path: Path) -> None:
    encoder = get_representation(NAME, side=4)
    ridge = Ridge(encoder).fit(EncodedPhotos(encoder, Photos.open(crops, 32).load()))
    save_inverters([ridge], tmp_path / "own.safetensors")
    assert load_inverters(tmp_path / "own.safetensors", trusted=True)["ridge"].representation == encoder


def test_that_nobody_says_how_an_encoder_is_fed_is_told_before_something_is_trained_on_it(
    crops: Path, tmp_path: Path
) -> None:
    with pytest.warns(PreprocessingWarning, match="nothing says how torch:encoders:Tokens is fed"):
        encoder = get_representation("torch:encoders:Tokens", image_size=32)
    mean = MeanImage(encoder).fit(EncodedPhotos(encoder, Photos.open(crops, 32).load()))
    save_inverters([mean], tmp_path / "mean.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_inverters(tmp_path / "mean.safetensors", trusted=True)


def test_a_file_runs_nobodys_code_unless_it_is_trusted(crops: Path, tmp_path: Path) -> None:
    encoder = get_representation(NAME, side=4)
    file = tmp_path / "theirs.safetensors"
    save_inverters([MeanImage(encoder).fit(EncodedPhotos(encoder, Photos.open(crops, 32).load()))], file)
    description, tensors = read_inverters(file)
    written = tmp_path / "written"
    another = asdict(description) | {"representation": {"name": f"command:touch {written}", "image_size": 32}}
    file.write_bytes(save(tensors, metadata={"preimage": json.dumps(another)}))
    for trusted in ({}, {"trusted": False}, {"trusted": "False"}):  # the last is what `--set trusted=False` gives
        with pytest.raises(WeightsError, match="would run that code"):
            load_inverter(file, **trusted)
    assert not written.exists()
    with pytest.raises(PreimageError):  # it runs now, and makes no features
        load_inverter(file, trusted=True)
    assert written.exists()


def test_its_code_counts_in_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "own_class.py"
    code = "import encoders\nclass Own(encoders.Thumbnails): pass\n"
    prints = []
    for written in (code, code, code + "# changed"):
        source.write_text(written)
        prints.append(get_representation("python:own_class:Own").fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_the_code_it_imports_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever is the user's own, and directly or not; not what is installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_pack").mkdir()
    files = {
        "own_pack/__init__.py": "",
        "own_pack/deep.py": "SHARE = 1.0\n",
        "own_pack/middle.py": "import numpy\nfrom .deep import SHARE\ndef halved(x): return x * SHARE\n",
        "own_top.py": "from own_pack import middle\ndef f(images): return middle.halved(images).mean(axis=(1, 2))\n",
        "own_module.py": "from torch import nn\nimport own_pack.middle\ndef make(): return nn.Conv2d(3, 4, 3)\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)

    def prints() -> list[str]:
        names = ("python:own_top:f", "torch:own_module:make")
        return [get_representation(name, image_size=16).fingerprint for name in names]

    before = prints()
    assert prints() == before
    (tmp_path / "own_pack" / "deep.py").write_text("SHARE = 2.0\n")
    assert not set(prints()) & set(before)


def test_code_is_the_same_before_it_is_used_and_whatever_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_helper.py").write_text("SHARE = 1\n")
    (tmp_path / "late.py").write_text(
        "try:\n    from .late_helper import SHARE\nexcept ImportError:\n    pass\n"
        "def f(images):\n    import late_helper\n    import torch\n"
        "    return late_helper.SHARE * images.mean(axis=(1, 2))\n"
    )
    encoder = get_representation("python:late:f", image_size=16)
    before = encoder.fingerprint
    encoder.encode(torch.rand(1, 3, 16, 16))
    assert get_representation("python:late:f", image_size=16).fingerprint == before
    assert list(own_files("late")) == ["late", "late_helper"]
    (tmp_path / "late_helper.py").write_text("no Python at all\n")
    assert get_representation("python:late:f", image_size=16).fingerprint != before
    (tmp_path / "late.py").unlink()
    assert own_files("late") == {}


def test_code_that_leaves_python_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit(2)\n")
    (tmp_path / "leaving.py").write_text("import sys\ndef make(): sys.exit(3)\n")
    with pytest.raises(SettingsError, match="importing 'a_script' fails: SystemExit: 2"):
        get_representation("torch:a_script:make")
    with pytest.raises(SettingsError, match="leaving:make fails: SystemExit: 3"):
        get_representation("torch:leaving:make")


def test_the_command_tells_which_promises_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(encoders.__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("COLUMNS", "300")  # so that no cell of the table is wrapped
    result = command("check", "-r", NAME, "--set", "side=4")
    assert result.stdout.count("kept") == len(PROMISES)
    assert "draws random numbers" in command("check", "-r", "python:encoders:Restless", check=1).stdout


def test_the_command_tells_once_why_nothing_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(encoders.__file__).parent), prepend=os.pathsep)
    result = command("check", "-r", "python:encoders:sorry", check=2)
    assert result.stderr.count("ValueError") == 1
    assert not result.stdout
