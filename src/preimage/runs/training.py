"""Training into a run folder: begun, gone on with, told about, finished."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import save
from torch import Tensor, nn

from preimage import training
from preimage.config import Settings
from preimage.decoders import Cost, cost, load_weights
from preimage.errors import PreimageError, PreimageWarning, RunError, SettingsError
from preimage.evaluation import Contender, draw_sheet, evaluate_contenders
from preimage.figures import curve
from preimage.files import replace, replace_text, write_json
from preimage.images import Photos, sources_in_words
from preimage.interfaces import never
from preimage.inverters.linear import MeanImage
from preimage.inverters.upconv import UpConv
from preimage.metrics import NRE_AXIS, distance, mean_and_sem, mean_pairwise_distance_of
from preimage.networks.weights import fingerprint
from preimage.pairs import EncodedPhotos
from preimage.probe import Probe
from preimage.randomness import seeded
from preimage.representations import SavedFeatures
from preimage.runs.folder import Run, unpack
from preimage.runs.material import (
    Material,
    check_same_encoder,
    check_same_photos,
    make_inverter,
    prepared,
    warn_seen,
)
from preimage.training import Precision, Progress, TrainingSettings, TrainingState
from preimage.words import shape_in_words

DEFAULT_EPOCHS = 30
LOG_EVERY = 50  # steps
LOST = 1.0  # the squared error of black for white: no picture is further off
HELD_OUT_IN_WORDS = "held out from the run's photographs"
SHEET_PHOTOS = 8  # the first validation photographs, drawn at each validation


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
    feature_shape: tuple[int, ...]
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


@training.learning()
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
    representation = settings.encoder
    if isinstance(representation, SavedFeatures):  # the run keeps the hash of their file
        settings = dataclasses.replace(settings, representation=representation.description)
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
        if not run.probe_file.exists():
            with contextlib.suppress(PreimageError):  # saved features are of no picture but their own
                Probe.of(representation).save(run.probe_file)
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
        feature_shape=inverter.representation.feature_shape,
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
                self.run.log(log_line(self.window))
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


@training.learning()
def measure_pace(settings: Settings) -> float:
    """Seconds that a training step would take here, tried on noise: photographs are not read."""
    representation = settings.encoder
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


def finish(run: Run, inverter: UpConv, photos: Photos, validation: Photos | None, device: str) -> None:
    """Write what a finished run amounts to: the mean image, the validation records beside its, and summary.json."""
    summary: dict[str, Any] = {"steps": run.step, "seconds": run.checkpoint["seconds"], "photos": len(photos)}
    mean = MeanImage(inverter.representation).fit(EncodedPhotos(inverter.representation, photos, device=device))
    replace(run.mean_file, save(mean.state()))
    if validation is not None:
        contenders = [Contender(inverter, "the run's photographs"), Contender(mean, "the run's photographs")]
        described = sources_in_words(run.settings.photos.validation) or HELD_OUT_IN_WORDS
        evaluation = evaluate_contenders(contenders, validation, described, device=device)
        replace_text(run.records_file, evaluation.records_csv())
        summary |= evaluation.to_json()
        points = [(v["step"], v["nre"], v["nre_sem"]) for v in run.validations]
        run.figures.mkdir(exist_ok=True)
        if len(points) > 1:
            curve({"validation": points}, run.figures / "curve.png", "step", NRE_AXIS)
    write_json(run.summary_file, summary)


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
        "left_out": material.photos.left_out,
        **({"validation_left_out": validation.left_out} if validation else {}),
        "validation_photos": plan.validation_photos,
        **({"validation_fingerprint": validation.fingerprint} if validation else {}),
        **({"matched_by": plan.matched_by} if plan.matched_by else {}),
        "parameters": plan.cost.parameters,
        "flops_per_inversion": plan.cost.flops,
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"


def log_line(window: list[Progress]) -> dict[str, Any]:
    """One log line for some steps: means, and the last step and rate."""
    return {
        "step": window[-1].step,
        "loss": sum(p.loss for p in window) / len(window),
        "rate": window[-1].rate,
        "gradient_norm": sum(p.gradient_norm for p in window) / len(window),
        "seconds_per_step": sum(p.seconds for p in window) / len(window),
        "waiting": sum(p.waiting for p in window) / max(1e-9, sum(p.seconds for p in window)),
    }
