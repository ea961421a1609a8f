"""The command line: one sub-command is one function of `preimage.api`.

Results go to stdout, progress and notes to stderr. A mistake of the user's is a message and exit code 2, never a
traceback. torch is imported only by the commands that compute.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from preimage.errors import FeatureError, NotShippedError, PreimageError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from preimage.evaluation import Evaluation
    from preimage.images import Photos
    from preimage.interfaces import Inverter, Representation
    from preimage.runs import Reporter

Batches = Iterable[tuple[list[str], "Tensor"]]  # ids, and images (N, 3, H, W) in [0, 1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=("Shows what a visual representation keeps: turns features back into pictures and measures the result."),
)
out = Console(emoji=False)  # torch:a:b is a name
err = Console(stderr=True, emoji=False)

Images = Annotated[list[Path], typer.Argument(help="Photographs: files, folders, tar shards or globs of them.")]
SOURCES = "Folder, glob, tar shards, .parquet or hub:NAME; repeatable."
ImagesOption = Annotated[list[str], typer.Option("--images", help=SOURCES)]
TrainImages = Annotated[list[str], typer.Option(help="Photographs for the baselines; a run knows its own.")]
Name = Annotated[str, typer.Option("--representation", "-r", help="hog, ...; see `preimage list`.")]
Layer = Annotated[str | None, typer.Option("--layer", help="Short for --set representation.layer=LAYER.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default a GPU where there is one.")]
FIT = "'crop' the centre square, or squeeze the 'whole' photograph; by default as the run had it, else crop."
FitOption = Annotated[str | None, typer.Option("--fit", help=FIT)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def main() -> None:
    """The entry point of the `preimage` command."""
    sys.path.append(str(Path.cwd()))  # where torch: and python: look for code of the user's
    try:
        app()
    except NotShippedError as error:
        fail(f"{error} ({training_time(error.name)})")
    except PreimageError as error:
        fail(str(error))
    except OSError as error:
        if os.environ.get("PREIMAGE_DEBUG"):
            raise
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def fail(message: str) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(2)


def training_time(name: str) -> str:
    from preimage import api

    note(f"trying some steps of training for {name} ...")
    try:
        return api.training_time(name)
    except PreimageError as error:
        return f"how long that takes cannot be told yet: {error}"


def escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def note(text: str) -> None:
    err.print(escape(text), highlight=False, soft_wrap=True)


# --- what there is ----------------------------------------------------------------------------------------------------


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """Representations, decoders, inverters, presets, and what ships with the package."""
    from preimage import api

    catalogue = api.catalogue()
    if as_json:
        print(json.dumps(catalogue, indent=2))
        return
    table = plain_table("representations", "name", "features", "of images", "gradients", "source")
    for name, facts in catalogue["representations"].items():
        if facts["feature_shape"] is not None:
            size = " x ".join(map(str, facts["feature_shape"]))
            gradients = "yes" if facts["differentiable"] else "no"
            table.add_row(name, size, f"{facts['image_size']} px", gradients, facts["source"])
    out.print(table)
    missing: dict[str, list[str]] = {}
    for name, facts in catalogue["representations"].items():
        if facts["feature_shape"] is None:
            missing.setdefault(facts["source"], []).append(name)
    for needs, names in missing.items():
        out.print(f"{names[0]} ... {names[-1].partition('.')[2]}: {needs}")
    out.print()
    for kind in ("doors", "decoders", "inverters"):
        table = plain_table(kind, "name", "what it is")
        for name, description in catalogue[kind].items():
            table.add_row(name, description)
        out.print(table, "")
    out.print(f"analyses: {', '.join(catalogue['analyses']) or 'none in this version'}")
    out.print(f"presets: {', '.join(catalogue['presets'])}\n")
    table = plain_table("inverters that come with the package", "shipped", "size", "trained on", "NRE")
    for name, entry in catalogue["shipped"].items():
        nre = f"{entry['nre']:.3f} ± {entry['nre_sem']:.3f} (n={entry['n']})"
        table.add_row(name, f"{entry['size_bytes'] / 2**20:.1f} MiB", entry["trained_on"], nre)
    out.print(table)


def plain_table(title: str, first: str, *columns: str) -> Table:
    """A table without lines whose first column is never cut."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column)
    return table


@app.command()
def weights(
    action: Annotated[str, typer.Argument(help="'list', or 'get' to download.")],
    name: Annotated[str | None, typer.Argument(help="alexnet, bvlc_alexnet or caffenet.")] = None,
) -> None:
    """Published weights of networks: what there is, and fetching it. Nothing else ever downloads any."""
    from preimage.networks.weights import PUBLISHED, fetch

    if action == "list" and name is None:
        table = plain_table("published weights", "name", "MB", "licence", "from", "here")
        for known, own in PUBLISHED.items():
            table.add_row(known, str(own.megabytes), own.licence, own.url, "yes" if own.file.exists() else "no")
        out.print(table)
    elif action == "get" and name is not None:
        if name in PUBLISHED:
            own = PUBLISHED[name]
            note(f"{own.url}: {own.megabytes} MB, licence: {own.licence}; to {own.file}")
        with progress_bar() as bar:
            task = bar.add_task("downloading", total=None, facts="")
            print(fetch(name, lambda done, total: bar.update(task, completed=done, total=total)))
    else:
        raise SettingsError(f"say `preimage weights list`, or `preimage weights get NAME` ({', '.join(PUBLISHED)})")


# --- encode and invert ------------------------------------------------------------------------------------------------


@app.command()
def encode(
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file to write; its settings go beside it.")],
    representation: Name = "hog",
    layer: Layer = None,
    fit: FitOption = None,
    settings: Overrides = [],  # noqa: B006 (typer reads it, nobody changes it)
    device: Device = None,
) -> None:
    """Features of photographs: an array (N, ...) and, beside it, their shape and settings as JSON."""
    import numpy as np

    from preimage.pairs import EncodedPhotos

    if output.suffix != ".npy":
        raise SettingsError(f"features are written as .npy, not {output}")
    output.parent.mkdir(parents=True, exist_ok=True)
    chosen = representation_of(representation, settings + as_override(layer))
    photos = open_photos(images, chosen.image_size, fit)
    pairs = EncodedPhotos(chosen, photos, device=pick_device(device))
    arrays = []
    for batch in pairs:
        tell_empty(batch.ids, batch.features)
        arrays.append(batch.features.cpu().numpy())
    features = np.concatenate(arrays)
    np.save(output, features)
    sidecar(output).write_text(
        json.dumps(
            {
                "representation": {"name": chosen.name, **chosen.settings},
                "fingerprint": chosen.fingerprint,
                "shape": features.shape,
                "ids": photos.ids,
                "fit": photos.fit,
            },
            indent=2,
        )
        + "\n"
    )
    print(f"{output}: {' x '.join(map(str, features.shape))} {features.dtype}, settings in {sidecar(output).name}")


@app.command()
def invert(
    images: Annotated[list[Path] | None, typer.Argument(help="Photographs to encode and invert.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("out"),
    representation: Name = "hog",
    run: Annotated[str | None, typer.Option(help="A run folder or .safetensors file, not a shipped inverter.")] = None,
    features: Annotated[Path | None, typer.Option(help="Invert saved features (.npy) instead of photographs.")] = None,
    fit: FitOption = None,
    size: Annotated[
        str, typer.Option(help="'own' size of the representation, or the photograph's 'native' one.")
    ] = "own",
    device: Device = None,
) -> None:
    """Features back into pictures: out/NAME.hog.png, and NAME.sheet.png beside the photograph."""
    from preimage import api

    if (images is None) == (features is None):
        raise SettingsError("give either photographs or --features, not both and not neither")
    inverter = api.load_inverter(Path(run) if run else representation)
    fit = fit or (api.fit_of(Path(run)) if run else None)
    output.mkdir(parents=True, exist_ok=True)
    if features is not None:
        invert_features(inverter, features, output, pick_device(device))
        return
    assert images is not None
    if size == "native":
        ids, batches = native_batches(images, inverter.representation.grid)
    elif size == "own":
        photos = open_photos(images, inverter.representation.image_size, fit)
        ids, batches = photos.ids, photos.batches(16)
    else:
        raise SettingsError(f"--size is 'own' or 'native', not {size!r}")
    invert_photos(inverter, batches, file_names(ids), output, pick_device(device))


def invert_photos(inverter: Inverter, batches: Batches, names: dict[str, str], output: Path, device: str) -> None:
    from preimage.evaluation import sheet_columns
    from preimage.figures import sheet
    from preimage.images import save_image

    representation = inverter.representation
    for ids, images in batches:
        features = representation.encode(images.to(device))
        tell_empty(ids, features)
        reconstructions = inverter.invert(features).cpu()
        columns = sheet_columns(representation, images, features.cpu(), reconstructions)
        for index, name in enumerate(ids):
            picture, beside = (output / f"{names[name]}.{kind}.png" for kind in (representation.file_name, "sheet"))
            save_image(reconstructions[index], picture)
            sheet({title: each[index : index + 1] for title, each in columns.items()}, beside)
            print(f"{picture}\n{beside}")


def tell_empty(ids: list[str], features: Tensor) -> None:
    for name, one in zip(ids, features, strict=True):
        if not one.any():
            note(f"{name}: all features are zero (no keypoint, or nothing but one colour); its picture is a guess")


def native_batches(images: list[Path], grid: int | None) -> tuple[list[str], Batches]:
    """Ids, and one photograph at a time at its own size."""
    from preimage.images import decode, find_photos, to_tensor, whole

    if grid is None:
        raise SettingsError("--size native needs a representation on a grid, such as hog or lbp")
    found = find_photos(images)
    tell_left_out(found.left_out)
    photos = found.photos
    batches = (([photo.id], to_tensor([whole(decode(photo.read(), photo.id), grid)])) for photo in photos)
    return [photo.id for photo in photos], batches


def invert_features(inverter: Inverter, file: Path, output: Path, device: str) -> None:
    import torch

    from preimage.images import save_image

    name = inverter.representation.name
    array, described = read_features(file)
    if described and described["fingerprint"] != inverter.representation.fingerprint:
        raise FeatureError(
            f"{file} was made by {described['representation']}, but the inverter reads "
            f"{ {'name': name, **inverter.representation.settings} }: encode again with the inverter's settings"
        )
    features = torch.from_numpy(array)
    if features.ndim == len(inverter.representation.feature_shape):
        features = features[None]
    numbered = [f"{file.stem}-{index:04d}" for index in range(len(features))]
    ids = described["ids"] if described and len(described["ids"]) == len(features) else numbered
    names = file_names(ids)
    for start in range(0, len(features), 16):
        reconstructions = inverter.invert(features[start : start + 16].to(device)).cpu()
        for own, back in zip(ids[start : start + 16], reconstructions, strict=True):
            picture = output / f"{names[own]}.{inverter.representation.file_name}.png"
            save_image(back, picture)
            print(picture)


def read_features(file: Path) -> tuple[Any, dict[str, Any] | None]:
    """A .npy array as float32, and what `encode` wrote beside it, if it did."""
    import numpy as np

    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FeatureError(f"{file} cannot be read as a .npy array: {error}") from error
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.number):
        raise FeatureError(
            f"{file} holds {getattr(array, 'dtype', 'several arrays')}, expected one .npy array of numbers"
        )
    described = None
    if sidecar(file).exists():
        try:
            described = json.loads(sidecar(file).read_text())
            assert {"representation", "fingerprint", "ids"} <= described.keys()
        except (ValueError, AssertionError, AttributeError) as error:
            raise FeatureError(
                f"{sidecar(file)} is not what `preimage encode` writes: remove it, or encode again"
            ) from error
    return array.astype(np.float32), described


def sidecar(file: Path) -> Path:
    return file.with_name(file.name + ".json")


# --- train and evaluate -----------------------------------------------------------------------------------------------


@app.command()
def train(
    preset: Annotated[str | None, typer.Argument(help="hog, ...: the preset to start from.")] = None,
    images: ImagesOption = [],  # noqa: B006
    val: Annotated[list[str], typer.Option("--val", help="Validation photographs, as --images.")] = [],  # noqa: B006
    run: Annotated[Path | None, typer.Option(help="The new run folder.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in passes over the photographs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes, made steps by timing a few.")] = None,
    settings: Overrides = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Decides weights, order and augmentation.")] = 0,
    representation: Annotated[str | None, typer.Option("--representation", "-r", help="Instead of a preset.")] = None,
    layer: Layer = None,
    device: Device = None,
) -> None:
    """Train an inverter into a run folder, or go on with one. Ctrl-C saves a checkpoint first."""
    from preimage import api, runs

    if preset is not None and representation is not None:
        raise SettingsError(f"name either a preset ({preset}) or --representation ({representation}), not both")
    preset = preset or representation
    settings = settings + as_override(layer)
    stop = stop_on_signals()
    with progress_bar() as bar:
        reporter = make_reporter(bar)
        if resume is not None:
            if preset or images or val or run or settings or steps or epochs or minutes or seed:
                raise SettingsError("--resume goes on with a run's own settings: it takes no others")
            result = runs.resume(resume, device=device, reporter=reporter, should_stop=stop)
        else:
            if preset is None or not images or run is None:
                raise SettingsError("to train, name a preset, --images and --run; or --resume a run")
            budgets = {"steps": steps, "epochs": epochs, "minutes": minutes}
            overrides = settings + [f"training.{key}={value}" for key, value in budgets.items() if value is not None]
            result = api.train(
                preset,
                images,
                run,
                validation=val,
                overrides=overrides,
                seed=seed,
                device=device,
                reporter=reporter,
                should_stop=stop,
            )
    if int(os.environ.get("RANK", 0)) != 0:
        return  # one process speaks for all
    total = result.settings.training.steps
    if result.step != total:
        note(f"stopped at step {result.step} of {total}; go on with: preimage train --resume {result.folder}")
        sys.exit(130)
    print(f"{result.folder}: {total} steps done. Next: preimage evaluate {as_argument(result.folder)} --images ...")


def as_argument(folder: Path) -> str:
    """A path as the commands take it: with a slash, so that it is no shipped name."""
    return str(folder) if "/" in str(folder) else f"./{folder}"


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


@app.command()
def evaluate(
    inverter: Annotated[str, typer.Argument(help="A shipped name (hog), or a path with a slash (./runs/hog).")],
    images: ImagesOption,
    train_images: TrainImages = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first so many photographs.")] = None,
    records: Annotated[Path | None, typer.Option(help="Also write a CSV, a line per photograph and inverter.")] = None,
    fit: FitOption = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """NRE, PSNR and SSIM beside the mean image, the nearest neighbour, ridge regression and the control."""
    from preimage import api

    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=None, facts="")
        result = api.evaluate(
            inverter,
            images,
            train_images=train_images or None,
            fit=check_fit(fit),
            device=pick_device(device),
            limit=limit,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_evaluation(result, as_json)
    if records is not None:
        records.parent.mkdir(parents=True, exist_ok=True)
        records.write_text(result.records_csv())


def print_evaluation(result: Evaluation, as_json: bool = False) -> None:
    tell_left_out(result.left_out)
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    table = plain_table("", "inverter", "NRE ↓", "PSNR, dB ↑", "SSIM ↑", "n")
    for row in result.rows:
        table.add_row(
            row.inverter,
            f"{row.nre:.3f} ± {row.nre_sem:.3f}",
            f"{row.psnr:.2f} ± {row.psnr_sem:.2f}",
            f"{row.ssim:.3f} ± {row.ssim_sem:.3f}",
            str(row.n),
        )
    out.print(f"{result.representation}: {result.n} photographs at {result.image_size} pixels, {result.images}")
    out.print(table)
    out.print(
        f"± standard error; NRE is relative to N = {result.pairwise_distance:.1f}, the mean distance of two of them"
    )
    fitted: dict[str, list[str]] = {}
    for row in result.rows:
        fitted.setdefault(row.fitted_on, []).append(row.inverter)
    for words, names in fitted.items():
        fit_to_say = names[0] not in ("other-image", "decoder-size")
        out.print(f"{', '.join(names)}: {'fitted on ' if fit_to_say else ''}{words}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    licence: Annotated[str, typer.Option(help="What whoever gets the file may do with it.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Keep float32 instead of float16.")] = False,
    device: Device = None,
) -> None:
    """A run's inverter, with its mean image and ridge regression, as one file to pass on, and a card of facts."""
    from preimage import zoo

    card = zoo.export(run, output, licence=licence, half=not full, device=pick_device(device))
    print(f"{output}: {card['size_bytes'] / 2**20:.1f} MiB, card in {output.with_suffix('.json').name}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("demo"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Invert four sample photographs with the shipped HOG inverter; writes a sheet and prints the table."""
    from preimage import api
    from preimage.evaluation import draw_sheet

    output.mkdir(parents=True, exist_ok=True)
    where = pick_device(device)
    result = api.evaluate("hog", api.sample_files(), described="scikit-image's samples", device=where)
    draw_sheet(api.load_inverter("hog"), api.sample_photos(), output / "hog.png", device=where)
    print_evaluation(result, as_json)
    note(f"pictures: {output / 'hog.png'}")


# --- shared -----------------------------------------------------------------------------------------------------------


def as_override(layer: str | None) -> list[str]:
    """--layer as the setting it is short for; in quotes, because a layer may be called 6."""
    return [] if layer is None else [f"representation.layer={json.dumps(layer)}"]


def representation_of(name: str, overrides: list[str]) -> Representation:
    from preimage.config import parse_override
    from preimage.representations import get_representation

    values = {}
    for override in overrides:
        section, key, value = parse_override(override)
        if section not in ("", "representation"):
            raise SettingsError(f"only settings of the representation can be set here, not {override!r}")
        values[key] = value
    return get_representation(name, **values)


def open_photos(images: list[Path], image_size: int, fit: str | None) -> Photos:
    """The photographs a user named; what is left out is told."""
    from preimage.images import Photos

    photos = Photos.open(images, image_size, check_fit(fit) or "crop").load()
    tell_left_out(photos.left_out)
    return photos


def tell_left_out(left_out: dict[str, str]) -> None:
    for name, why in left_out.items():
        note(f"left out {name}: {why}")


def check_fit(fit: str | None) -> Any:
    if fit not in ("crop", "whole", None):
        raise SettingsError(f"--fit is 'crop' or 'whole', not {fit!r}")
    return fit


def pick_device(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def file_names(ids: list[str]) -> dict[str, str]:
    """Ids -> names for files: folders become part of the name, suffixes are kept only where they tell two apart."""
    flat = {own: own.strip("/").replace("/", "_").replace("\\", "_").replace(":", "_") for own in ids}
    stems = {own: name.removesuffix(Path(name).suffix) for own, name in flat.items()}
    return stems if len(set(stems.values())) == len(stems) else flat


@contextmanager
def progress_bar() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar


def make_reporter(bar: Progress) -> Reporter:
    from preimage.runs import Plan, Reporter, Validation
    from preimage.training import Progress as Step

    class Terminal(Reporter):
        """Tells the plan, then keeps a bar with images/s, loss, validation NRE and the time left."""

        def planned(self, plan: Plan) -> None:
            tell_left_out(plan.left_out)
            self.batch_size = plan.batch_size
            self.nre = ""
            left = plan.steps - plan.first_step
            note(
                f"{plan.photos} photographs, {plan.validation_photos} for validation, "
                f"{len(plan.left_out)} files left out\n"
                f"decoder: {plan.cost.parameters / 1e6:.2f} M parameters, "
                f"{plan.cost.flops / 1e9:.2f} GFLOP an inversion\n"
                f"training: {left} steps of {plan.batch_size} on {plan.device} in {plan.precision}, "
                f"about {plan.memory / 2**30:.1f} GiB, about {duration(left * plan.seconds_per_step)}"
            )
            self.task = bar.add_task("training", total=plan.steps, completed=plan.first_step, facts="")

        def stepped(self, progress: Step) -> None:
            bar.update(
                self.task,
                completed=progress.step,
                facts=(f"{self.batch_size / progress.seconds:.0f} images/s  loss {progress.loss:.4f}  {self.nre}"),
            )

        def validated(self, validation: Validation) -> None:
            self.nre = f"NRE {validation.nre:.3f}"
            note(f"step {validation.step}: NRE {validation.nre:.4f} ± {validation.nre_sem:.4f} (n={validation.n})")

    return Terminal()


def duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
