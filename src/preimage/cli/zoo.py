"""What ships with the package, shown and made: demo, results, zoo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from preimage.cli.terminal import (
    SOURCES,
    AsJson,
    Baselines,
    Device,
    ImagesOption,
    Limit,
    NamedOverrides,
    Seed,
    Val,
    app,
    make_reporter,
    note,
    out,
    pick_device,
    plain_table,
    print_evaluation,
    progress_bar,
    speaks_for_all,
    stop_on_signals,
    to_file,
    to_folder,
)
from preimage.defaults import BASELINE_LIMIT
from preimage.errors import SettingsError
from preimage.plain import to_json
from preimage.words import duration, mebibytes, plus_minus

if TYPE_CHECKING:
    from preimage.zoo_training import Standing

zoo_app = typer.Typer(no_args_is_help=True, help="The inverters that come with the package: make, describe, verify.")
app.add_typer(zoo_app, name="zoo")

Names = Annotated[list[str] | None, typer.Argument(help="Which ones; by default all.")]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder of the run folders.")]

ACTIONS = {"train": "training", "resume": "going on", "skip": "finished already", "busy": "another process has it"}


@app.command()
def demo(
    output: Annotated[Path, to_folder("Folder for the page.")] = Path("demo"),
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Invert four sample photographs with everything that ships; writes one page, index.html, to look at."""
    from preimage import demo as exhibition

    where = pick_device(device)
    exhibits = exhibition.show(output, overrides=overrides, device=where, tell=note)
    if as_json:
        print(to_json({exhibit.name: exhibit.evaluation.to_json() for exhibit in exhibits}))
    else:
        for exhibit in exhibits:
            print_evaluation(exhibit.evaluation)
            out.print()
    note(f"page: {output / 'index.html'}")


@app.command()
def results(
    output: Annotated[Path, to_file("The Markdown file.")] = Path("docs/results.md"),
    sheets: Annotated[Path | None, typer.Option(help="Folder for sheets of your own photographs.")] = None,
    images: Annotated[list[str], typer.Option("--images", help=f"Photographs for --sheets. {SOURCES}")] = [],  # noqa: B006
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Write the page of results from the cards of what ships, pictures included."""
    from preimage import results as page

    if (sheets is None) != (not images):
        raise SettingsError("--sheets FOLDER and --images PHOTOS go together")
    where = pick_device(device)
    print(page.write(output, overrides=overrides, device=where, tell=note))
    if sheets is not None:
        for file in page.draw_sheets(sheets, images, overrides=overrides, device=where, tell=note):
            print(file)


@zoo_app.command("train")
def zoo_train(
    names: Names = None,
    images: ImagesOption = [],  # noqa: B006
    val: Val = [],  # noqa: B006
    runs: RunsFolder = Path("runs"),
    overrides: NamedOverrides = [],  # noqa: B006
    seed: Seed = 0,
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
            overrides=overrides,
            seed=seed,
            device=device,
            reporter=make_reporter(bar),
            on_begin=lambda name, action: note(f"{name}: {ACTIONS[action]}"),
            should_stop=stop,
        )
    if not speaks_for_all():
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


def standings_table(standings: Sequence[Standing]) -> Table:
    """How far each has come, in 80 columns."""
    table = plain_table("", "inverter", "NRE ↓", "steps", "time", "images/s", "waiting")
    for one in standings:
        table.add_row(
            one.name,
            "" if one.nre is None else plus_minus(one.nre, one.nre_sem),
            {"finished": str(one.step), "begun": f"{one.step}/{one.steps or '?'}"}.get(one.state, one.state),
            duration(one.seconds),
            "" if one.images_per_second is None else f"{one.images_per_second:.0f}",
            "" if one.waiting is None else f"{100 * one.waiting:.0f} %",
        )
    return table


@zoo_app.command("export")
def zoo_export(
    names: Names = None,
    runs: RunsFolder = Path("runs"),
    output: Annotated[Path, to_folder("Folder for the files and their cards.")] = Path("zoo"),
    licence: Annotated[str, typer.Option(help="What others may do with the files.")] = "",
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
        print(f"{file}: {mebibytes(file.stat().st_size)}")


@zoo_app.command("baselines")
def zoo_baselines(
    folder: Annotated[Path, typer.Argument(help="Folder of the files and their cards.")],
    names: Names = None,
    images: ImagesOption = [],  # noqa: B006
    baseline: Baselines = [],  # noqa: B006
    limit: Limit = BASELINE_LIMIT,
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Measure baselines that take long (--baseline, by default gradient-descent), and write them onto the cards."""
    from preimage import zoo_training

    if not images:
        raise SettingsError("name the photographs of the cards' own tables, by --images")
    for file in zoo_training.measure_slow_baselines(
        names or [],
        folder,
        images,
        baselines=baseline or ["gradient-descent"],
        limit=limit,
        overrides=overrides,
        device=pick_device(device),
        on_begin=lambda name, fitting: note(f"{name}: {', '.join(fitting) or 'left out, none of them inverts it'}"),
    ):
        print(file)


@zoo_app.command("list")
def zoo_list(as_json: AsJson = False) -> None:
    """List what ships, by its cards, and what is meant to ship but does not yet."""
    from preimage import zoo
    from preimage.evaluation import measured
    from preimage.metrics import METRICS

    cards = {name: zoo.card(name) for name in zoo.shipped()}
    if as_json:
        print(to_json(cards))
        return
    table = plain_table("", "shipped", *(metric.title for metric in METRICS.values()), "n", "size")
    for name, card in cards.items():
        row = zoo.trained_row(card)
        table.add_row(
            name, *(measured(row, metric) for metric in METRICS), str(row["n"]), mebibytes(card["size_bytes"])
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


@zoo_app.command("check")
def zoo_check(
    folder: Annotated[Path | None, typer.Argument(help="By default what ships.")] = None,
    overrides: NamedOverrides = [],  # noqa: B006
) -> None:
    """Verify hash, card, size and probe of every file; exit code 1 where something is wrong."""
    from preimage import zoo

    found = zoo.check(folder, overrides)
    table = plain_table("", "file", "size", "problems", "notes")
    for one in found:
        table.add_row(one.name, mebibytes(one.size_bytes), "; ".join(one.problems) or "none", "; ".join(one.notes))
    out.print(table)
    if any(one.problems for one in found):
        sys.exit(1)
