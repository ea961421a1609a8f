"""What a run works on: photographs, an inverter, and the examples it learns from."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from preimage.cache import FeatureMemory, cached
from preimage.config import Settings
from preimage.errors import PreimageWarning, RunError, SettingsError, WeightsWarning
from preimage.images import Photos, TrainingStream, in_advance, split
from preimage.interfaces import Inverter, Representation
from preimage.inverters import beginning_with
from preimage.inverters.autoencoder import Autoencoder
from preimage.inverters.linear import MeanImage
from preimage.inverters.upconv import UpConv
from preimage.pairs import EncodedPhotos
from preimage.probe import LIMIT, SAME_ARITHMETIC, Probe
from preimage.representations import SavedFeatures, get_known
from preimage.runs.folder import Run

ENCODERS = 4  # batches whose features the processor makes at once, ahead of a GPU; each waits for the GPU at times


@dataclass(frozen=True)
class Material:
    """What a training works on: an inverter that knows the scale of what it reads, and photographs."""

    inverter: UpConv
    photos: Photos
    validation: Photos | None
    stream: TrainingStream
    memory: FeatureMemory | None  # where features are kept beside the photographs on a GPU

    def examples(self, device: torch.device, first_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        encoders = ENCODERS if device.type == "cuda" and self.inverter.representation.ahead else 0
        return examples(self.stream, self.inverter, device, first_step, self.memory, encoders)


def prepared(settings: Settings, representation: Representation, accelerator: Accelerator) -> Material:
    """Photographs opened, features cached where that pays, the inverter on its device and prepared."""
    on_gpu = accelerator.device.type == "cuda"  # where most features are computed faster than read from disk
    if not isinstance(representation, SavedFeatures):  # they are on disk already
        representation = cached(representation, (settings.augmentation.variants > 0 and not on_gpu) or None)
    photos, validation = open_photos(settings, representation)
    inverter = make_inverter(settings, representation)
    inverter.network.to(accelerator.device)
    batch_size = settings.training.batch_size
    inverter.prepare(EncodedPhotos(representation, photos, batch_size, str(accelerator.device)))
    share = {"rank": accelerator.process_index, "num_ranks": accelerator.num_processes}
    stream = TrainingStream(photos, batch_size, settings.seed, settings.augmentation, **share)
    memory = None
    if representation.costly and settings.augmentation.variants and on_gpu:
        memory = FeatureMemory(representation.uncached.encode, accelerator.device)
    return Material(inverter, photos, validation, stream, memory)


def make_inverter(settings: Settings, representation: Representation) -> UpConv:
    """The inverter a run trains, as it is before the first step."""
    kind = Autoencoder if settings.autoencoder else UpConv
    return kind(representation, settings.decoder.name, settings.decoder.width, settings.seed)


def load_inverter(folder: str | Path, **given: Any) -> UpConv:
    """The inverter of a run as its last checkpoint has it (the averaged weights where they are kept).

    Warns where that is not the run's last step. `given` settings of the representation replace the run's: `weights`, on
    a machine where they lie elsewhere.
    """
    run = Run.open(folder)
    settings = run.settings
    representation = cached(get_known(**{**settings.representation, **given}))
    check_same_encoder(run, representation)
    inverter = make_inverter(settings, representation)
    tensors = run.load_tensors()
    if run.step != settings.training.steps:
        warnings.warn(
            f"{folder} was trained for {run.step} of its {settings.training.steps} steps so far; go on with: "
            f"preimage train --resume {folder}",
            PreimageWarning,
            stacklevel=2,
        )
    averaged = beginning_with("average.module.", tensors)
    return inverter.restore(averaged or beginning_with("decoder.", tensors))


def load_kept(folder: str | Path, **given: Any) -> dict[str, Inverter]:
    """The inverter of a run, as `load_inverter` takes it, and the mean image of its photographs if it is finished."""
    inverter, file = load_inverter(folder, **given), Run.open(folder).mean_file
    kept: dict[str, Inverter] = {inverter.name: inverter}
    if file.exists():
        try:
            kept[MeanImage.name] = MeanImage(inverter.representation).restore(load_file(file))
        except (OSError, SafetensorError, KeyError) as error:
            warnings.warn(f"{file} is damaged, and left out: {error}", PreimageWarning, stacklevel=2)
    return kept


def check_same_encoder(run: Run, representation: Representation) -> None:
    """Raise `RunError` unless the encoder is the one that a run was trained on.

    Where weights or code have changed since, features of the probe picture tell whether that makes a difference.
    """
    then, now = run.provenance["representation_fingerprint"], representation.fingerprint
    if now == then:
        return
    probe = Probe.read(run.probe_file)
    different = math.inf if probe is None else probe.difference(representation)
    if different > LIMIT:
        size = f": features of the probe picture differ by {100 * different:.1f} %" if different < math.inf else ""
        raise RunError(
            f"{run.folder} was trained on another {representation.name!r}: its weights, settings, code or version have "
            f"changed since{size} (fingerprint {then} then, {now} now)"
        )
    if different > SAME_ARITHMETIC:
        warnings.warn(
            f"{representation.name} has changed since {run.folder} was trained: features of the probe picture differ "
            f"by {100 * different:.2f} %",
            WeightsWarning,
            stacklevel=3,
        )


def open_photos(settings: Settings, representation: Representation) -> tuple[Photos, Photos | None]:
    """The training and the validation photographs of a run, in memory."""
    if isinstance(representation, SavedFeatures) and settings.augmentation.changes_pictures:
        raise SettingsError(
            "saved features belong to photographs as they are: leave augmentation.flip=false and min_scale=1"
        )
    photos, validation = without_held_out(opened(settings.photos.train, settings, representation).load(), settings)
    if settings.photos.validation:
        validation = opened(settings.photos.validation, settings, representation).load()
    if validation is None:
        return photos, None
    seen = validation.among(photos)
    if isinstance(representation, SavedFeatures):
        known = set(photos.ids)
        if twice := [own for own, same in zip(validation.ids, seen, strict=True) if own in known and not same]:
            raise RunError(
                f"{twice[0]} is a photograph to train on and another one for validation, and the features have one row "
                "of that name: give photographs names that tell them apart"
            )
    warn_seen(seen, "are trained on too")
    if len(validation) < 2:
        raise RunError("validation needs at least two photographs: errors are relative to the distance between them")
    return photos, validation


def without_held_out(photos: Photos, settings: Settings) -> tuple[Photos, Photos | None]:
    """The photographs to train on, and those held out of them where no others are for validation."""
    if settings.photos.held_out and not settings.photos.validation:
        return split(photos, settings.photos.held_out, settings.seed)
    return photos, None


def photos_of(run: Run, representation: Representation) -> tuple[Photos, Photos | None]:
    """What a run that was begun is trained on, and what it held out; raises `RunError` where these are others by now.

    None is read: those that could not be read then are known.
    """
    photos = opened(run.settings.photos.train, run.settings, representation)
    left_out = run.provenance.get("left_out", {})
    readable = photos.subset(index for index, photo_id in enumerate(photos.ids) if photo_id not in left_out)
    photos, held_out = without_held_out(readable, run.settings)
    check_same_photos(run, photos, held_out)
    return photos, held_out


def opened(places: Sequence[str], settings: Settings, representation: Representation) -> Photos:
    found = Photos.open(places, representation.image_size, settings.photos.fit)
    return representation.match(found) if isinstance(representation, SavedFeatures) else found


def warn_seen(seen: Sequence[bool], how: str) -> None:
    """Warn where something is judged on photographs that it learnt from: those that are `seen`."""
    if count := sum(seen):
        warnings.warn(
            f"{count} of {len(seen)} photographs to measure on {how}: on others errors are larger",
            PreimageWarning,
            stacklevel=3,
        )


def check_same_photos(run: Run, photos: Photos, validation: Photos | None) -> None:
    """Raise `RunError` unless photographs are those that a run was begun with."""
    before = run.provenance
    for kind, key, now in (
        ("training", "photos_fingerprint", photos),
        ("validation", "validation_fingerprint", validation),
    ):
        if now is not None and now.fingerprint != (then := before.get(key, now.fingerprint)):
            raise RunError(
                f"the {kind} photographs of {run.folder} have changed since it began (fingerprint {then} then, "
                f"{now.fingerprint} now): put them back, or begin a new run"
            )


def examples(
    stream: TrainingStream,
    inverter: UpConv,
    device: torch.device,
    first_step: int,
    memory: FeatureMemory | None = None,
    encoders: int = 0,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """(what the network reads, images) by step, on the training device; features are computed there, in float32.

    `encoders` threads compute the features of several batches ahead of training; with 0, each when it is asked for.
    """
    representation = inverter.representation
    if not stream.augmentation.recurs:  # features would be kept on disk for nothing
        representation = representation.uncached

    def encoded(step: int, images: Tensor) -> tuple[Tensor, Tensor]:
        batch = representation.batch(stream.ids(step), images)
        if memory is not None:
            batch = dataclasses.replace(batch, ids=stream.versions(step), encode=memory.features)
        return inverter.inputs(batch), images

    steps = enumerate(stream.batches_on(device, first_step), first_step)
    if not encoders:
        yield from (encoded(step, images) for step, images in steps)
        return
    with ThreadPoolExecutor(encoders, thread_name_prefix="features") as pool:
        begun = in_advance(pool, lambda _: pool.submit(encoded, *next(steps)), first_step, ahead=2 * encoders)
        yield from (future.result() for future in begun)
