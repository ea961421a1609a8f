"""Settings: presets, overrides, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from preimage.api import training_settings
from preimage.config import load_preset, make_settings, overrides_for, preset_names
from preimage.errors import SettingsError, UnknownNameError


@pytest.mark.parametrize("name", [name for name in preset_names() if not name.startswith("alexnet")])
def test_every_preset_is_valid(name: str) -> None:
    settings = make_settings(load_preset(name))
    assert settings.encoder.feature_shape


@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith("alexnet")])
def test_the_presets_of_alexnet_serve_its_variants(name: str, shared_alexnet: str) -> None:
    settings = make_settings(load_preset(f"bvlc_{name}"), [f"representation.weights={shared_alexnet}"])
    assert settings.encoder.name == f"bvlc_{name}"
    assert settings.decoder.width < 1


def test_settings_survive_being_written_and_read() -> None:
    import dataclasses

    settings = make_settings(load_preset("hog"), ["photos.train=a.tar", "seed=3"])
    assert make_settings(dataclasses.asdict(settings)) == settings


def test_overrides_are_typed() -> None:
    overrides = [
        "training.steps=7",
        "training.learning_rate=1",
        "decoder.name=paper-lbp",
        "representation.cell_size=16",
    ]
    preset = load_preset("hog")
    del preset["training"]["epochs"]
    settings = make_settings(preset, overrides)
    assert settings.training.steps == 7
    assert isinstance(settings.training.learning_rate, float)
    assert settings.encoder.feature_shape == (31, 16, 16)


def test_settings_without_what_they_need_are_refused() -> None:
    with pytest.raises(SettingsError, match="missing a required argument: 'representation'"):
        make_settings({"seed": 1})


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("training.stepz=7", UnknownNameError, "Did you mean 'steps'"),
        ("trainig.steps=7", UnknownNameError, "Did you mean 'training'"),
        ("sed=7", UnknownNameError, "Did you mean 'seed'"),
        ("training.steps=many", SettingsError, "training.steps is int, got 'many'"),
        ("training.batch_size=0", SettingsError, "batch_size is positive and finite, got 0"),
        ("training.precision=float8", SettingsError, "'float32'"),
        ("training.compile=1", SettingsError, "training.compile is bool, got 1"),
        ("augmentation.min_scale=2", SettingsError, "min_scale"),
        ("representation.cell_size=7", SettingsError, "does not divide"),
        ("representation.name=hogg", UnknownNameError, "Did you mean 'hog'"),
        ("training.batch_size", SettingsError, "expected key=value"),
    ],
)
def test_mistakes_are_named(override: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make_settings(load_preset("hog"), [override])


def test_a_setting_of_the_representation_needs_no_section() -> None:
    assert make_settings(load_preset("hog"), ["cell_size=16"]).encoder.feature_shape == (31, 16, 16)
    with pytest.raises(UnknownNameError, match="Did you mean 'cell_size'"):
        make_settings(load_preset("hog"), ["cel_size=16"])


def test_two_budgets_are_one_too_many() -> None:
    with pytest.raises(SettingsError, match="one budget"):
        make_settings(load_preset("hog"), ["training.minutes=3", "training.epochs=4"])


def test_weights_for_all_reach_encoders_of_ones_own() -> None:
    names = ("torch:mine:make", "alexnet.conv5", "efficientnet_lite0.pool", "hog")
    assert [bool(overrides_for(name, ["weights=a.npz"])) for name in names] == [True, True, False, False]


def test_a_file_of_weights_is_found_from_another_folder(shared_alexnet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [Path(file).absolute() for file in shared_alexnet.split(",")]
    monkeypatch.chdir(files[0].parent)
    given = ",".join(file.name for file in files)
    settings = training_settings("bvlc_alexnet.fc6", "photos", overrides=[f"weights={given}"])
    assert settings.representation["weights"] == ",".join(map(str, files))
