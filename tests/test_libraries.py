"""Doors to libraries: against the libraries themselves where they can be imported, and against stand-ins everywhere."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from preimage.errors import PreimageError, SettingsError, UnknownNameError, WeightsError
from preimage.images import Photos
from preimage.interfaces import Representation
from preimage.representations import get_representation
from preimage.representations.libraries import load_from_library
from trained import errors_after_training

LIBRARIES = ["timm", "torchvision", "open_clip"]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    load_from_library.cache_clear()
    yield
    load_from_library.cache_clear()


def needs(library: str) -> Any:
    """A library itself; beside a torch that torchvision was not built for, without what torchvision compiled."""
    declare_operators()
    try:
        return importlib.import_module(library)
    except Exception as error:
        pytest.skip(f"{library} cannot be imported here: {type(error).__name__}: {error}")


@lru_cache(maxsize=1)
def declare_operators() -> list[torch.library.Library]:
    """Declare operators that torchvision asks for when it is imported and could not load; no network uses them.

    Where torch is the CPU's and torchvision is PyPI's, built for CUDA, it cannot be imported otherwise; and all the
    other libraries ask for it.
    """
    declared: list[torch.library.Library] = []
    for operator in ("", "nms", "qnms"):
        if operator:
            declared.append(torch.library.Library("torchvision", "FRAGMENT"))
            declared[-1].define(f"{operator}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:  # such an operator does not exist
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
        except ImportError:
            break
        else:
            break
    return declared


# --- stand-ins --------------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 16, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer1(images).relu().flatten(1)
        return features


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Tower()


def stand_ins(asked: list[object]) -> dict[str, ModuleType]:
    """Modules with the functions that the doors call; `asked` learns which weights were asked for."""

    def make(kind: Callable[[], nn.Module], key: str) -> Callable[..., nn.Module]:
        def create(name: str, **settings: Any) -> nn.Module:
            asked.append(settings[key])
            return kind()

        return create

    told = SimpleNamespace(crop_size=[32], mean=[0.5] * 3, std=[0.25] * 3)
    entry = SimpleNamespace(transforms=lambda: told)
    contents: dict[str, dict[str, Any]] = {
        "timm": {
            "is_model": lambda name: name == "tower",
            "list_models": lambda: ["tower"],
            "create_model": make(Tower, "pretrained"),
        },
        "torchvision": {},
        "torchvision.models": {
            "list_models": lambda: ["tower"],
            "get_model": make(Tower, "weights"),
            "get_model_builder": lambda name: lambda weights=None, progress=True: Tower(),
            "get_model_weights": lambda name: [entry],
        },
        "open_clip": {
            "list_models": lambda: ["tower", "roberta"],
            "list_pretrained_tags_by_model": lambda name: ["openai", "laion"],
            "get_model_config": lambda name: {"text_cfg": {"hf_model_name": "r"} if name == "roberta" else {}},
            "create_model": make(TwoTowers, "pretrained"),
            "get_model_preprocess_cfg": lambda model: {"size": (32, 32), "mean": [0.5] * 3, "std": [0.25] * 3},
        },
    }
    modules = {name: ModuleType(name) for name in contents}
    for name, functions in contents.items():
        vars(modules[name]).update(functions)
    return modules


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Stand-ins for all libraries; the list of weights that they are asked for."""
    asked: list[object] = []
    for name, module in stand_ins(asked).items():
        monkeypatch.setitem(sys.modules, name, module)
    return asked


@pytest.mark.parametrize("library", LIBRARIES)
def test_preprocessing_is_the_library_s(library: str, asked: list[object]) -> None:
    encoder = get_representation(f"{library}:tower", random=True, layer="layer1")
    images = torch.rand(2, 3, 32, 32)
    assert encoder.image_size == 32
    assert encoder.feature_shape == (16, 8, 8)
    torch.testing.assert_close(encoder.encode(images), encoder.module.layer1((images - 0.5) / 0.25))  # type: ignore[attr-defined]


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_downloaded_unless_asked_for(library: str, asked: list[object], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights=FILE.*pretrained=true.*random=true"):
        get_representation(f"{library}:tower")
    assert "random weights" in get_representation(f"{library}:tower", random=True).source
    state = (TwoTowers() if library == "open_clip" else Tower()).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    assert "weights.pth" in get_representation(f"{library}:tower", weights=str(tmp_path / "weights.pth")).source
    assert not any(asked)
    get_representation(f"{library}:tower{'/openai' if library == 'open_clip' else ''}", pretrained=True)
    assert asked[-1] in (True, "DEFAULT", "openai")


@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_of_a_file_are_those_that_encode(library: str, asked: list[object], tmp_path: Path) -> None:
    whole = TwoTowers() if library == "open_clip" else Tower()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    tower = whole.visual if isinstance(whole, TwoTowers) else whole
    encoder = get_representation(f"{library}:tower", weights=str(tmp_path / "weights.pth"))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder.encode(images), tower((images - 0.5) / 0.25))
    again = get_representation(encoder.name, **json.loads(json.dumps(encoder.settings)))
    assert again.fingerprint == encoder.fingerprint


@pytest.mark.parametrize("library", LIBRARIES)
def test_mistakes_are_told(library: str, asked: list[object]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tower'"):
        get_representation(f"{library}:towr", random=True)
    with pytest.raises(UnknownNameError, match="Did you mean 'layer1'"):
        get_representation(f"{library}:tower", random=True, layer="layer2")
    with pytest.raises(SettingsError, match="give one of weights, pretrained and random"):
        get_representation(f"{library}:tower", random=True, pretrained=True)


def test_published_weights_of_open_clip_have_a_tag(asked: list[object]) -> None:
    with pytest.raises(UnknownNameError, match=r"open_clip:tower/TAG.*laion, openai"):
        get_representation("open_clip:tower", pretrained=True)
    with pytest.raises(SettingsError, match="comes from the Hugging Face hub"):
        get_representation("open_clip:roberta", random=True)


@pytest.mark.parametrize("library", [*LIBRARIES, "transformers"])
def test_a_library_that_is_not_there_is_named_with_its_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (library, f"{library}.models"):
        monkeypatch.setitem(sys.modules, name, None)
    prefix = {"transformers": "hf"}.get(library, library)
    with pytest.raises(PreimageError, match=r"cannot be imported here.*pip install 'preimage\["):
        get_representation(f"{prefix}:resnet", random=True)


# --- the libraries themselves -----------------------------------------------------------------------------------------


def assert_invertible(encoder: Representation, crops: Path) -> None:
    right, wrong = errors_after_training(encoder, Photos.open(crops, encoder.image_size).load())
    assert right < 0.95
    assert wrong > 0.97


def test_timm_itself(crops: Path) -> None:
    needs("timm")
    vit = get_representation("timm:vit_tiny_patch16_224", random=True, layer="blocks.6")
    assert vit.feature_shape == (192, 14, 14)  # without its class token
    assert get_representation("timm:vit_tiny_patch16_224", random=True, layer="patch_embed").feature_shape[1:] == (
        14,
        14,
    )
    assert vit.preprocessing.mean == (0.5, 0.5, 0.5)  # type: ignore[attr-defined]
    assert_invertible(get_representation("timm:resnet18", random=True, layer="layer1", image_size=32), crops)


def test_torchvision_itself(crops: Path) -> None:
    needs("torchvision")
    encoder = get_representation("torchvision:resnet18", random=True, layer="layer1", image_size=32)
    assert encoder.preprocessing.mean == (0.485, 0.456, 0.406)  # type: ignore[attr-defined]
    assert_invertible(encoder, crops)
    segmenter = get_representation("torchvision:fcn_resnet50", random=True, image_size=64, output="out")
    assert segmenter.feature_shape == (21, 64, 64)  # and its backbone was not downloaded


def test_open_clip_itself(crops: Path) -> None:
    needs("open_clip")
    encoder = get_representation("open_clip:ViT-B-32", random=True, layer="conv1")
    assert_invertible(encoder, crops)
    encoder = get_representation("open_clip:ViT-B-32", random=True, layer="transformer.resblocks.0")
    assert encoder.feature_shape == (768, 7, 7)
    assert encoder.preprocessing.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)  # type: ignore[attr-defined]


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A small random DINOv2 with registers, as the hub would hold it."""
    transformers = needs("transformers")
    configuration = transformers.Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.AutoModel.from_config(configuration).save_pretrained(tmp_path)
    facts = {
        "do_center_crop": True, "crop_size": {"height": 56, "width": 56}, "size": {"shortest_edge": 64},
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3], "do_rescale": True, "rescale_factor": 1 / 255,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(facts))
    return tmp_path


def test_a_folder_of_transformers_is_read_with_its_preprocessing(hub_folder: Path) -> None:
    encoder = get_representation("hf:facebook/dinov2-small", weights=str(hub_folder))
    assert encoder.feature_shape == (32, 4, 4)  # without class token and registers
    assert encoder.image_size == 56
    images = torch.rand(2, 3, 56, 56)
    mean, deviation = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.2, 0.3]).view(3, 1, 1)
    states = encoder.module((images - mean) / deviation).last_hidden_state  # type: ignore[attr-defined]
    torch.testing.assert_close(encoder.encode(images), states[:, 5:].transpose(1, 2).unflatten(2, (4, 4)))
    assert get_representation(f"hf:{hub_folder}").fingerprint == encoder.fingerprint
    assert get_representation(f"hf:{hub_folder}", output="pooler_output").feature_shape == (32,)
    assert get_representation(f"hf:{hub_folder}", layer="encoder.layer.0").feature_shape == (32, 4, 4)


def test_a_folder_without_preprocessing_is_not_guessed_at(hub_folder: Path) -> None:
    (hub_folder / "preprocessor_config.json").unlink()
    with pytest.raises(SettingsError, match="how images are fed is not known"):
        get_representation(f"hf:{hub_folder}")
    assert get_representation(f"hf:{hub_folder}", mean=0.5, deviation=0.25).feature_shape == (32, 4, 4)


def test_transformers_can_be_random_and_inverted(hub_folder: Path, crops: Path) -> None:
    encoder = get_representation(f"hf:{hub_folder}", random=True)
    assert "random weights" in encoder.source
    assert encoder.fingerprint != get_representation(f"hf:{hub_folder}").fingerprint
    assert_invertible(get_representation(f"hf:{hub_folder}", layer="embeddings"), crops)


def test_of_clip_the_image_tower_is_taken(tmp_path: Path) -> None:
    transformers = needs("transformers")
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = tower | {"image_size": 32, "patch_size": 8}
    transformers.AutoModel.from_config(
        transformers.CLIPConfig(vision_config=vision, text_config=tower)
    ).save_pretrained(tmp_path)
    assert get_representation(f"hf:{tmp_path}", mean=0.5, deviation=0.5).feature_shape == (32, 4, 4)


def test_mistakes_with_transformers_are_told(tmp_path: Path) -> None:
    needs("transformers")
    with pytest.raises(WeightsError, match=r"there is no config\.json in it"):
        get_representation("hf:facebook/dinov2-small", weights=str(tmp_path))
    with pytest.raises(WeightsError, match=r"needs weights: --set weights=FOLDER"):
        get_representation("hf:facebook/dinov2-small")
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet'"):
        get_representation("hf:resnett", random=True)
