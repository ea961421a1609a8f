"""A run folder: everything one training writes, and all that is needed to go on with it or to use what it learnt.

    settings.json      what was asked for, with the budget in steps
    provenance.json    what it ran on: versions, hardware, fingerprints of encoder and photographs, cost
    checkpoint/        checkpoint.json names the one safetensors file beside it (weights, average, Adam's moments)
    train.jsonl        a line every few steps and one for each validation
    records.csv, summary.json, figures/, mean-image.safetensors (of the training photographs)
    probe.safetensors  features of a synthetic picture: by them the run knows its encoder
    lock               held by the process that trains into the folder

A checkpoint takes effect by one rename, of checkpoint.json: whenever the process dies, the folder holds a whole one.
Logs are cut back to the checkpoint's step when a run is resumed. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from preimage.config import Settings
from preimage.decoders import load_weights
from preimage.errors import BusyError, RunError
from preimage.files import UNFINISHED, append_json, read_json, replace_text, sync, write_json
from preimage.inverters import beginning_with
from preimage.plain import build
from preimage.training import TrainingState

LOCK = "lock"
PROBE = "probe.safetensors"
EARLY_FILES = {LOCK, PROBE, "checkpoint", "provenance.json"}  # before a run begins; and unfinished ones


class Run:
    """A run folder on disk, and a path to it. `new` names one to be made, `open` finds one; nothing here trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings_file = folder / "settings.json"
        self.provenance_file = folder / "provenance.json"
        self.checkpoint_file = folder / "checkpoint" / "checkpoint.json"
        self.probe_file = folder / PROBE
        self.log_file = folder / "train.jsonl"
        self.records_file = folder / "records.csv"
        self.summary_file = folder / "summary.json"
        self.mean_file = folder / "mean-image.safetensors"
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
            strange = [name for name in found - EARLY_FILES if not name.endswith(UNFINISHED)]
            if found and (strange or LOCK not in found):
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
                with contextlib.suppress(OSError):  # Windows keeps a file that is held
                    Path(lock.lock_file).unlink(missing_ok=True)
                    self.folder.rmdir()
            lock.release()

    def clear_unbegun(self) -> None:
        """Remove what was written of a run that never began: it has no settings."""
        if not self.settings_file.exists():
            shutil.rmtree(self.checkpoint_file.parent, ignore_errors=True)
            for file in (self.provenance_file, self.probe_file, *self.folder.glob(f".*{UNFINISHED}")):
                file.unlink(missing_ok=True)

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
        append_json(self.log_file, record)

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
