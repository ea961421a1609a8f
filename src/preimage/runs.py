"""A run folder: everything one training writes, and all that is needed to go on with it or to use what it learnt.

    settings.json      what was asked for, with the budget in steps
    provenance.json    what it ran on: versions, hardware, fingerprints of encoder and photographs, cost
    checkpoint/        checkpoint.json names the one safetensors file beside it (weights, average, Adam's moments)
    train.jsonl        a line every few steps and one for each validation
    records.csv, summary.json, figures/
    lock               held by the process that trains into the folder

A checkpoint takes effect by one rename, of checkpoint.json: whenever the process dies, the folder holds a whole one.
Logs are cut back to the checkpoint's step when a run is resumed. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from preimage import training
from preimage.cache import FeatureMemory, cached
from preimage.config import Settings
from preimage.decoders import Cost, cost, load_weights
from preimage.errors import BusyError, PreimageWarning, RunError, SettingsError
from preimage.evaluation import Contender, draw_sheet, evaluate
from preimage.figures import curve
from preimage.files import read_json, replace_text, sync, write_json
from preimage.images import Photos, TrainingStream, in_advance, sources_in_words
from preimage.interfaces import Representation, never
from preimage.inverters import beginning_with
from preimage.inverters.autoencoder import Autoencoder
from preimage.inverters.linear import MeanImage
from preimage.inverters.upconv import UpConv
from preimage.metrics import distance, mean_and_sem, mean_pairwise_distance_of
from preimage.networks.weights import fingerprint
from preimage.pairs import EncodedPhotos
from preimage.plain import build, shape_in_words
from preimage.randomness import seeded
from preimage.representations import SavedFeatures, get_known
from preimage.training import Precision, Progress, TrainingSettings, TrainingState

DEFAULT_EPOCHS = 30
LOG_EVERY = 50  # steps
LOST = 1.0  # the squared error of black for white: no picture is further off
HELD_OUT_IN_WORDS = "held out from the run's photographs"
ENCODERS = 4  # batches whose features the processor makes at once, ahead of a GPU; each waits for the GPU at times
SHEET_PHOTOS = 8  # the first validation photographs, drawn at each validation
LOCK = "lock"
EARLY_FILES = {LOCK, "checkpoint", "provenance.json", "provenance.json.new", "settings.json.new"}  # before a run begins


class Run:
    """A run folder on disk, and a path to it. `new` names one to be made, `open` finds one; nothing here trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings_file = folder / "settings.json"
        self.provenance_file = folder / "provenance.json"
        self.checkpoint_file = folder / "checkpoint" / "checkpoint.json"
        self.log_file = folder / "train.jsonl"
        self.records_file = folder / "records.csv"
        self.summary_file = folder / "summary.json"
        self.figures = folder / "figures"

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, step {self.step})"

    @classmethod
    def new(cls, folder: str | Path) -> Run:
        """A run that does not exist yet; raises `RunError` where there already is something."""
        run = cls(Path(folder))
        if run.settings_file.exists():
            raise RunError(
                f"{folder} already holds a run: go on with it by `preimage train --resume {folder}`, "
                "or name another folder"
            )
        if run.folder.exists():
            found = {file.name for file in run.folder.iterdir()} if run.folder.is_dir() else {run.folder.name}
            if found and not (LOCK in found and found <= EARLY_FILES):
                raise RunError(f"{folder} exists and is not a run: name a new folder")
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run folder; raises `RunError` where there is none."""
        run = cls(Path(folder))
        if not run.folder.exists():
            raise RunError(f"there is no run {folder}: no such folder")
        if not run.settings_file.is_file():
            raise RunError(f"{folder} is not a run: it has no settings.json")
        return run

    @property
    def settings(self) -> Settings:
        """What was asked for; the encoder, whose weights may lie elsewhere by now, is not loaded."""
        return build(Settings, read_json(self.settings_file), "settings")

    @property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.provenance_file)

    @property
    def step(self) -> int:
        """Steps taken up to the checkpoint; 0 before the first."""
        return int(self.checkpoint["step"]) if self.checkpoint_file.exists() else 0

    @property
    def checkpoint(self) -> dict[str, Any]:
        """Of the last checkpoint: `step`, `seconds` of training so far, and its `tensors`, a file with its `sha256`."""
        return read_json(self.checkpoint_file)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else trains into this folder meanwhile; raises `BusyError` where another process does already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(f"another process is training into {self.folder}: wait for it, or stop it") from error
        try:
            self.clear_unbegun()  # of a process that was killed
            yield
        finally:
            self.clear_unbegun()
            if not self.settings_file.exists():
                Path(lock.lock_file).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
            lock.release()

    def clear_unbegun(self) -> None:
        """Remove what was written of a run that never began: it has no settings."""
        if not self.settings_file.exists():
            shutil.rmtree(self.checkpoint_file.parent, ignore_errors=True)
            for name in EARLY_FILES - {LOCK, self.checkpoint_file.parent.name}:
                (self.folder / name).unlink(missing_ok=True)

    def save_checkpoint(self, state: TrainingState, seconds: float) -> None:
        """Write the state beside the last checkpoint, then let it take effect by one rename."""
        folder = self.checkpoint_file.parent
        tensors = folder / f"state-{state.step:08d}.safetensors"
        content = save(pack(state))
        facts = {"tensors": tensors.name, "sha256": hashlib.sha256(content).hexdigest(), "seconds": round(seconds, 1)}
        try:
            folder.mkdir(exist_ok=True)
            tensors.write_bytes(content)
            sync(tensors)
            write_json(self.checkpoint_file, {"step": state.step, **facts})
        except OSError as error:
            tensors.unlink(missing_ok=True)
            kept = self.checkpoint_file.exists()
            before = f"The one of step {self.step} is kept" if kept else "There is none before it"
            raise RunError(
                f"cannot write the checkpoint of step {state.step}, {len(content) / 2**20:.0f} MiB: {error}. {before}: "
                f"make room, and go on with `preimage train --resume {self.folder}`"
            ) from error
        for old in folder.glob("state-*.safetensors"):
            if old != tensors:
                old.unlink()

    def load_tensors(self) -> dict[str, Tensor]:
        """The tensors of the checkpoint; raises `RunError` where there is none or it is damaged."""
        if not self.checkpoint_file.exists():
            raise RunError(f"{self.folder} has no checkpoint yet")
        file = self.checkpoint_file.parent / self.checkpoint["tensors"]
        try:
            content = file.read_bytes()
            tensors: dict[str, Tensor] = load(content)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file} is missing or damaged: {error}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.checkpoint.get("sha256", found):  # runs from before have none
            raise RunError(f"{file} is damaged: its SHA-256 is not the one that checkpoint.json has")
        return tensors

    def begin(self, settings: Settings, step: int, provenance: dict[str, Any]) -> None:
        """Write what is about to run; of a run with a checkpoint, add what it goes on with, and cut the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.settings_file.exists() and self.checkpoint_file.exists():
            before = self.provenance
            resumed = [*before.get("resumed", []), {"step": step, **provenance}]
            provenance = before | {"resumed": resumed}
        write_json(self.provenance_file, provenance)
        write_json(self.settings_file, dataclasses.asdict(settings))
        kept = [record for record in self.log_records() if record["step"] <= step]
        replace_text(self.log_file, "".join(json.dumps(record) + "\n" for record in kept))

    def log(self, record: dict[str, Any]) -> None:
        with self.log_file.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def log_records(self) -> list[dict[str, Any]]:
        """The log's lines; a last line cut short by a crash is left out."""
        records = []
        if self.log_file.exists():
            for line in self.log_file.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    records.append(json.loads(line))
        return records

    @property
    def validations(self) -> list[dict[str, Any]]:
        """The log's lines of validations: step, nre, nre_sem, n, seconds."""
        return [record for record in self.log_records() if "nre" in record]


def pack(state: TrainingState) -> dict[str, Tensor]:
    """A training state -> named tensors."""
    tensors = {f"decoder.{name}": value for name, value in state.decoder.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in moments.items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def unpack(tensors: dict[str, Tensor], state: TrainingState, step: int) -> None:
    """Named tensors -> into a fresh training state of the same decoder."""
    load_weights(state.decoder, beginning_with("decoder.", tensors))
    if state.average is not None:
        load_weights(state.average, beginning_with("average.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in beginning_with("adam.", tensors).items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    if moments:
        state.optimizer.load_state_dict(
            {"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]}
        )
    state.step = step


# --- training into a run folder ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validation:
    """NRE of the averaged weights on the validation photographs at some step."""

    step: int
    nre: float
    nre_sem: float
    n: int


@dataclass(frozen=True)
class Plan:
    """What a training will be, told before it begins."""

    photos: int
    validation_photos: int
    left_out: dict[str, str]  # name -> why
    device: str
    precision: str
    cost: Cost
    memory: int  # bytes: weights, their average, gradients, moments, activations of one batch
    batch_size: int  # over all processes
    steps: int
    first_step: int
    seconds_per_step: float
    matched_by: str = ""  # how saved features found their photographs


@dataclass(frozen=True)
class Start:
    """A trained inverter whose weights are the first ones of a run."""

    inverter: UpConv
    origin: Mapping[str, Any]  # what is known of it, for the provenance
    photos: Photos | None = None  # that it was trained on, if they are at hand


class Reporter:
    """What a training tells while it runs; this one keeps silent. The command line draws a progress bar."""

    def planned(self, plan: Plan) -> None: ...
    def stepped(self, progress: Progress) -> None: ...
    def validated(self, validation: Validation) -> None: ...


def train(
    settings: Settings,
    folder: str | Path,
    *,
    start: Start | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = never,
) -> Run:
    """Train an inverter into a new run folder. Under `accelerate launch` every process calls this alike."""
    accelerator = training.make_accelerator(device)
    run = Run.new(folder)
    accelerator.wait_for_everyone()
    with held(run, accelerator):
        Run.new(folder)  # nobody was faster
        return _train(run, settings, accelerator, reporter or Reporter(), should_stop, start)


def resume(
    folder: str | Path,
    settings: Settings | None = None,
    *,
    device: str | None = None,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = never,
) -> Run:
    """Go on with a run where its checkpoint stands. A finished run is left as it is.

    `settings` are the run's own, or differ from them in where files lie.
    """
    accelerator = training.make_accelerator(device)
    run = Run.open(folder)
    with held(run, accelerator):
        if run.summary_file.exists():
            raise RunError(
                f"{folder} is finished: {run.step} of {run.settings.training.steps} steps. To train further, begin "
                f"another run with --start-from {run.folder.absolute()}"
            )
        return _train(run, settings or run.settings, accelerator, reporter or Reporter(), should_stop)


def held(run: Run, accelerator: Accelerator) -> contextlib.AbstractContextManager[None]:
    """One lock for all processes of a training: the main one holds it."""
    return run.held() if accelerator.is_main_process else contextlib.nullcontext()


def _train(
    run: Run,
    settings: Settings,
    accelerator: Accelerator,
    reporter: Reporter,
    should_stop: Callable[[], bool],
    start: Start | None = None,
) -> Run:
    """From settings to a finished run, or to the checkpoint at which it is stopped; the caller holds the folder."""
    resuming = run.settings_file.exists() and run.checkpoint_file.exists()
    representation = settings.get_representation()
    if isinstance(representation, SavedFeatures):  # the run keeps the hash of their file
        settings = dataclasses.replace(
            settings, representation={"name": representation.name, **representation.settings}
        )
    material = prepared(settings, representation, accelerator)
    inverter, validation = material.inverter, material.validation
    if start is not None:
        take_weights(inverter, start.inverter)
        if start.photos and validation:
            warn_seen(validation.among(start.photos), f"were trained on by {start.origin['inverter']}")

    trial = material.examples(accelerator.device, 0)
    own_pace = training.seconds_per_step(
        inverter.network, trial, settings.training, accelerator, places=inverter.places
    )
    pace = max(gather_object([own_pace]))  # all processes must come to the same number of steps
    settings = with_steps(settings, len(material.photos), pace)
    steps = settings.training.steps
    assert steps is not None
    state, seconds_before = training.start(inverter.network, settings.training), 0.0
    if resuming:
        check_same_encoder(run, representation)
        check_same_photos(run, material.photos, validation)
        unpack(run.load_tensors(), state, run.step)
        seconds_before = run.checkpoint["seconds"]
    plan = planned(material, settings.training, accelerator, next(trial)[0], state.step, pace)
    trial.close()  # with the photographs and features that it holds
    if accelerator.is_main_process:
        made_with = provenance(material, plan, accelerator)
        if start is not None:
            made_with["started_from"] = {**start.origin, "weights": fingerprint(start.inverter.network)}
            run.save_checkpoint(state, 0.0)  # before the run is one: it never goes on without these weights
        run.begin(settings, state.step, made_with)
        reporter.planned(plan)

    diary = Diary(run, inverter, validation, accelerator, reporter, seconds_before)
    training.train(
        state,
        material.examples(accelerator.device, state.step),
        steps,
        settings.training,
        accelerator,
        places=inverter.places,
        on_step=diary.stepped,
        on_evaluate=diary.evaluated,
        on_checkpoint=diary.saved,
        should_stop=should_stop,
    )
    if state.step == steps and accelerator.is_main_process:
        finish(run, inverter.use(state.best), material.photos, validation, str(accelerator.device))
    accelerator.wait_for_everyone()
    return run


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


def planned(
    material: Material,
    settings: TrainingSettings,
    accelerator: Accelerator,
    inputs: Tensor,
    first_step: int,
    pace: float,
) -> Plan:
    """What is told before a training begins; `inputs` are what the network reads in one step."""
    inverter, photos, validation = material.inverter, material.photos, material.validation
    assert settings.steps is not None
    return Plan(
        photos=len(photos),
        validation_photos=len(validation) if validation else 0,
        left_out=photos.left_out | (validation.left_out if validation else {}),
        device=accelerator.device.type,
        precision=training.resolve_precision(settings.precision, accelerator.device),
        cost=cost(inverter.network, inverter.input_shape),
        memory=memory_needed(inverter.network, inputs, settings.precision),
        batch_size=settings.batch_size,
        steps=settings.steps,
        first_step=first_step,
        seconds_per_step=pace,
        matched_by=getattr(inverter.representation, "matched_by", ""),
    )


class Diary:
    """What a training writes into its run folder on the way, and tells; only the main process does either."""

    def __init__(
        self,
        run: Run,
        inverter: UpConv,
        validation: Photos | None,
        accelerator: Accelerator,
        reporter: Reporter,
        seconds_before: float,
    ) -> None:
        self.run, self.inverter, self.validation = run, inverter, validation
        self.accelerator = accelerator
        self.reporter = reporter if accelerator.is_main_process else Reporter()  # one process speaks for all
        self.began = time.monotonic() - seconds_before
        self.window: list[Progress] = []
        self.warned = False
        self.pairwise = mean_pairwise_distance_of(len(validation), validation.images) if validation else 0.0

    @property
    def seconds(self) -> float:
        """Of training so far, that before resuming included."""
        return time.monotonic() - self.began

    def stepped(self, progress: Progress) -> None:
        self.window.append(progress)
        self.reporter.stepped(progress)
        if progress.loss > LOST and not self.warned and self.accelerator.is_main_process:
            self.warned = True
            warnings.warn(
                f"at step {progress.step} the error is {progress.loss:.3g}, larger than between black and white: the "
                "training may not come back from there. If it does not, begin anew with a lower learning_rate (now "
                f"{progress.rate:.3g})",
                PreimageWarning,
                stacklevel=2,
            )
        if progress.step % LOG_EVERY == 0:
            self.log_window()

    def log_window(self) -> None:
        if self.window and self.accelerator.is_main_process:
            with expendable():
                self.run.log(summarise(self.window))
        self.window.clear()

    def evaluated(self, state: TrainingState) -> None:
        if self.validation is None:
            return
        self.inverter.use(state.best)
        result = validate(self.inverter, self.validation, self.pairwise, self.accelerator, state.step)
        if self.accelerator.is_main_process:
            self.reporter.validated(result)
            with expendable():
                self.run.log(dataclasses.asdict(result) | {"seconds": round(self.seconds, 1)})
                self.run.figures.mkdir(exist_ok=True)
                sheet = self.run.figures / f"sheet-{state.step:08d}.png"
                draw_sheet(self.inverter, self.validation.first(SHEET_PHOTOS), sheet, str(self.accelerator.device))

    def saved(self, state: TrainingState) -> None:
        self.log_window()
        if self.accelerator.is_main_process:
            self.run.save_checkpoint(state, self.seconds)
        self.accelerator.wait_for_everyone()


@contextlib.contextmanager
def expendable() -> Iterator[None]:
    """What is written here does not stop a training; the next checkpoint does, if the disk is still full by then."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{error}: training goes on without it", PreimageWarning, stacklevel=3)


def measure_pace(settings: Settings) -> float:
    """Seconds that a training step would take here, tried on noise: photographs are not read."""
    representation = settings.get_representation()
    accelerator = training.make_accelerator()
    inverter = make_inverter(settings, representation)
    network = inverter.network.to(accelerator.device)
    size = representation.image_size
    images = torch.rand(settings.training.batch_size, 3, size, size, device=accelerator.device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield inverter.inputs(representation.batch([], images)), images

    return training.seconds_per_step(
        network, batches(), settings.training, accelerator, places=inverter.places, repeats=2, ignored=1
    )


def open_photos(settings: Settings, representation: Representation) -> tuple[Photos, Photos | None]:
    """The training and the validation photographs of a run, in memory."""
    if isinstance(representation, SavedFeatures) and settings.augmentation.changes_pictures:
        raise SettingsError(
            "saved features belong to photographs as they are: leave augmentation.flip=false and min_scale=1"
        )
    photos, validation = training_photos(settings, representation)
    if settings.photos.validation:
        photos, validation = photos.load(), opened(settings.photos.validation, settings, representation).load()
    if validation is None:
        return photos.load(), None
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


def training_photos(settings: Settings, representation: Representation) -> tuple[Photos, Photos | None]:
    """The photographs a run is trained on, and those held out of them if it has no others for validation.

    Those are drawn from the ones that can be read, so then all are in memory.
    """
    photos = opened(settings.photos.train, settings, representation)
    if settings.photos.held_out and not settings.photos.validation:
        return split(photos.load(), settings.photos.held_out, settings.seed)
    return photos, None


def photos_of(run: Run, representation: Representation) -> tuple[Photos, Photos | None]:
    """The `training_photos` of a run that was begun; raises `RunError` where they are others by now."""
    photos, held_out = training_photos(run.settings, representation)
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


def split(photos: Photos, share: float, seed: int) -> tuple[Photos, Photos]:
    """Photographs at random in two parts, the second with `share` of them and at least two; both in their order."""
    count = max(2, round(share * len(photos)))
    if len(photos) - count < 1:
        raise RunError(f"{len(photos)} photographs are too few to hold out {count} and train on the rest")
    order = np.random.default_rng(seed).permutation(len(photos))
    held_out, rest = (photos.subset(sorted(part.tolist())) for part in (order[:count], order[count:]))
    return rest, held_out


def finish(run: Run, inverter: UpConv, photos: Photos, validation: Photos | None, device: str) -> None:
    """Write what a finished run amounts to: the validation records beside those of the mean image, and summary.json."""
    summary: dict[str, Any] = {"steps": run.step, "seconds": run.checkpoint["seconds"], "photos": len(photos)}
    if validation is not None:
        mean = MeanImage(inverter.representation).fit(EncodedPhotos(inverter.representation, photos, device=device))
        contenders = [Contender(inverter, "the run's photographs"), Contender(mean, "the run's photographs")]
        described = sources_in_words(run.settings.photos.validation) or HELD_OUT_IN_WORDS
        evaluation = evaluate(contenders, validation, described, device=device)
        replace_text(run.records_file, evaluation.records_csv())
        summary |= evaluation.to_json()
        points = [(v["step"], v["nre"], v["nre_sem"]) for v in run.validations]
        run.figures.mkdir(exist_ok=True)
        if len(points) > 1:
            curve({"validation": points}, run.figures / "curve.png", "step", "NRE (lower is better)")
    write_json(run.summary_file, summary)


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


def make_inverter(settings: Settings, representation: Representation) -> UpConv:
    """The inverter a run trains, as it is before the first step."""
    kind = Autoencoder if settings.autoencoder else UpConv
    return kind(representation, settings.decoder.name, settings.decoder.width, settings.seed)


def take_weights(inverter: UpConv, start: UpConv) -> None:
    """Begin with the weights of a trained inverter; raises `SettingsError` where its network is another."""
    kinds = [
        f"{one.name} with {one.settings['decoder']!r} at width {one.settings['width']} for features of "
        + shape_in_words(one.representation.feature_shape)
        for one in (start, inverter)
    ]
    if kinds[0] != kinds[1]:
        raise SettingsError(f"training cannot start from {kinds[0]}: what is to be trained is {kinds[1]}")
    load_weights(inverter.network, start.network.state_dict())


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


def with_steps(settings: Settings, num_photos: int, seconds_per_step: float) -> Settings:
    """The settings with their budget written out in steps, once and for all."""
    budget = settings.training
    if budget.steps is not None:
        return settings
    if budget.minutes is not None:
        steps = int(budget.minutes * 60 / seconds_per_step)
    else:
        steps = round((budget.epochs or DEFAULT_EPOCHS) * num_photos / budget.batch_size)
    return dataclasses.replace(
        settings, training=dataclasses.replace(budget, steps=max(1, steps), epochs=None, minutes=None)
    )


def validate(inverter: UpConv, photos: Photos, pairwise: float, accelerator: Accelerator, step: int) -> Validation:
    """NRE over the validation photographs, shared out among the processes."""
    mine = photos.subset(range(accelerator.process_index, len(photos), accelerator.num_processes))
    distances: list[float] = []
    for batch in EncodedPhotos(inverter.representation, mine, device=str(accelerator.device)):
        distances += distance(batch.images, inverter.invert(batch.features)).tolist()
    nre, nre_sem = mean_and_sem([one / pairwise for one in gather_object(distances)])
    return Validation(step, nre, nre_sem, len(photos))


def memory_needed(network: nn.Module, inputs: Tensor, precision: Precision) -> int:
    """Bytes a training step holds, about: weights five times (average, gradient, two moments), and what backward needs.

    The latter is what autograd keeps for a second image beyond the first, times the images of the batch.
    """

    def kept(images: int) -> int:
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, seeded(0, inputs.device), training.autocast(precision, inputs.device):
            network(inputs[:1].expand(images, *inputs.shape[1:]))
        return sum(storages.values())

    weights = sum(parameter.nbytes for parameter in network.parameters())
    return 5 * weights + len(inputs) * (kept(2) - kept(1))


def provenance(material: Material, plan: Plan, accelerator: Accelerator) -> dict[str, Any]:
    """What a run was made with, as plain values."""
    validation = material.validation
    return {
        "preimage": version("preimage"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": plan.precision,
        "representation_fingerprint": material.inverter.origin.fingerprint,
        "photos_fingerprint": material.photos.fingerprint,
        "photos": plan.photos,
        "left_out": plan.left_out,
        "validation_photos": plan.validation_photos,
        **({"validation_fingerprint": validation.fingerprint} if validation else {}),
        **({"matched_by": plan.matched_by} if plan.matched_by else {}),
        "parameters": plan.cost.parameters,
        "flops_per_inversion": plan.cost.flops,
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"


def check_same_encoder(run: Run, representation: Representation) -> None:
    """Raise `RunError` unless the encoder is the one that a run was trained on."""
    then, now = run.provenance["representation_fingerprint"], representation.fingerprint
    if now != then:
        raise RunError(
            f"{run.folder} was trained on another {representation.name!r}: its weights, settings or version have "
            f"changed since (fingerprint {then} then, {now} now)"
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


def summarise(window: list[Progress]) -> dict[str, Any]:
    """One log line for some steps: means, and the last step and rate."""
    return {
        "step": window[-1].step,
        "loss": sum(p.loss for p in window) / len(window),
        "rate": window[-1].rate,
        "gradient_norm": sum(p.gradient_norm for p in window) / len(window),
        "seconds_per_step": sum(p.seconds for p in window) / len(window),
        "waiting": sum(p.waiting for p in window) / max(1e-9, sum(p.seconds for p in window)),
    }
