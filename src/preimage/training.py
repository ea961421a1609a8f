"""The one training loop. It validates and saves through callbacks, and knows no files.

accelerate gives device, autocast, distributed data parallel and gathering; order, schedule and checkpoints are ours,
because a resumed run must continue exactly where it stopped. Everything that varies with the step (photographs,
learning rate) is a pure function of the step.
"""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from preimage.errors import DivergedError, SettingsError
from preimage.interfaces import ignore, never
from preimage.randomness import seeded

Precision = Literal["auto", "float32", "bfloat16"]
LossSize = Literal["image", "decoder"]
TRIED_FOR = 10.0  # seconds, about, to find out how long a step takes
READ_EVERY = 16  # steps whose numbers are fetched from a GPU together: looking at them makes it wait


BUDGETS = ("steps", "epochs", "minutes")  # how much a training may cost, in one of them


@dataclass(frozen=True)
class TrainingSettings:
    """How a decoder is trained. Give one budget: `steps`, `epochs` or `minutes` (turned into steps by timing a few)."""

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 32  # over all processes
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    ema_decay: float = 0.999  # 0 turns weight averaging off
    clip_norm: float = 1.0  # 0 turns gradient clipping off
    loss_size: LossSize = "image"  # where the error is taken if a decoder works at another size than the images have
    grid_weight: float = 0.02  # of the penalty that keeps the features' grid out of the pictures; 0 turns it off
    precision: Precision = "auto"
    compile: bool = False
    evaluate_every: int = 1000  # steps
    checkpoint_every: int = 500  # steps

    def __post_init__(self) -> None:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise SettingsError(f"give one budget, not {' and '.join(budgets)}")
        for name in (*budgets, "batch_size", "learning_rate", "evaluate_every", "checkpoint_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is positive and finite, got {getattr(self, name)}")
        for name in ("warmup_steps", "clip_norm", "grid_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is not negative, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise SettingsError(f"ema_decay is in [0, 1), got {self.ema_decay}")
        for name, choices in (("precision", get_args(Precision)), ("loss_size", get_args(LossSize))):
            if (given := getattr(self, name)) not in choices:
                raise SettingsError(f"{name} is {' or '.join(map(repr, choices))}, got {given!r}")


def learning_rate(step: int, steps: int, settings: TrainingSettings) -> float:
    """Linear warm-up, of a fifth of all steps at most, then half a cosine down towards zero."""
    warmup = min(settings.warmup_steps, steps // 5)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """`auto` takes bfloat16 where the hardware multiplies it fast: CUDA since Ampere, CPUs with AMX or AVX512_BF16."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and has_fast_bfloat16() else "float32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """In here `device` multiplies at a precision."""
    halved = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=halved)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16: by AMX tiles, or AVX512_BF16. Elsewhere it is emulated, and slower."""
    asked = (getattr(torch.cpu, f"_is_{one}_supported", None) for one in ("amx_tile", "avx512_bf16"))
    return any(supported is not None and supported() for supported in asked)


@dataclass
class TrainingState:
    """All that a training run consists of at a step: `step` gradient steps have been taken."""

    decoder: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    step: int = 0

    @property
    def best(self) -> nn.Module:
        """The weights to use: the moving average where there is one."""
        if self.average is None:
            return self.decoder
        averaged: nn.Module = self.average.module
        return averaged

    def to(self, device: torch.device) -> None:
        """Bring weights and their average to a device; how many were averaged stays where every step looks at it."""
        self.decoder.to(device)
        if self.average is not None:
            self.average.to(device)
            self.average.n_averaged = self.average.n_averaged.cpu()


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step."""

    step: int
    loss: float  # mean squared error of one batch, pixels in [0, 1]
    rate: float  # learning rate
    gradient_norm: float
    seconds: float  # of the whole step
    waiting: float  # seconds of it spent waiting for photographs


@contextlib.contextmanager
def learning() -> Iterator[None]:
    """In here gradients are computed, whatever was switched off before."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def make_accelerator(device: str | None = None) -> Accelerator:
    """accelerate's view of this process: its device and its rank. `device` is "cpu", "cuda" or "mps".

    By default the fastest there is. Raises `SettingsError` where there is no such device.
    """
    try:
        wanted = torch.device(device).type if device else None
    except RuntimeError as error:
        raise SettingsError(f"there is no device {device!r}; name cpu, cuda or mps") from error
    accelerator = Accelerator(cpu=wanted == "cpu", mixed_precision="no")
    expected = wanted or fastest_device()
    if expected != accelerator.device.type and accelerator.num_processes == 1:
        PartialState._reset_state()  # accelerate keeps the first device a process has used; another was asked for
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=wanted == "cpu", mixed_precision="no")
    if wanted not in (None, accelerator.device.type):
        raise SettingsError(f"device {device!r} cannot be used here; accelerate finds {accelerator.device.type!r}")
    if device and ":" in device and wanted != "cpu":
        raise SettingsError(f"name {wanted!r} without a number, and choose the GPU by CUDA_VISIBLE_DEVICES")
    return accelerator


def steps_of(settings: TrainingSettings) -> int:
    """The steps of a `fit`, 1000 if none are given; raises `SettingsError` for other budgets."""
    if settings.epochs is not None or settings.minutes is not None:
        raise SettingsError("fit counts steps: give steps, or train into a run folder by preimage.train")
    return settings.steps or 1000


def fastest_device() -> str:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found else "cpu"


def start(decoder: nn.Module, settings: TrainingSettings) -> TrainingState:
    """Step 0: the optimiser and the average of a decoder's weights."""
    decoder = decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = None
    if settings.ema_decay:
        average = AveragedModel(decoder)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999))
    return TrainingState(decoder, average, optimizer)


@torch.no_grad()
def update_average(average: AveragedModel, decoder: nn.Module, decay: float) -> None:
    """Exponential averaging whose memory grows with the run: a tenth of the steps taken, up to 1 / (1 - decay).

    Not by the class's own method, which looks at its count on the GPU three times, and waits for it each time.
    """
    count = int(average.n_averaged)
    kept = min(decay, (1 + count) / (10 + count)) if count else 0.0
    torch._foreach_lerp_(list(average.module.parameters()), list(decoder.parameters()), 1 - kept)
    average.n_averaged += 1


@learning()
def train(
    state: TrainingState,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    settings: TrainingSettings,
    accelerator: Accelerator,
    *,
    places: int | None = None,
    on_step: Callable[[Progress], None] = ignore,
    on_evaluate: Callable[[TrainingState], None] = ignore,
    on_checkpoint: Callable[[TrainingState], None] = ignore,
    should_stop: Callable[[], bool] = never,
) -> TrainingState:
    """Train from `state.step` to `steps` on `batches` of (features, images); returns the state where it stopped.

    `places` is how many features of a map lie side by side, for the penalty of `grid_weight`; None for vectors.

    Minimises the mean squared error: the optimum is the expected pre-image, E[x | features]. `on_checkpoint` is only
    called while every loss so far was finite; `DivergedError` is raised otherwise. `should_stop` is asked
    whenever numbers are read: on a CPU after each step.
    """
    device = accelerator.device
    state.to(device)
    network = torch.compile(state.decoder) if settings.compile else state.decoder
    network, optimizer = accelerator.prepare(network, state.optimizer)
    move_optimizer(state.optimizer, device)
    network.train()

    in_precision = autocast(settings.precision, device)
    unread: list[Tensor] = []  # error and gradient norm of the steps that have not been reported
    read_every = steps_at_once(device)
    waited, began = 0.0, time.perf_counter()
    while state.step < steps:
        asked = time.perf_counter()
        features, images = next(batches)
        waited += time.perf_counter() - asked

        rate = learning_rate(state.step, steps, settings)
        draw = state.step * accelerator.num_processes + accelerator.process_index
        with seeded(draw, device), in_precision:
            reconstructions = network(features).float()
        loss = error = squared_error(reconstructions, images, settings.loss_size)
        if places is not None and settings.grid_weight:
            period = reconstructions.shape[3] // places
            loss = error + settings.grid_weight * grid_penalty(reconstructions, period, accelerator)
        norm = descend(state, loss, rate, settings, optimizer, accelerator.backward)
        unread.append(torch.stack([error.detach(), norm.detach()]))

        last = state.step == steps
        due = last or state.step % settings.checkpoint_every == 0
        evaluating = last or state.step % settings.evaluate_every == 0
        if not (due or evaluating or len(unread) == read_every):
            continue
        stopping = agreed(should_stop(), accelerator)
        numbers = torch.stack(unread).tolist()  # here a GPU is waited for
        seconds = (time.perf_counter() - began) / len(unread)
        for step, (value, gradient_norm) in enumerate(numbers, state.step - len(unread) + 1):
            check_finite(step, value, gradient_norm)
            rate = learning_rate(step - 1, steps, settings)
            on_step(Progress(step, value, rate, gradient_norm, seconds, waited / len(unread)))
        unread.clear()
        if evaluating:
            on_evaluate(state)
            network.train()
        if due or stopping:
            on_checkpoint(state)
        waited, began = 0.0, time.perf_counter()
        if stopping:
            break
    return state


def steps_at_once(device: torch.device) -> int:
    """Steps whose numbers are read together, and which can only be timed together."""
    return 1 if device.type == "cpu" else READ_EVERY


def check_finite(step: int, loss: float, gradient_norm: float) -> None:
    """Raise `DivergedError` if either is no number."""
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise DivergedError(
            f"the loss became {loss:.3g} and its gradient {gradient_norm:.3g} at step {step}: training "
            "stopped. Checkpoints from before are kept; try a lower learning_rate, more warmup_steps, or "
            "precision=float32"
        )


def descend(
    state: TrainingState,
    loss: Tensor,
    rate: float,
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Tensor:
    """One step down the gradient of a loss, at this learning rate; returns the gradient's norm before clipping.

    `optimizer` and `backward` are accelerate's for those of the state, where it prepared them.
    """
    optimizer = optimizer or state.optimizer
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    norm = nn.utils.clip_grad_norm_(state.decoder.parameters(), settings.clip_norm or math.inf)
    optimizer.step()
    if state.average is not None:
        update_average(state.average, state.decoder, settings.ema_decay)
    state.step += 1
    return norm


def squared_error(reconstructions: Tensor, images: Tensor, size: LossSize = "image") -> Tensor:
    """The mean over all pixels, at the size of the images, or at that of the decoder as in Dosovitskiy & Brox 2016."""
    if images.shape[2:] != reconstructions.shape[2:]:
        if size == "image":  # as errors are measured
            reconstructions = F.interpolate(reconstructions, images.shape[2:], mode="bilinear")
        else:
            images = F.interpolate(images, reconstructions.shape[2:], mode="bilinear", antialias=True)
    return F.mse_loss(reconstructions, images)


def agreed(stop: bool, accelerator: Accelerator) -> bool:
    """Whether any process wants to stop; all must leave the loop at the same step."""
    if accelerator.num_processes == 1:
        return stop
    votes: Tensor = accelerator.reduce(torch.tensor(float(stop), device=accelerator.device))
    return bool(votes.item())


def grid_penalty(reconstructions: Tensor, grid: int, accelerator: Accelerator) -> Tensor:
    """A term whose gradient is that of the `grid_energy` of all processes' reconstructions together.

    The energy is no sum over images, so every process follows its slope at the mean of all. A quarter of the batch will
    do, and every fifth line, which meets all places of the grid in turn.
    """
    some = reconstructions[::4]
    own = steepness(some[:, :, ::5], some[:, :, :, ::5], grid)
    everyone = accelerator.reduce(own.detach(), "mean").requires_grad_()
    (slope,) = torch.autograd.grad(grid_energy(everyone), everyone)
    penalty: Tensor = (slope * own).sum()
    return penalty


def steepness(rows: Tensor, columns: Tensor, period: int) -> Tensor:
    """Mean |x[i + 1] - x[i]| by i modulo `period`, along rows and along columns of images (N, C, H, W): (2, period)."""
    means = []
    for lines in (rows, columns.transpose(2, 3)):
        by_place = lines.contiguous().diff(dim=3).abs().mean(dim=(0, 1, 2))
        means.append(by_place[: len(by_place) // period * period].view(-1, period).mean(dim=0))
    return torch.stack(means)


def grid_energy(phases: Tensor) -> Tensor:
    """How far steepness depends on the place within the features' grid: mean squared relative deviation.

    In photographs it is nearly 0; what a decoder leaves of the grid shows here.
    """
    return (phases / phases.mean(dim=1, keepdim=True).clamp(min=1e-6) - 1).square().mean(dim=1).sum()


def move_optimizer(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Bring restored moments to the device of the weights, and Adam's step counts to the CPU, where it reads them."""
    for moments in optimizer.state.values():
        for name, value in moments.items():
            moments[name] = value.to("cpu" if name == "step" else device)


def seconds_per_step(
    decoder: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    settings: TrainingSettings,
    accelerator: Accelerator,
    *,
    places: int | None = None,
    repeats: int = 8,
    ignored: int = 2,
) -> float:
    """The median time of a training step, photographs included, measured on a copy of the decoder then thrown away.

    The first steps are `ignored`: they find photographs waiting, and warm up caches. Slow steps are repeated less.
    """
    together = steps_at_once(accelerator.device)
    repeats, ignored = max(repeats, together), max(ignored, together)
    times: list[float] = []

    def long_enough() -> bool:
        return len(times) > ignored and sum(times) > TRIED_FOR

    trial, steps = start(copy.deepcopy(decoder), settings), repeats + ignored
    train(
        trial, batches, steps, settings, accelerator, places=places,
        on_step=lambda progress: times.append(progress.seconds), should_stop=long_enough,
    )  # fmt: skip
    accelerator.free_memory()
    return statistics.median(times[ignored:])
