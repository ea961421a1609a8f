"""Training, exporting and measuring everything that is meant to ship: a run folder for each under one roof.

    RUNS/NAME/        the run folder of an inverter
    RUNS/zoo.jsonl    what happened, a line for every beginning, validation and end

It can be stopped at any moment: what is finished is skipped the next time, what was begun goes on where it stood.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from preimage import runs, zoo
from preimage.api import evaluate, training_settings
from preimage.config import Settings, overrides_for, split_override
from preimage.defaults import BASELINE_LIMIT
from preimage.errors import (
    BusyError,
    DivergedError,
    PreimageError,
    RunError,
    SettingsError,
    UnknownNameError,
    WeightsError,
)
from preimage.evaluation import CONTROL, FLOOR, Evaluation, paired
from preimage.files import append_json, read_json, write_json
from preimage.images import Sources, find_photos, source_list
from preimage.interfaces import ignore, never
from preimage.inverters import GradientDescent, MeanImage, Nearest, main_of
from preimage.judging import applies
from preimage.kept import Kept
from preimage.representations import REPRESENTATIONS
from preimage.runs import Plan, Reporter, Run, Validation
from preimage.training import BUDGETS, Progress, make_accelerator

LOG = "zoo.jsonl"
State = Literal["missing", "begun", "finished", "failed"]


@dataclass(frozen=True)
class Standing:
    """How far one inverter has come."""

    name: str
    state: State
    step: int = 0
    steps: int | None = None  # the budget; None before it is known
    seconds: float = 0.0
    nre: float | None = None
    nre_sem: float | None = None
    images_per_second: float | None = None
    waiting: float | None = None  # share of the steps' time
    reason: str = ""  # why it failed


def train_zoo(
    names: Sequence[str],
    images: Sources,
    folder: str | Path,
    *,
    validation: Sources = (),
    overrides: Iterable[str] = (),
    seed: int = 0,
    device: str | None = None,
    reporter: Reporter | None = None,
    on_begin: Callable[[str, str], None] = ignore,
    should_stop: Callable[[], bool] = never,
) -> list[Standing]:
    """Train inverters by their presets into `folder`/NAME, one after the other, by default all that are meant to ship.

    What fails for a reason of its own (weights that are missing, a loss that is no number) does not stop the others,
    unless several processes train together: those that did not fail would wait for the one that did.
    Several processes may share a folder: what another one is training is left to it. An override may be for one name or
    network alone: `"bvlc_alexnet:representation.weights=FILE"`. `on_begin` is told the name and what is done: "train",
    "resume", "skip" or, once that has turned out, "busy". Returns how far each has come.
    """
    folder, overrides = Path(folder), list(overrides)
    names = list(dict.fromkeys(names)) or list(zoo.PLANNED)
    check_names(names, overrides)
    images, validation = source_list(images), source_list(validation)
    for sources in filter(None, (images, validation)):  # mistakes are told now, not at the tenth training
        find_photos(sources)
    for name in names:
        with contextlib.suppress(WeightsError):  # that is a matter of this name alone
            training_settings(name, images, validation, overrides_for(name, overrides), seed)
    accelerator = make_accelerator(device)
    speaks, alone = accelerator.is_main_process, accelerator.num_processes == 1
    log = Log(folder / LOG) if speaks else Log(None)
    tell = on_begin if speaks else ignore
    failures: dict[str, str] = {}
    for name in names:
        if should_stop():
            break
        found = standing(name, folder)
        if found.state == "failed":
            failures[name] = found.reason
            continue
        action = {"finished": "skip", "begun": "resume", "missing": "train"}[found.state]
        tell(name, action)
        if action == "skip":
            continue
        log.write(name, action)
        teller = Teller(name, log, reporter or Reporter())
        try:
            settings = training_settings(name, images, validation, overrides_for(name, overrides), seed)
            if action == "resume":
                begun = Run.open(folder / name)
                check_settings(begun, settings)
                settings = dataclasses.replace(settings, training=begun.settings.training)  # with its budget
                run = runs.resume(begun.folder, settings, device=device, reporter=teller, should_stop=should_stop)
            else:
                run = runs.train(settings, folder / name, device=device, reporter=teller, should_stop=should_stop)
        except BusyError:
            if not alone:
                raise
            tell(name, "busy")
            continue
        except PreimageError as error:
            if not alone:
                raise
            failures[name] = str(error)
            log.write(name, "failed", reason=str(error))
            continue
        log.write(name, "finished" if run.summary_file.exists() else "stopped", step=run.step)
    return [standing(name, folder, failures.get(name, "")) for name in names]


def check_names(names: Iterable[str], overrides: Iterable[str]) -> None:
    """Raise for a name that is none, also before an override."""
    for name in names:
        if name not in REPRESENTATIONS:
            raise UnknownNameError("representation", name, REPRESENTATIONS)
    for override in overrides:
        split_override(override)


def check_settings(run: Run, wanted: Settings) -> None:
    """Raise `RunError` where a run was begun with other settings than would now be used; its budget may differ."""
    before, now = comparable(run.settings), comparable(wanted)
    different = [
        f"{key}={now.get(key)} (was {before.get(key)})" for key in now | before if now.get(key) != before.get(key)
    ]
    if different:
        raise RunError(
            f"{run.folder} was begun with other settings than {', '.join(different)}: go on with it by `preimage train "
            f"--resume {run.folder}`, or remove it to begin anew"
        )


def comparable(settings: Settings) -> dict[str, Any]:
    """Settings by `section.key`, less budgets and the places of files: those are checked by what is in them."""
    left_out = {*(f"training.{key}" for key in BUDGETS), "photos.train", "photos.validation", "representation.weights"}
    flat: dict[str, Any] = {}
    for section, values in dataclasses.asdict(settings).items():
        if isinstance(values, Mapping):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            flat[section] = values
    return {key: value for key, value in flat.items() if key not in left_out}


def standing(name: str, folder: Path, reason: str = "") -> Standing:
    """How far the run of a name has come, from its folder; `reason` says why it failed, if it did.

    A run that cannot be read has failed.
    """
    run = Run(folder / name)
    if not run.settings_file.exists():
        return Standing(name, "failed" if reason else "missing", reason=reason)
    try:
        return standing_of(run, name, reason)
    except PreimageError as error:
        return Standing(name, "failed", reason=reason or str(error))


def standing_of(run: Run, name: str, reason: str) -> Standing:
    state: State = "failed" if reason else "finished" if run.summary_file.exists() else "begun"
    last = run.validations[-1] if run.validations else {}
    pace = zoo.pace(run)
    return Standing(
        name,
        state,
        step=run.step,
        steps=run.settings.training.steps,
        seconds=run.checkpoint["seconds"] if run.step else 0.0,
        nre=last.get("nre"),
        nre_sem=last.get("nre_sem"),
        images_per_second=pace.get("images_per_second"),
        waiting=pace.get("waiting"),
        reason=reason,
    )


class Log:
    """Lines of JSON at the end of a file, each with the time; without a file nothing is written."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, event: str, **facts: Any) -> None:
        if self.file is not None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            append_json(self.file, {"time": now, "name": name, "event": event, **facts})


class Teller(Reporter):
    """Writes plans and validations of a training to the log, and passes everything on."""

    def __init__(self, name: str, log: Log, listener: Reporter) -> None:
        self.name, self.log, self.listener = name, log, listener

    def planned(self, plan: Plan) -> None:
        self.log.write(
            self.name, "planned", steps=plan.steps, first_step=plan.first_step, photos=plan.photos, device=plan.device,
            precision=plan.precision, seconds_per_step=plan.seconds_per_step, parameters=plan.cost.parameters,
        )  # fmt: skip
        self.listener.planned(plan)

    def stepped(self, progress: Progress) -> None:
        self.listener.stepped(progress)

    def validated(self, validation: Validation) -> None:
        self.log.write(self.name, "validated", **dataclasses.asdict(validation))
        self.listener.validated(validation)


# --- exporting --------------------------------------------------------------------------------------------------------


def export_zoo(
    names: Sequence[str],
    runs_folder: str | Path,
    output: str | Path,
    *,
    licence: str,
    note: str = "",
    device: str = "cpu",
    on_begin: Callable[[str], None] = ignore,
) -> list[Path]:
    """Write finished runs as files of inverters with their cards, as the package holds them; by default all there are.

    Raises `RunError` where a run that was named is not finished, or none is.
    """
    runs_folder, output = Path(runs_folder), Path(output)
    if not licence:
        raise SettingsError("a card says what whoever gets the file may do with it: give --licence TEXT")
    for name in names:
        if (found := standing(name, runs_folder)).state != "finished":
            why = found.reason or f"preimage zoo train {name}"
            raise RunError(f"{runs_folder / name} is {found.state}, not finished: {why}")
    chosen = list(names)
    if not chosen and runs_folder.is_dir():
        present = zoo.in_order(folder.name for folder in runs_folder.iterdir())
        chosen = [name for name in present if standing(name, runs_folder).state == "finished"]
    if not chosen:
        raise RunError(f"{runs_folder} holds no finished run: preimage zoo train --runs {runs_folder}")
    files = []
    for name in chosen:
        on_begin(name)
        files.append(output / f"{name}.safetensors")
        zoo.export(runs_folder / name, files[-1], licence=licence, note=note, device=device)
    return files


# --- baselines that take long -----------------------------------------------------------------------------------------


def measure_slow_baselines(
    names: Sequence[str],
    folder: str | Path,
    images: Sources,
    *,
    baselines: Sequence[str | Path] = (GradientDescent.name,),
    limit: int = BASELINE_LIMIT,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    on_begin: Callable[[str, list[str]], None] = ignore,
) -> Iterator[Path]:
    """Put what slow baselines reach on the first `limit` photographs onto the cards of files, by default of all there.

    A baseline that cannot invert a representation is left out there: gradient descent needs gradients, a file inverts
    one representation. `images` must be those of the cards' own tables: N stays that of all of them, and differences
    from the trained inverter are paired. Yields the cards as they are written. A baseline that diverges does not stop
    the others: `DivergedError` is raised at the end.
    """
    folder = Path(folder)
    chosen = list(names) or zoo.names_in(folder)
    failures = []
    for name in chosen:
        file = folder / f"{name}.json"
        card = read_json(file)
        if "evaluation" not in card:
            raise RunError(f"{file} has no table to stand beside: its run had no validation photographs")
        inverters = file.with_suffix(".safetensors").absolute()
        kept = Kept.of(inverters).load_with(overrides)
        fitting = [baseline for baseline in baselines if applies(baseline, main_of(kept))]
        on_begin(name, [str(baseline) for baseline in fitting])
        if not fitting:
            continue
        try:
            found = evaluate(
                inverters, images, limit=limit, loaded=kept, baselines=fitting, baseline_limit=limit, device=device
            )
        except DivergedError as error:
            failures.append(f"{name}: {error}")
            continue
        card["slow_baselines"] = slow_rows(found, card["evaluation"]["pairwise_distance"])
        write_json(file, card)
        yield file
    if failures:
        raise DivergedError("\n".join(failures))


def slow_rows(evaluation: Evaluation, pairwise: float) -> list[dict[str, Any]]:
    """The rows of slow baselines and of what stands beside them, with NRE relative to another N."""
    fast = {MeanImage.name, Nearest.name, FLOOR, CONTROL}
    scale = evaluation.pairwise_distance / pairwise
    rows = []
    for row in evaluation.rows:
        if row.inverter in fast:
            continue
        difference, sem, n = paired(evaluation, row.inverter, evaluation.rows[0].inverter)
        rows.append(
            {
                "inverter": row.inverter, "n": n, "nre": scale * row.nre, "nre_sem": scale * row.nre_sem,
                "difference": scale * difference, "difference_sem": scale * sem,
                "remark": row.remark,
            }
        )  # fmt: skip
    return rows
