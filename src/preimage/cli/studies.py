"""What features keep and give away: analyse, compare, report, reproduce, audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preimage.cli.terminal import (
    BASELINE,
    INVERTERS,
    AsJson,
    Device,
    FitOption,
    ImagesOption,
    Limit,
    app,
    check_fit,
    escape,
    note,
    out,
    pick_device,
    plain_table,
    print_table,
    progress_bar,
    stepwise,
    tell_left_out,
)
from preimage.errors import SettingsError

if TYPE_CHECKING:
    pass


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
    baseline: Annotated[list[str], typer.Option(help=BASELINE)] = [],  # noqa: B006
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
        study = own.Study(Trial(images, limit, check_fit(fit), where, step), output.with_suffix(""), named, baseline)
        print(own.reproduce(items or [], study, output))


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
    if pairs := result.content["test_pairs"]:
        note(f"test features matched to photographs by {pairs['matched_by']}")
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
