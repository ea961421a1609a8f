"""A file of inverters knows the network it belongs to, and by how much another one differs."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from preimage.api import load_inverter
from preimage.errors import PreimageError, WeightsError, WeightsWarning
from preimage.inverters import MeanImage, load_inverters, probe_difference, read_inverters, save_inverters
from preimage.networks.preprocessing import Preprocessing
from preimage.probe import LIMIT, MOST, Probe, probe_picture
from preimage.representations import HOG, REPRESENTATIONS, ModuleLayer

FED = Preprocessing(image_size=64)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 60 * 60, 50))


def layer(module: nn.Module, path: str = "4", log: bool = False, weights: str | None = None) -> ModuleLayer:
    settings = {"weights": weights} if weights else {}
    return ModuleLayer(module, path, FED, name="small.layer", settings=settings, log=log)


def rounded(module: nn.Sequential) -> nn.Sequential:
    return copy.deepcopy(module).half().float()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleLayer], None]:
    """Makes a layer the one that is had by its name."""
    return lambda own: monkeypatch.setitem(REPRESENTATIONS, own.name, lambda weights=None: own)


def save_mean(representation: ModuleLayer, file: Path) -> Path:
    mean = MeanImage(representation).restore({"mean": torch.full((3, 64, 64), 0.5)})
    save_inverters([mean], file, torch.float16)
    return file


def test_the_probe_has_gradients_edges_and_all_of_the_range() -> None:
    picture = probe_picture(64, 64)
    assert (picture == probe_picture(64, 64)).all()
    assert picture.min() < 20
    assert picture.max() == 255
    assert len(Probe.of(HOG()).features) == MOST


def test_the_same_network_is_known_by_its_fingerprint(
    known: Callable[[ModuleLayer], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = layer(network())
    known(own)
    file = save_mean(own, tmp_path / "mean.safetensors")
    monkeypatch.setattr(Probe, "difference", lambda *_: pytest.fail("the probe was encoded for nothing"))
    assert list(load_inverters(file)) == ["mean-image"]


def test_weights_rounded_to_float16_are_a_warning_with_its_size(
    known: Callable[[ModuleLayer], None], tmp_path: Path
) -> None:
    file = save_mean(layer(network()), tmp_path / "mean.safetensors")
    known(layer(rounded(network())))
    with pytest.warns(WeightsWarning, match=r"features of the probe picture differ by 0\.\d\d %"):
        assert list(load_inverters(file)) == ["mean-image"]


def test_another_network_is_refused_with_its_size(known: Callable[[ModuleLayer], None], tmp_path: Path) -> None:
    file = save_mean(layer(network()), tmp_path / "mean.safetensors")
    known(layer(network(seed=1)))
    with pytest.raises(WeightsError, match=r"belongs to another network .* differ by \d+\.\d %"):
        load_inverters(file)


def test_features_of_another_shape_are_refused(known: Callable[[ModuleLayer], None], tmp_path: Path) -> None:
    file = save_mean(layer(network()), tmp_path / "mean.safetensors")
    known(layer(network(), "2"))
    with pytest.raises(WeightsError, match=r"another network .* have another shape"):
        load_inverters(file)


def test_renamed_modules_with_the_same_features_are_accepted_in_silence(
    known: Callable[[ModuleLayer], None], tmp_path: Path
) -> None:
    file = save_mean(layer(network()), tmp_path / "mean.safetensors")
    known(layer(nn.Sequential(network()), "0.4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_inverters(file)


def test_probabilities_are_compared_by_their_logarithm() -> None:
    ours, other = nn.Sequential(network(), nn.Softmax(1)), nn.Sequential(network(1), nn.Softmax(1))
    ours[0][4].weight.data *= 100
    other[0][4].weight.data *= 100
    with torch.no_grad():
        probe = Probe.of(layer(ours, "1", log=True))
        assert probe.difference(layer(rounded(ours), "1", log=True)) < LIMIT
        assert probe.difference(layer(other, "1", log=True)) > LIMIT


def without_probe(file: Path) -> Path:
    """The file as it was written before there were probes."""
    with safe_open(file, framework="pt") as content:
        description = json.loads(content.metadata()["preimage"])
    del description["probe"]
    tensors = {name: value for name, value in load_file(file).items() if not name.startswith("probe.")}
    save_file(tensors, file, {"preimage": json.dumps(description)})
    return file


def test_a_file_without_a_probe_goes_by_the_fingerprint_alone(
    known: Callable[[ModuleLayer], None], tmp_path: Path
) -> None:
    own = layer(network())
    known(own)
    file = without_probe(save_mean(own, tmp_path / "mean.safetensors"))
    assert list(load_inverters(file)) == ["mean-image"]
    assert probe_difference(*read_inverters(file), own) is None
    known(layer(rounded(network())))
    with pytest.raises(WeightsError, match="another version of the representation"):
        load_inverters(file)


class OnlyFiles(HOG):
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise PreimageError("features come from a file")


def test_what_cannot_encode_a_new_picture_is_saved_without_a_probe(tmp_path: Path) -> None:
    own = OnlyFiles()
    mean = MeanImage(own).restore({"mean": torch.full((3, 64, 64), 0.5)})
    save_inverters([mean], tmp_path / "mean.safetensors")
    assert "probe.features" not in load_file(tmp_path / "mean.safetensors")


def test_a_file_names_no_weights_and_takes_those_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = layer(network(), weights="/machine/weights.npz")
    file = save_mean(own, tmp_path / "mean.safetensors")
    assert b"/machine" not in file.read_bytes()

    def make(weights: str | None = None) -> ModuleLayer:
        if weights is None:
            raise WeightsError("small needs its weights: name a file by --set weights=FILE")
        return layer(network(), weights=weights)

    monkeypatch.setitem(REPRESENTATIONS, own.name, make)
    with pytest.raises(WeightsError, match="--set weights=FILE"):
        load_inverter(file)
    assert load_inverter(file, weights="mine.npz").representation.settings == {"weights": "mine.npz"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"representation": {}}, "was not written by this version"),
        ({"inverters": {}}, "was not written by this version"),
        ({"inverters": []}, r"its description\.inverters is dict"),
        ({"later": 1}, "no setting of its description is called 'later'"),
        ({"inverters": {"mean-image": {"later": 1}}}, "no setting of mean-image is called 'later'"),
        ({"inverters": {"median": {}}}, "no inverter is called 'median'"),
    ],
)
def test_what_another_version_wrote_is_told(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    own = HOG()
    mean = MeanImage(own).restore({"mean": torch.full((3, 64, 64), 0.5)})
    save_inverters([mean], tmp_path / "mean.safetensors")
    description, tensors = read_inverters(tmp_path / "mean.safetensors")
    save_file(tensors, tmp_path / "other.safetensors", {"preimage": json.dumps(asdict(description) | change)})
    with pytest.raises(PreimageError, match=words):
        load_inverters(tmp_path / "other.safetensors")
