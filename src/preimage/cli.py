"""The command line: one sub-command is one function of `preimage.api`.

Results go to stdout, progress and notes to stderr. A mistake of the user's is a message and exit code 2, never a
traceback. torch is imported only by the commands that compute.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from preimage.errors import FeatureError, NotShippedError, PreimageError, SettingsError, WeightsWarning

if TYPE_CHECKING:
    from torch import Tensor

    from preimage.evaluation import Evaluation
    from preimage.images import Photos
    from preimage.interfaces import Inverter, Representation
    from preimage.runs import Reporter
    from preimage.zoo_training import Standing

Batches = Iterable[tuple[list[str], "Tensor"]]  # ids, and images (N, 3, H, W) in [0, 1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=("Shows what a visual representation keeps: turns features back into pictures and measures the result."),
)
LEFT_OUT_TOLD = 20  # names that are told one by one

out = Console(emoji=False)  # torch:a:b is a name
err = Console(stderr=True, emoji=False)

Images = Annotated[list[Path], typer.Argument(help="Photographs: files, folders, tar shards or globs of them.")]
SOURCES = "Folder, glob, tar shards, .parquet or hub:NAME; repeatable."
ImagesOption = Annotated[list[str], typer.Option("--images", help=SOURCES)]
TrainImages = Annotated[list[str], typer.Option(help="Photographs for the baselines; a run knows its own.")]
FeaturesOption = Annotated[
    Path | None, typer.Option("--features", help="Saved features (.npy, .npz, .safetensors, .parquet) of --images.")
]
Name = Annotated[str, typer.Option("--representation", "-r", help="hog, ...; see `preimage list`.")]
Layer = Annotated[str | None, typer.Option("--layer", help="Short for --set representation.layer=LAYER.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default a GPU where there is one.")]
FIT = "'crop' the centre square, or squeeze the 'whole' photograph; by default as the run had it, else crop."
FitOption = Annotated[str | None, typer.Option("--fit", help=FIT)]
INVERTERS = "Shipped names (hog), or paths with a slash (./runs/hog)."
Limit = Annotated[int, typer.Option(min=2, help="Only the first so many photographs.")]
BASELINE = "Add gradient-descent or hoggles, or a file that `preimage fit` wrote (./file.safetensors); repeatable."
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def main() -> None:
    """The entry point of the `preimage` command."""
    sys.path.append(str(Path.cwd()))  # where torch: and python: look for code of the user's
    show_notes()
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


def show_notes() -> None:
    """Warnings meant for the user are shown as notes, without a place in the code."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        note(f"note: {message}") if issubclass(category, WeightsWarning) else shown(message, category, *place)

    warnings.showwarning = show  # type: ignore[assignment]


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
    table = plain_table("analyses", "name", "what it asks")
    for name, question in catalogue["analyses"].items():
        table.add_row(name, question)
    out.print(table, "")
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
    features: Annotated[Path | None, typer.Option(help="Invert saved features instead of photographs.")] = None,
    fit: FitOption = None,
    size: Annotated[
        str, typer.Option(help="'own' size of the representation, or the photograph's 'native' one.")
    ] = "own",
    settings: Overrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Features back into pictures: out/NAME.hog.png, and NAME.sheet.png beside the photograph."""
    from preimage import api

    if (images is None) == (features is None):
        raise SettingsError("give either photographs or --features, not both and not neither")
    inverter = api.load_inverter(Path(run) if run else representation, **representation_settings(settings))
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
    from preimage.representations.saved import SavedFeatures, open_table

    representation = inverter.representation
    table = open_table(file, representation.feature_shape)
    own_encoder = representation.encoder if isinstance(representation, SavedFeatures) else representation.fingerprint
    if table.encoder and own_encoder and table.encoder != own_encoder:
        raise FeatureError(
            f"{file} was made by an encoder with fingerprint {table.encoder}, but the inverter reads "
            f"{ {'name': representation.name, **representation.settings} }, fingerprint {own_encoder}: encode again "
            "with the inverter's settings"
        )
    ids = table.ids or [f"{file.stem}-{index:04d}" for index in range(len(table))]
    names = file_names(ids)
    for start in range(0, len(table), 16):
        rows = range(start, min(start + 16, len(table)))
        reconstructions = inverter.invert(torch.from_numpy(table.read(rows)).to(device)).cpu()
        for row, back in zip(rows, reconstructions, strict=True):
            picture = output / f"{names[ids[row]]}.{representation.file_name}.png"
            save_image(back, picture)
            print(picture)


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
    features: FeaturesOption = None,
    steps: Annotated[int | None, typer.Option(help="Budget in steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in passes over the photographs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes, made steps by timing a few.")] = None,
    settings: Overrides = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Decides weights, order and augmentation.")] = 0,
    representation: Annotated[str | None, typer.Option("--representation", "-r", help="Instead of a preset.")] = None,
    layer: Layer = None,
    device: Device = None,
) -> None:
    """Train an inverter into a run folder, or go on with one. Ctrl-C saves a checkpoint first.

    --features takes the place of a preset: features that you have, of the photographs in --images.
    """
    from preimage import api, runs

    if preset is not None and representation is not None:
        raise SettingsError(f"name either a preset ({preset}) or --representation ({representation}), not both")
    preset = preset or representation
    settings = settings + as_override(layer)
    stop = stop_on_signals()
    with progress_bar() as bar:
        reporter = make_reporter(bar)
        if resume is not None:
            if preset or features or images or val or run or settings or steps or epochs or minutes or seed:
                raise SettingsError("--resume goes on with a run's own settings: it takes no others")
            result = runs.resume(resume, device=device, reporter=reporter, should_stop=stop)
        else:
            if (preset is None) == (features is None) or not images or run is None:
                raise SettingsError(
                    "to train, name a preset, --images and --run; or --features, --images and --run; or --resume a run"
                )
            budgets = {"steps": steps, "epochs": epochs, "minutes": minutes}
            overrides = settings + [f"training.{key}={value}" for key, value in budgets.items() if value is not None]
            options: dict[str, Any] = {
                "validation": val,
                "overrides": overrides,
                "seed": seed,
                "device": device,
                "reporter": reporter,
                "should_stop": stop,
            }
            if features is not None:
                result = api.train_saved(features, images, run, **options)
            else:
                result = api.train(str(preset), images, run, **options)
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
    images: ImagesOption = [],  # noqa: B006
    features: FeaturesOption = None,
    train_images: TrainImages = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first so many photographs.")] = None,
    baseline: Annotated[list[str], typer.Option(help=BASELINE)] = [],  # noqa: B006
    baseline_limit: Annotated[int, typer.Option(min=2, help="Photographs for each --baseline, which is slow.")] = 20,
    records: Annotated[Path | None, typer.Option(help="Also write a CSV, a line per photograph and inverter.")] = None,
    fit: FitOption = None,
    settings: Overrides = [],  # noqa: B006
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
            features=features,
            train_images=train_images or None,
            fit=check_fit(fit),
            device=pick_device(device),
            limit=limit,
            settings=representation_settings(settings),
            baselines=baseline,
            baseline_limit=baseline_limit,
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
    print_paired(result)


def print_paired(result: Evaluation) -> None:
    """Rows on fewer photographs than the first one's beside it, on the same photographs."""
    from preimage.evaluation import paired

    main = result.rows[0]
    for row in result.rows:
        if row.n < main.n:
            difference, sem, n = paired(result, row.inverter, main.inverter)
            out.print(f"{row.inverter}: {difference:+.3f} ± {sem:.3f} NRE against {main.inverter} on the same {n}")


@app.command()
def fit(
    inverter: Annotated[str, typer.Argument(help="hoggles, gradient-descent, ridge, nearest or mean-image.")],
    images: ImagesOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    representation: Name = "hog",
    fit: FitOption = None,
    settings: Overrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Fit an inverter that is no network on photographs; its file serves `invert --run` and `evaluate --baseline`.

    --set changes the inverter's settings (windows=20000), or the representation's (representation.cell_size=16).
    """
    from preimage import api

    of_representation = [override for override in settings if override.startswith("representation.")]
    own = plain_settings([override for override in settings if override not in of_representation], "inverter")
    note(f"fitting {inverter} for {representation} ...")
    api.fit_inverter(
        inverter,
        representation_of(representation, of_representation),
        images,
        output,
        settings=own,
        fit=check_fit(fit) or "crop",
        device=pick_device(device),
    )
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB. Next: preimage invert --run {as_argument(output)} ...")


@app.command()
def analyse(
    name: Annotated[str, typer.Argument(help="An analysis (see `preimage list`), several with commas, or 'all'.")],
    inverters: Annotated[list[str], typer.Argument(help=INVERTERS)],
    images: ImagesOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for records and figures.")] = Path("analyses"),
    limit: Limit = 64,
    fit: FitOption = None,
    device: Device = None,
) -> None:
    """What the features keep and what the picture depends on: numbers (CSV, JSON) first, then figures."""
    from preimage import studies
    from preimage.analyses import ANALYSES

    names = list(ANALYSES) if name == "all" else name.split(",")
    where = pick_device(device)
    for inverter in inverters:
        folder = output / studies.file_name(studies.label(inverter))
        with stepwise() as step:
            trial = studies.Trial(images, limit, check_fit(fit), where, step)
            findings = studies.analyse(names, inverter, trial, folder)
        for finding in findings:
            out.print(f"[bold]{finding.analysis}[/]: {escape(finding.question)}", highlight=False)
            out.print(escape(finding.answer or f"does not apply: {finding.reason}"), highlight=False)
            print_table(finding.table)
        note(f"records and figures: {folder}")


@app.command()
def compare(
    inverters: Annotated[list[str], typer.Argument(help=INVERTERS)],
    images: ImagesOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for records and figures.")] = Path("analyses"),
    limit: Limit = 64,
    fit: FitOption = None,
    device: Device = None,
) -> None:
    """Layers or encoders side by side on the same photographs: a table, a figure, a sheet."""
    from preimage import studies

    where = pick_device(device)
    with stepwise() as step:
        finding = studies.compare(inverters, studies.Trial(images, limit, check_fit(fit), where, step), output)
    out.print(finding.answer)
    print_table(finding.table)
    note(f"records and figures: {output / finding.analysis}")


@app.command()
def report(
    inverters: Annotated[list[str], typer.Argument(help=INVERTERS)],
    images: ImagesOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    analyses: Annotated[str, typer.Option(help="Analyses with commas, 'all' or 'none'.")] = "all",
    limit: Limit = 64,
    fit: FitOption = None,
    device: Device = None,
) -> None:
    """One self-contained page: how it was made, the table with baselines, sheets, every analysis."""
    from preimage import studies

    chosen = {"all": None, "none": []}.get(analyses, analyses.split(","))
    where = pick_device(device)
    with stepwise() as step:
        trial = studies.Trial(images, limit, check_fit(fit), where, step)
        page = studies.write_report(inverters, trial, output, chosen)
    print(page)
    note(f"records and figures: {page.with_suffix('')}")


@app.command()
def reproduce(
    items: Annotated[list[str] | None, typer.Argument(help="table1, fig3, ...; all of them by default.")] = None,
    images: ImagesOption = [],  # noqa: B006
    run: Annotated[list[str], typer.Option(metavar="NAME=PATH", help="Another inverter; repeatable.")] = [],  # noqa: B006
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("reproduce.html"),
    limit: Limit = 64,
    fit: FitOption = None,
    device: Device = None,
) -> None:
    """The paper's tables and figures beside what is measured here, on one page."""
    from preimage import reproduce as own
    from preimage.studies import Trial

    if not images:
        raise SettingsError(f"name the photographs to measure on: --images PHOTOS. There are: {', '.join(own.ITEMS)}")
    named = dict(one.partition("=")[::2] for one in run)
    where = pick_device(device)
    with stepwise() as step:
        study = own.Study(Trial(images, limit, check_fit(fit), where, step), output.with_suffix(""), named)
        print(own.reproduce(items or [], study, output))


def print_table(records: list[dict[str, Any]]) -> None:
    """Records as a table; a value and its standard error share a column."""
    from preimage.report import cells

    if not records:
        return
    columns, rows = cells(records)
    table = plain_table("", *columns)
    for row in rows:
        table.add_row(*row)
    out.print(table)


@contextmanager
def stepwise() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar over named steps."""
    with progress_bar() as bar:
        task = bar.add_task("", total=None, facts="")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


@app.command()
def audit(
    features: Annotated[Path, typer.Option(help="Saved features: .npy, .npz, .safetensors or .parquet.")],
    images: ImagesOption,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The .html page to write.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Attackers and controls alone: no curve, no defences.")
    ] = False,
    test_features: Annotated[Path | None, typer.Option(help="Features to be judged on, not a random split.")] = None,
    test_images: Annotated[list[str], typer.Option(help="The photographs of --test-features.")] = [],  # noqa: B006
    labels: Annotated[Path | None, typer.Option(help="Classes: CSV lines of photograph,class.")] = None,
    size: Annotated[int, typer.Option(help="Pixels: the photographs' side.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Of a network's training, at most.")] = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Judge on near duplicates too.")] = False,
    seed: Annotated[int, typer.Option(help="Decides the split, weights, order and noise.")] = 0,
    fit: FitOption = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """How much of a photo saved features give away: attackers, controls, and what defences are worth."""
    if output is not None and output.suffix not in (".html", ".htm"):
        raise SettingsError(f"an audit is written as .html, not {output}")
    from preimage.audit import AuditSettings, judge_features
    from preimage.audit_page import write_page

    settings = AuditSettings(
        quick=quick,
        image_size=size,
        steps=steps or (600 if quick else 1500),
        seed=seed,
        keep_duplicates=keep_duplicates,
    )
    with progress_bar() as bar:
        task = bar.add_task("reading", total=None, facts="")
        result = judge_features(
            features,
            images,
            test_features=test_features,
            test_images=test_images or None,
            labels=labels,
            settings=settings,
            fit=check_fit(fit) or "crop",
            device=pick_device(device),
            on_progress=lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total),
        )
    note(f"features matched to photographs by {result.content['matched_by']}")
    tell_left_out(result.content["left_out"])
    duplicates = result.content["near_duplicates"]
    if found := len(duplicates["found"]):
        note(f"{found} test photographs are near duplicates: {'removed' if duplicates['removed'] else 'kept'}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_page(result, output)
        note(f"page: {output}")
    print_audit(result.content, as_json)


def print_audit(content: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(content, indent=2))
        return
    table = plain_table("", "attacker", "NRE ↓", "SSIM ↑", "right one of all", "at 1 % false", "colour error ↓")
    for row in content["rows"]:
        table.add_row(
            row["attacker"],
            f"{row['nre']:.3f} ± {row['nre_sem']:.3f}",
            f"{row['ssim']:.3f} ± {row['ssim_sem']:.3f}",
            f"{row['top1']:.1%} (chance {row['top1_chance']:.1%})",
            f"{row['true_match_rate']:.1%}",
            f"{row['colour_error']:.1f}",
        )
    out.print(f"{content['n_train']} training and {content['n_test']} test pairs, {content['image_size']} pixels")
    out.print(table)
    for sentence in content["summary"]:
        out.print(sentence, soft_wrap=True, highlight=False, markup=False)


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
def confidence(
    inverter: Annotated[str, typer.Argument(help="A shipped name (hog), or a path with a slash (./runs/hog).")],
    images: ImagesOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of 16 photographs.")] = 1000,
    fit: FitOption = None,
    seed: Annotated[int, typer.Option(help="Decides weights and order.")] = 0,
    device: Device = None,
) -> None:
    """Learn how far off each pixel is, and write the inverter with it; reconstructions stay as they are."""
    from preimage import api

    with progress_bar() as bar:
        task = bar.add_task("fitting", total=None, facts="")
        api.fit_confidence(
            inverter,
            images,
            output,
            steps=steps,
            fit=check_fit(fit),
            seed=seed,
            device=pick_device(device),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page.")] = Path("demo"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Invert four sample photographs with everything that ships; writes one page, index.html, to look at."""
    from preimage import demo as exhibition

    where = pick_device(device)
    exhibits = exhibition.show(output, device=where, tell=note)
    if as_json:
        print(json.dumps({exhibit.name: exhibit.evaluation.to_json() for exhibit in exhibits}, indent=2))
    else:
        for exhibit in exhibits:
            print_evaluation(exhibit.evaluation)
            out.print()
    note(f"page: {output / 'index.html'}")


@app.command()
def results(
    output: Annotated[Path, typer.Option("--output", "-o", help="The Markdown file.")] = Path("docs/results.md"),
    sheets: Annotated[Path | None, typer.Option(help="Folder for sheets of your own photographs.")] = None,
    images: Annotated[list[str], typer.Option("--images", help=f"Photographs for --sheets. {SOURCES}")] = [],  # noqa: B006
    settings: Overrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Write the page of results from the cards of what ships, pictures included."""
    from preimage import results as page

    if (sheets is None) != (not images):
        raise SettingsError("--sheets FOLDER and --images PHOTOS go together")
    where, given = pick_device(device), representation_settings(settings)
    print(page.write(output, settings=given, device=where, tell=note))
    if sheets is not None:
        for file in page.draw_sheets(sheets, images, settings=given, device=where, tell=note):
            print(file)


# --- the zoo ----------------------------------------------------------------------------------------------------------

zoo_app = typer.Typer(no_args_is_help=True, help="The inverters that come with the package: make, describe, verify.")
app.add_typer(zoo_app, name="zoo")

Names = Annotated[list[str] | None, typer.Argument(help="Which ones; by default all.")]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder of the run folders.")]
NAMED = "Change a setting, of all or of one (NAME:KEY=VALUE); repeatable."


@zoo_app.command("train")
def zoo_train(
    names: Names = None,
    images: ImagesOption = [],  # noqa: B006
    val: Annotated[list[str], typer.Option("--val", help="Validation photographs, as --images.")] = [],  # noqa: B006
    runs: RunsFolder = Path("runs"),
    settings: Annotated[list[str], typer.Option("--set", metavar="[NAME:]KEY=VALUE", help=NAMED)] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Decides weights, order and augmentation.")] = 0,
    device: Device = None,
) -> None:
    """Train all that ships by its presets; skips what is finished, goes on with what was begun. Ctrl-C saves first."""
    from preimage import zoo_training

    if not images:
        raise SettingsError("to train, name --images (and --val)")
    stop = stop_on_signals()
    with progress_bar() as bar:
        standings = zoo_training.train_zoo(
            names or [],
            images,
            runs,
            validation=val,
            overrides=settings,
            seed=seed,
            device=device,
            reporter=make_reporter(bar),
            on_begin=lambda name, action: note(f"{name}: {ACTIONS[action]}"),
            should_stop=stop,
        )
    if int(os.environ.get("RANK", 0)) != 0:
        return
    out.print(standings_table(standings))
    failed = [one for one in standings if one.state == "failed"]
    for one in failed:
        note(f"{one.name} failed: {one.reason}")
    if stop():
        note("stopped; the same command goes on where each one stands")
        sys.exit(130)
    if failed:
        sys.exit(1)


ACTIONS = {"train": "training", "resume": "going on", "skip": "finished already"}


def standings_table(standings: Sequence[Standing]) -> Table:
    table = plain_table("", "inverter", "NRE ↓", "steps", "time", "images/s", "waiting", "float16", "")
    for one in standings:
        table.add_row(
            one.name,
            "" if one.nre is None else f"{one.nre:.3f} ± {one.nre_sem:.3f}",
            str(one.step) if one.step == one.steps else f"{one.step} of {one.steps or '?'}",
            duration(one.seconds),
            "" if one.images_per_second is None else f"{one.images_per_second:.0f}",
            "" if one.waiting is None else f"{100 * one.waiting:.0f} %",
            "" if one.size_bytes is None else f"{one.size_bytes / 2**20:.1f} MiB",
            one.state,
        )
    return table


@zoo_app.command("export")
def zoo_export(
    names: Names = None,
    runs: RunsFolder = Path("runs"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files and their cards.")] = Path("zoo"),
    licence: Annotated[str, typer.Option(help="What whoever gets the files may do with them.")] = "",
    remark: Annotated[str, typer.Option("--note", help="What a reader of the numbers must know.")] = "",
    device: Device = None,
) -> None:
    """Finished runs -> files of inverters in float16, each with its card, as the package holds them."""
    from preimage import zoo_training

    for file in zoo_training.export_zoo(
        names or [],
        runs,
        output,
        licence=licence,
        note=remark,
        device=pick_device(device),
        on_begin=lambda name: note(f"{name}: fitting its baselines, measuring the file"),
    ):
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


@zoo_app.command("list")
def zoo_list(as_json: AsJson = False) -> None:
    """What ships, by its cards; what is meant to and does not yet."""
    from preimage import zoo

    cards = {name: zoo.card(name) for name in zoo.shipped()}
    if as_json:
        print(json.dumps(cards, indent=2))
        return
    table = plain_table(
        "", "shipped", "NRE ↓", "PSNR, dB ↑", "SSIM ↑", "n", "trained on", "steps", "time", "with", "size"
    )
    for name, card in cards.items():
        row, training = card["evaluation"]["rows"][0], card["training"]
        table.add_row(
            name,
            *(f"{row[key]:.{places}f} ± {row[f'{key}_sem']:.{places}f}" for key, places in METRIC_PLACES.items()),
            str(row["n"]),
            f"{card['photos']['n']} photographs",
            str(training["steps"]),
            duration(training["seconds"]),
            card["made_with"]["device"],
            f"{card['size_bytes'] / 2**20:.1f} MiB",
        )
    out.print(table)
    for name, card in cards.items():
        if card.get("note"):
            out.print(f"{name}: {card['note']}", highlight=False)
    missing = [name for name in zoo.PLANNED if name not in cards]
    if missing:
        out.print(f"not yet: {', '.join(missing)}", highlight=False)
    for licence in dict.fromkeys(card["licence"] for card in cards.values()):
        out.print(f"licence: {licence}", highlight=False)


METRIC_PLACES = {"nre": 3, "psnr": 2, "ssim": 3}


@zoo_app.command("check")
def zoo_check(
    folder: Annotated[Path | None, typer.Argument(help="By default what ships.")] = None,
    settings: Overrides = [],  # noqa: B006
) -> None:
    """Verify hash, card, size and probe of every file; exit code 1 where something is wrong."""
    from preimage import zoo

    found = zoo.check(folder, representation_settings(settings))
    table = plain_table("", "file", "size", "problems", "notes")
    for one in found:
        table.add_row(
            one.name, f"{one.size_bytes / 2**20:.1f} MiB", "; ".join(one.problems) or "none", "; ".join(one.notes)
        )
    out.print(table)
    if any(one.problems for one in found):
        sys.exit(1)


# --- shared -----------------------------------------------------------------------------------------------------------


def as_override(layer: str | None) -> list[str]:
    """--layer as the setting it is short for; in quotes, because a layer may be called 6."""
    return [] if layer is None else [f"representation.layer={json.dumps(layer)}"]


def representation_of(name: str, overrides: list[str]) -> Representation:
    from preimage.representations import get_representation

    return get_representation(name, **representation_settings(overrides))


def representation_settings(overrides: list[str]) -> dict[str, Any]:
    """The values of `key=value` and `representation.key=value`."""
    return plain_settings(overrides, "representation")


def plain_settings(overrides: list[str], owner: str) -> dict[str, Any]:
    """The values of `key=value` and `owner.key=value`."""
    from preimage.config import parse_override

    values = {}
    for override in overrides:
        section, key, value = parse_override(override)
        if section not in ("", owner):
            raise SettingsError(f"only settings of the {owner} can be set here, not {override!r}")
        values[key] = value
    return values


def open_photos(images: list[Path], image_size: int, fit: str | None) -> Photos:
    """The photographs a user named; what is left out is told."""
    from preimage.images import Photos

    photos = Photos.open(images, image_size, check_fit(fit) or "crop").load()
    tell_left_out(photos.left_out)
    return photos


def tell_left_out(left_out: dict[str, str]) -> None:
    for name, why in list(left_out.items())[:LEFT_OUT_TOLD]:
        note(f"left out {name}: {why}")
    if len(left_out) > LEFT_OUT_TOLD:
        note(f"left out {len(left_out) - LEFT_OUT_TOLD} more")


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
            if plan.matched_by:
                note(f"features matched to photographs by {plan.matched_by}")
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
