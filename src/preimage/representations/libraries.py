"""Doors to libraries of networks, each an extra: timm, torchvision, transformers, open_clip.

Nothing is downloaded unless `pretrained=true` says so. Else weights come from `weights=`, or `random=true` asks for
none, and the source says so. Size, mean and deviation are those that the library keeps for the network.
"""

from __future__ import annotations

import importlib
import inspect
import json
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from preimage.errors import PreimageError, SettingsError, UnknownNameError, WeightsError
from preimage.networks.preprocessing import Preprocessing
from preimage.networks.weights import Stamp, stamp_of
from preimage.randomness import seeded
from preimage.representations.foreign import attempt
from preimage.representations.modules import (
    Kept,
    Loaded,
    ModuleDoor,
    WeightsSeen,
    files_of,
    fill_from_file,
    preprocessing_of,
    unaltered,
)


class Origin(NamedTuple):
    """Where weights come from: a file, of which what lies under a prefix, or a folder; or the library itself."""

    weights: str
    prefix: str
    pretrained: bool


@dataclass(frozen=True, eq=False)
class LibraryDoor(ModuleDoor):
    """A network of a library by its name there, with weights from one of three places."""

    pretrained: bool = False
    random: bool = False

    library: ClassVar[str]  # as it is imported
    extra: ClassVar[str]  # as pip installs it: preimage[extra]
    wanted: ClassVar[str] = "FILE"  # what `weights` names: a state dict, or a FOLDER that the library reads

    def load(self) -> Loaded:
        places = [bool(self.weights), self.pretrained, self.random]
        if sum(places) > 1:
            raise SettingsError(f"{self.name}: give one of weights, pretrained and random, not several")
        if not any(places):
            raise WeightsError(
                f"{self.name} needs weights: --set weights={self.wanted} for those on this disk, --set pretrained=true "
                f"to let {self.library} download its own, or --set random=true for none"
            )
        if self.prefix and self.wanted != "FILE":
            raise SettingsError(f"{self.name} reads its weights from a folder, by itself: leave out prefix")
        origin = Origin(self.weights, self.prefix, self.pretrained)
        module = unaltered(load_from_library, type(self), self.address, origin, stamp_of(self.files))
        where = self.weights or ("random weights" if self.random else "its published weights")
        return Loaded(self.part(module), self.preprocessing_in(module), f"{self.library}, {where}")

    @property
    def files(self) -> list[Path]:
        """What `weights` names, checked; none where it names nothing."""
        return files_of(self.weights)

    @classmethod
    @abstractmethod
    def build(cls, address: str, origin: Origin) -> nn.Module:
        """The library's network; its weights are random unless they are its own or in a folder."""

    def part(self, module: nn.Module) -> nn.Module:
        """What of the network reads images."""
        return module

    @abstractmethod
    def preprocessing_in(self, module: nn.Module) -> Preprocessing | None:
        """How the library feeds this network."""


@lru_cache(maxsize=2)
def load_from_library(door: type[LibraryDoor], address: str, origin: Origin, stamp: Stamp) -> Kept:  # noqa: ARG001 (the key's)
    """A network of a library; kept, because settings are read more often than networks should be loaded."""
    with seeded(0):  # random weights are the same every time
        module = attempt(lambda: door.build(address, origin), f"{door.door}:{address}", SettingsError)
    if origin.weights and door.wanted == "FILE":
        fill_from_file(module, origin.weights, origin.prefix)
    return Kept(module, WeightsSeen(module))


def import_library(door: type[LibraryDoor], part: str = "") -> Any:
    """A library or a part of it; raises `PreimageError` with the pip command where it cannot be imported."""
    try:
        return importlib.import_module(door.library + part)
    except ModuleNotFoundError as error:
        raise PreimageError(
            f"{door.door}: needs {door.library}, which cannot be imported here ({error}): "
            f"pip install 'preimage[{door.extra}]'"
        ) from error
    except Exception as error:  # torchvision raises RuntimeError beside a torch built otherwise
        raise PreimageError(
            f"{door.door}: {door.library} is installed, but fails to be imported beside torch {torch.__version__} "
            f"({type(error).__name__}: {error}): install both for the same torch and the same device (CPU or CUDA)"
        ) from error


@dataclass(frozen=True, eq=False)
class Timm(LibraryDoor):
    """timm:NAME: a network of timm, such as timm:vit_base_patch16_224, with --set weights=FILE."""

    door: ClassVar[str] = "timm"
    library: ClassVar[str] = "timm"
    extra: ClassVar[str] = "timm"

    @classmethod
    def build(cls, address: str, origin: Origin) -> nn.Module:
        timm = import_library(cls)
        if not timm.is_model(address):
            raise UnknownNameError("network of timm", address, timm.list_models())
        module: nn.Module = timm.create_model(address, pretrained=origin.pretrained)
        return module

    def preprocessing_in(self, module: nn.Module) -> Preprocessing | None:
        return preprocessing_of(module)


@dataclass(frozen=True, eq=False)
class Torchvision(LibraryDoor):
    """torchvision:NAME: a network of torchvision, such as torchvision:resnet50, with --set weights=FILE."""

    door: ClassVar[str] = "torchvision"
    library: ClassVar[str] = "torchvision"
    extra: ClassVar[str] = "torchvision"

    @classmethod
    def build(cls, address: str, origin: Origin) -> nn.Module:
        models = import_library(cls, ".models")
        if address not in models.list_models():
            raise UnknownNameError("network of torchvision", address, models.list_models())
        told = {"weights": "DEFAULT" if origin.pretrained else None}
        if "weights_backbone" in inspect.signature(models.get_model_builder(address)).parameters:
            told["weights_backbone"] = None  # by default it would be downloaded even for a network without weights
        module: nn.Module = models.get_model(address, **told)
        return module

    def preprocessing_in(self, module: nn.Module) -> Preprocessing | None:  # noqa: ARG002 (the library knows by name)
        published = list(import_library(type(self), ".models").get_model_weights(self.address))
        if not published:
            return None
        told = published[-1].transforms()  # the last are the default ones
        size = getattr(told, "crop_size", None)
        if not size:
            return None  # made for another task than naming images
        return Preprocessing(size[0], mean=tuple(told.mean), deviation=tuple(told.std))


@dataclass(frozen=True, eq=False)
class OpenCLIP(LibraryDoor):
    """open_clip:NAME/TAG: an image tower of open_clip, such as open_clip:ViT-B-32/openai, with --set weights=FILE.

    TAG says which of its published weights `pretrained=true` downloads; without that it may be left away.
    """

    door: ClassVar[str] = "open_clip"
    library: ClassVar[str] = "open_clip"
    extra: ClassVar[str] = "open-clip"

    @classmethod
    def build(cls, address: str, origin: Origin) -> nn.Module:
        open_clip = import_library(cls)
        name, _, tag = address.partition("/")
        if name not in open_clip.list_models():
            raise UnknownNameError("network of open_clip", name, open_clip.list_models())
        tags = open_clip.list_pretrained_tags_by_model(name)
        if (origin.pretrained or tag) and tag not in tags:
            raise UnknownNameError(f"set of weights of {name} (open_clip:{name}/TAG)", tag, tags)
        if not origin.pretrained and "hf_model_name" in open_clip.get_model_config(name).get("text_cfg", {}):
            raise SettingsError(
                f"the text tower of open_clip:{name} comes from the Hugging Face hub, so this network can only be made "
                "with pretrained=true, which downloads"
            )
        module: nn.Module = open_clip.create_model(name, pretrained=tag if origin.pretrained else None)
        return module

    def part(self, module: nn.Module) -> nn.Module:
        tower = module.visual
        assert isinstance(tower, nn.Module)
        return tower

    def preprocessing_in(self, module: nn.Module) -> Preprocessing | None:
        told = import_library(type(self)).get_model_preprocess_cfg(module)
        size = told["size"] if isinstance(told["size"], int) else told["size"][-1]
        return Preprocessing(size, mean=tuple(told["mean"]), deviation=tuple(told["std"]))


@dataclass(frozen=True, eq=False)
class HuggingFace(LibraryDoor):
    """hf:NAME: a vision network of transformers, such as hf:facebook/dinov2-small, with --set weights=FOLDER.

    FOLDER is one that `save_pretrained` wrote or the hub holds; it may stand in NAME's place. Of a network of images
    and texts, such as CLIP, it is the image tower. With `random` NAME may be a model type, such as hf:dinov2. Without
    `layer` the output is `last_hidden_state`, as a map; `pooler_output` is often there too.
    """

    door: ClassVar[str] = "hf"
    library: ClassVar[str] = "transformers"
    extra: ClassVar[str] = "hf"
    wanted: ClassVar[str] = "FOLDER"

    def __post_init__(self) -> None:
        if not self.weights and not self.random and not self.pretrained and Path(self.address).is_dir():
            object.__setattr__(self, "weights", self.address)
        if self.output is None and self.layer == "":
            object.__setattr__(self, "output", "last_hidden_state")
        super().__post_init__()

    @property
    def files(self) -> list[Path]:
        if not self.weights:
            return []
        folder = Path(self.weights).expanduser()
        if not (folder / "config.json").is_file():
            raise WeightsError(f"{self.weights} is no folder of transformers: there is no config.json in it")
        return sorted(folder.iterdir())

    @classmethod
    def build(cls, address: str, origin: Origin) -> nn.Module:
        transformers = import_library(cls)
        folder = Path(origin.weights).expanduser() if origin.weights else None
        if origin.pretrained:
            folder = download(address)
        if folder is not None:
            module: nn.Module = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        else:
            module = transformers.AutoModel.from_config(cls.configuration(address))
        return module

    @classmethod
    def configuration(cls, address: str) -> Any:
        """That of a folder, or of a model type as transformers has it by default."""
        transformers = import_library(cls)
        if Path(address).is_dir():
            return transformers.AutoConfig.from_pretrained(address, local_files_only=True)
        types = list(transformers.CONFIG_MAPPING)
        if address not in types:
            raise UnknownNameError("folder or model type of transformers", address, types)
        return transformers.AutoConfig.for_model(address)

    def part(self, module: nn.Module) -> nn.Module:
        tower = getattr(module, "vision_model", None)
        return tower if isinstance(tower, nn.Module) and hasattr(module, "text_model") else module

    def preprocessing_in(self, module: nn.Module) -> Preprocessing | None:
        configuration: Any = module.config
        vision = getattr(configuration, "vision_config", configuration)
        size = getattr(vision, "image_size", None) or 224
        size = size if isinstance(size, int) else size[0]
        if self.random:
            return Preprocessing(size)
        folder = download(self.address) if self.pretrained else Path(self.weights).expanduser()
        file = folder / "preprocessor_config.json"
        if not file.is_file():
            if self.mean and self.deviation:
                return Preprocessing(size)
            raise SettingsError(
                f"{self.name}: there is no {file.name} beside the weights, so how images are fed is not known: give "
                "--set mean=[...] --set deviation=[...] of images in [0, 1], or put the file there"
            )
        return read_preprocessor(json.loads(file.read_text()), size)


def read_preprocessor(facts: dict[str, Any], size: int) -> Preprocessing:
    """What a preprocessor_config.json says; `size` is the network's own, where that says none."""
    told = facts.get("crop_size" if facts.get("do_center_crop") else "size")
    if isinstance(told, dict):
        told = told.get("height") or told.get("shortest_edge")
    size = told or size
    white = 255 * facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 255.0
    if not facts.get("do_normalize", True):
        return Preprocessing(size, white=white)
    mean, deviation = facts.get("image_mean", [0.5] * 3), facts.get("image_std", [0.5] * 3)
    return Preprocessing(size, white=white, mean=tuple(mean), deviation=tuple(deviation))


def download(name: str) -> Path:
    """A network of the Hugging Face hub, or the copy of it that was downloaded before; no pickles."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
