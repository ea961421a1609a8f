"""What all commands share: the app, the options they have in common, and how they talk to the terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from preimage.errors import PreimageWarning, SettingsError
from preimage.plain import to_json
from preimage.words import duration, plus_minus, shape_in_words

if TYPE_CHECKING:
    from preimage.evaluation import Evaluation
    from preimage.findings import Finding
    from preimage.images import Fit, Photos
    from preimage.interfaces import Representation
    from preimage.runs import Reporter

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=("Shows what a visual representation keeps: turns features back into pictures and measures the result."),
)


def names_like(start: str, folder: str, suffix: str) -> list[str]:
    """For the Tab key: the names of files of the package, without loading it; paths once there is a slash."""
    if "/" in start:
        return [f"{path}/" if Path(path).is_dir() else path for path in sorted(glob(f"{start}*"))]
    names = (entry.name for entry in (resources.files("preimage") / folder).iterdir() if entry.name.endswith(suffix))
    return sorted(name.removesuffix(suffix) for name in names if name.startswith(start))


def shipped_like(incomplete: str) -> list[str]:
    return names_like(incomplete, "zoo", ".safetensors")


def presets_like(incomplete: str) -> list[str]:
    return names_like(incomplete, "presets", ".toml")


def tell_version(wanted: bool) -> None:
    if wanted:
        print(f"preimage {version('preimage')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


LEFT_OUT_TOLD = 20  # names that are told one by one
FEW = 200  # photographs to train on
SILENCE = 60  # seconds between two lines of a training where no bar can be drawn

WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000  # in a file, tables need not be cut
out = Console(emoji=False, markup=False, width=WIDE)  # torch:a:b is a name, and a folder may be called [old]
err = Console(stderr=True, emoji=False, markup=False)

Images = Annotated[list[Path], typer.Argument(help="Photographs: files, folders, tar shards or globs of them.")]
SOURCES = "Folder, glob, tar shards, .parquet or hub:NAME; repeatable."
ImagesOption = Annotated[list[str], typer.Option("--images", help=f"Photographs. {SOURCES}")]
TrainImages = Annotated[list[str], typer.Option(help="Photographs for the baselines; a run knows its own.")]
FeaturesOption = Annotated[
    Path | None,
    typer.Option("--features", help="Saved features (.npy, .npz, .safetensors, .pt, .parquet) of --images."),
]
Name = Annotated[
    str,
    typer.Option("--representation", "-r", help="hog, ...; see `preimage list`.", autocompletion=presets_like),
]
Layer = Annotated[str | None, typer.Option("--layer", help="Short for --set representation.layer=LAYER.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")]
NAMED = "Change a setting, of all or of one name or network (NAME:KEY=VALUE); repeatable."
NamedOverrides = Annotated[list[str], typer.Option("--set", metavar="[NAME:]KEY=VALUE", help=NAMED)]
DEVICES = ("cpu", "cuda", "mps")
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default cuda where there is one.")]
FIT = "Make photographs square: crop the centre, or squeeze the whole. By default as in the run, else crop."
FitOption = Annotated[Literal["crop", "whole"] | None, typer.Option("--fit", help=FIT)]
INVERTERS = "Shipped names (hog), or paths with a slash (./runs/hog)."
Inverter = Annotated[
    str,
    typer.Argument(help="A shipped name (hog), or a path with a slash (./runs/hog).", autocompletion=shipped_like),
]
Val = Annotated[list[str], typer.Option("--val", help="Validation photographs, as --images.")]
Seed = Annotated[int, typer.Option(help="Decides weights, order and augmentation.")]
Limit = Annotated[int, typer.Option(min=2, help="Use only the first N photographs.")]
Baselines = Annotated[
    list[str],
    typer.Option(
        "--baseline",
        help="Add gradient-descent, or a file that `preimage fit` wrote (./file.safetensors); repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def tell(error: str) -> None:
    err.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)


def fail(message: str) -> None:
    tell(message)
    sys.exit(2)


def for_file(file: Path | None) -> Path | None:
    """The place of a file that a command will write; a mistake is told before the work, not after it."""
    if file is not None and file.is_dir():
        raise SettingsError(f"{file} is a folder: name a file to write")
    if file is not None:
        for_folder(file.parent)
    return file


def for_folder(folder: Path | None) -> Path | None:
    """The place of a folder that a command will write into; it is made when there is something to write."""
    if folder is not None:
        if folder.suffix.lower() in (".pdf", ".svg", ".png", ".jpg", ".jpeg") and not folder.is_dir():
            raise SettingsError(f"pictures are written as PNG into a folder: name one, not {folder}")
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise SettingsError(f"{nearest} is a file, not a folder: nothing can be written to {folder}")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise SettingsError(f"nothing can be written into {nearest}: its permissions do not allow it")
    return folder


def to_file(text: str) -> Any:
    """The option for the file that a command writes."""
    return typer.Option("--output", "-o", callback=for_file, help=text)


def to_folder(text: str) -> Any:
    """The option for the folder that a command writes into."""
    return typer.Option("--output", "-o", callback=for_folder, help=text)


def show_notes() -> None:
    """Warnings meant for the user are shown as notes, without a place in the code; Pillow's, of odd files, are not."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        note(f"note: {message}") if issubclass(category, PreimageWarning) else shown(message, category, *place)

    warnings.showwarning = show  # type: ignore[assignment]


def note(text: str) -> None:
    err.print(text, highlight=False, soft_wrap=True)


def plain_table(title: str, first: str, *columns: str) -> Table:
    """A table without lines whose first column is never cut."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column)
    return table


def print_finding(finding: Finding) -> None:
    """The table of a finding; a value and its standard error share a column."""
    from preimage.report import cells

    if not finding.table:
        return
    columns, rows = cells(finding.table, finding.columns)
    print_columns(columns, rows, columns.index("n") if "n" in columns else 1)


def print_columns(titles: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1) -> None:
    """A table whose cells are whole on any terminal.

    Where it is too wide, titles take several lines; columns that do not fit even so stand below, beside the first
    `keys` again.
    """
    columns = list(zip(titles, zip(*rows, strict=True), strict=True))
    widths = [max(map(cell_len, [title, *cells])) for title, cells in columns]
    if needed(widths) > out.width:
        widths = [max(map(cell_len, [*title.split(" "), *cells])) for title, cells in columns]
    parts = [list(range(keys))]
    for place in range(keys, len(columns)):
        if len(parts[-1]) > keys and needed(widths[own] for own in [*parts[-1], place]) > out.width:
            parts.append(list(range(keys)))
        parts[-1].append(place)
    for part in parts:
        if part is not parts[0]:
            out.print()
        table = Table(box=None, pad_edge=False)
        for own in part:
            lines = wrap(titles[own], widths[own], break_long_words=False)
            table.add_column("\n".join(lines), overflow="fold")
        for row in rows:
            table.add_row(*(row[own] for own in part))
        out.print(table)


def needed(widths: Iterable[int]) -> int:
    """The width of a table of such columns, two spaces apart."""
    return sum(width + 2 for width in widths) - 2


@contextmanager
def progress_bar() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar


@contextmanager
def stepwise() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar over named steps."""
    with progress_bar() as bar:
        task = bar.add_task("", total=None, facts="")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def speaks_for_all() -> bool:
    """Whether this is the first of the processes that train together, if there are several."""
    return int(os.environ.get("RANK", 0)) == 0


def make_reporter(bar: Progress) -> Reporter:
    from preimage.runs import Plan, Reporter, Validation
    from preimage.training import Progress as Step

    class Terminal(Reporter):
        """Tells the plan, then keeps a bar with images/s, loss, validation NRE and the time left."""

        def planned(self, plan: Plan) -> None:
            tell_left_out(plan.left_out)
            self.batch_size, self.steps = plan.batch_size, plan.steps
            self.nre, self.told = "", time.monotonic()
            if plan.matched_by:
                note(f"features matched to photographs by {plan.matched_by}")
            left = plan.steps - plan.first_step
            note(
                f"{plan.photos} photographs, {plan.validation_photos} for validation, "
                f"{len(plan.left_out)} files left out\n"
                f"features: {shape_in_words(plan.feature_shape)}\n"
                f"decoder: {plan.cost.parameters / 1e6:.2f} M parameters, "
                f"{plan.cost.flops / 1e9:.2f} GFLOP an inversion\n"
                f"training: {left} steps of {plan.batch_size} on {plan.device} in {plan.precision}, "
                f"about {plan.memory / 2**30:.1f} GiB, about {duration(left * plan.seconds_per_step)}, and what "
                "validations take"
            )
            if plan.photos < FEW:
                note(f"{plan.photos} photographs are few: the network will remember them more than learn from them")
            if not plan.validation_photos:
                note(
                    "nothing will tell how good it gets: no photographs are held out (--val PHOTOS, or a tenth of "
                    "those of training by --set photos.held_out=0.1)"
                )
            self.task = bar.add_task("training", total=plan.steps, completed=plan.first_step, facts="")

        def stepped(self, progress: Step) -> None:
            facts = f"{self.batch_size / progress.seconds:.0f} images/s  loss {progress.loss:.4f}  {self.nre}"
            bar.update(self.task, completed=progress.step, facts=facts)
            if not err.is_terminal and time.monotonic() - self.told > SILENCE:
                self.told = time.monotonic()
                note(f"step {progress.step} of {self.steps}: {facts}".rstrip())

        def validated(self, validation: Validation) -> None:
            self.nre = f"NRE {validation.nre:.3f}"
            note(f"step {validation.step}: NRE {plus_minus(validation.nre, validation.nre_sem, 4)} (n={validation.n})")

    return Terminal()


def tell_left_out(left_out: dict[str, str]) -> None:
    for name, why in list(left_out.items())[:LEFT_OUT_TOLD]:
        note(f"left out {name}: {why}")
    if len(left_out) > LEFT_OUT_TOLD:
        note(f"left out {len(left_out) - LEFT_OUT_TOLD} more")


def as_override(layer: str | None) -> list[str]:
    """--layer as the setting it is short for; in quotes, because a layer may be called 6."""
    return [] if layer is None else [f"representation.layer={json.dumps(layer)}"]


def representation_of(name: str, overrides: list[str]) -> Representation:
    from preimage.representations import get_representation

    return get_representation(name, **representation_settings(overrides))


def representation_settings(overrides: list[str]) -> dict[str, Any]:
    """The values of `key=value` and `representation.key=value`."""
    from preimage.config import plain_settings

    return plain_settings(overrides, "representation")


def open_photos(images: list[Path], image_size: int, fit: Fit | None) -> Photos:
    """The photographs a user named; what is left out is told."""
    from preimage.images import Photos

    photos = Photos.open(images, image_size, fit or "crop").load()
    tell_left_out(photos.left_out)
    return photos


def pick_device(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = "" if device.partition(":")[0] in DEVICES else f"; name one of {', '.join(DEVICES)}"
        raise SettingsError(f"device {device!r} cannot be used here{reason}") from error
    return device


def as_argument(folder: Path) -> str:
    """A path as the commands take it: with a slash, so that it is no shipped name, and quoted if need be."""
    return shlex.quote(str(folder) if "/" in str(folder) else f"./{folder}")


def print_evaluation(result: Evaluation, as_json: bool = False) -> None:
    tell_left_out(result.left_out)
    print(to_json(result.to_json()) if as_json else result)


def stop_on_signals() -> Callable[[], bool]:
    """The first Ctrl-C (or SIGTERM) asks for a checkpoint at the next step; the second stops at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        note("stopping after this step, with a checkpoint; once more to stop at once")

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return lambda: bool(asked)
