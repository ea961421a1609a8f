"""What features keep and give away: analyse, compare, report, reproduce, audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from preimage.cli.terminal import (
    INVERTERS,
    AsJson,
    Baselines,
    Device,
    FitOption,
    ImagesOption,
    Limit,
    NamedOverrides,
    app,
    note,
    out,
    pick_device,
    print_columns,
    print_finding,
    shipped_like,
    stepwise,
    tell_left_out,
    to_file,
    to_folder,
)
from preimage.defaults import AUDIT_SIZE, AUDIT_STEPS, LIMIT, QUICK_AUDIT_STEPS
from preimage.errors import SettingsError
from preimage.plain import to_json
from preimage.words import plus_minus

if TYPE_CHECKING:
    from preimage.images import Fit
    from preimage.studies import Trial


Inverters = Annotated[list[str], typer.Argument(help=INVERTERS, autocompletion=shipped_like)]
Folder = Annotated[Path, to_folder("Folder for records and figures.")]
AUDIT_BUDGET = f"Steps of each network, at most; {AUDIT_STEPS}, quick {QUICK_AUDIT_STEPS}."
Page = Annotated[Path, to_file("The page to write.")]


@contextmanager
def trial_of(
    images: list[str],
    limit: int,
    fit: Fit | None,
    overrides: list[str],
    device: str | None,
    baselines: Sequence[str] = (),
) -> Iterator[Trial]:
    """What these commands have in common, as they take it, under a progress bar."""
    from preimage.studies import Trial

    where = pick_device(device)
    with stepwise() as step:
        yield Trial(images, limit, fit, where, step, overrides, baselines)


@app.command()
def analyse(
    name: Annotated[str, typer.Argument(help="An analysis (see `preimage list`), several with commas, or 'all'.")],
    inverters: Inverters,
    images: ImagesOption = [],  # noqa: B006
    output: Folder = Path("analyses"),
    baseline: Baselines = [],  # noqa: B006
    limit: Limit = LIMIT,
    fit: FitOption = None,
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """What the features keep and what the picture depends on: numbers (CSV, JSON) first, then figures."""
    from preimage import studies
    from preimage.analyses import ANALYSES
    from preimage.files import file_name

    names = list(ANALYSES) if name == "all" else name.split(",")
    with trial_of(images, limit, fit, overrides, device, baseline) as trial:
        found = studies.analyse_all(names, inverters, trial, output)
    if as_json:
        print(to_json({title: [finding.content for finding in findings] for title, findings in found.items()}))
        return
    own = {title: found[title] for title in studies.labels(inverters)}
    together = {finding.analysis: finding for finding in studies.side_by_side(own)}
    for findings in zip(*own.values(), strict=True):
        first = findings[0]
        out.print(Text.assemble((first.analysis, "bold"), f": {first.question}"))
        for title, finding in zip(own, findings, strict=True):
            said = finding.answer or f"does not apply: {finding.reason}"
            out.print(f"{title}: {said}" if len(own) > 1 else said, highlight=False)
        for finding in [together[first.analysis]] if first.analysis in together else findings:
            print_finding(finding)
    for title in found:
        note(f"records and figures: {output / file_name(title)}")


@app.command()
def compare(
    inverters: Inverters,
    images: ImagesOption = [],  # noqa: B006
    output: Folder = Path("analyses"),
    limit: Limit = LIMIT,
    fit: FitOption = None,
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Layers or encoders side by side on the same photographs: a table, a figure, a sheet."""
    from preimage import studies

    with trial_of(images, limit, fit, overrides, device) as trial:
        finding = studies.compare(inverters, trial, output)
    if as_json:
        print(to_json(finding.content))
        return
    out.print(finding.answer)
    print_finding(finding)
    note(f"records and figures: {output / finding.analysis}")


@app.command()
def report(
    inverters: Inverters,
    images: ImagesOption = [],  # noqa: B006
    output: Page = Path("report.html"),
    analyses: Annotated[str, typer.Option(help="Analyses with commas, 'all' or 'none'.")] = "all",
    baseline: Baselines = [],  # noqa: B006
    limit: Limit = LIMIT,
    fit: FitOption = None,
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """One self-contained page: how it was made, the table with baselines, sheets, every analysis."""
    from preimage import studies

    chosen = {"all": None, "none": []}.get(analyses, analyses.split(","))
    with trial_of(images, limit, fit, overrides, device, baseline) as trial:
        page = studies.write_report(inverters, trial, output, chosen)
    print(page)
    note(f"records and figures: {page.with_suffix('')}")


@app.command()
def reproduce(
    items: Annotated[list[str] | None, typer.Argument(help="table1, fig3, ...; all of them by default.")] = None,
    images: ImagesOption = [],  # noqa: B006
    run: Annotated[list[str], typer.Option(metavar="NAME=PATH", help="Another inverter; repeatable.")] = [],  # noqa: B006
    autoencoder: Annotated[
        list[str], typer.Option(metavar="NAME=PATH", help="The run of an autoencoder, shown too; repeatable.")
    ] = [],  # noqa: B006
    baseline: Baselines = [],  # noqa: B006
    output: Page = Path("reproduce.html"),
    limit: Limit = LIMIT,
    fit: FitOption = None,
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """The paper's tables and figures beside what is measured here, on one page."""
    from preimage import reproduce as own

    if not images:
        raise SettingsError(f"name the photographs to measure on: --images PHOTOS. There are: {', '.join(own.ITEMS)}")
    named, trained = paths_by_name("--run", run), paths_by_name("--autoencoder", autoencoder)
    with trial_of(images, limit, fit, overrides, device, baseline) as trial:
        print(own.reproduce(items or [], own.Study(trial, output.with_suffix(""), named, trained), output))


def paths_by_name(option: str, given: list[str]) -> dict[str, Path]:
    found = {}
    for one in given:
        name, _, path = one.partition("=")
        if not path:
            raise SettingsError(f"{option} takes NAME=PATH, got {one!r}")
        found[name] = Path(path)
    return found


@contextmanager
def told_if_stopped(journal: Path | None) -> Iterator[None]:
    """What becomes of an audit that Ctrl-C stops."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"the same command goes on with what {journal} holds" if journal else "without -o it begins anew"
        note(f"stopped: {kept}; --quick and fewer --steps take less time")
        raise


@app.command()
def audit(
    features: Annotated[Path, typer.Option(help="Saved features: .npy, .npz, .safetensors, .pt or .parquet.")],
    images: ImagesOption,
    output: Annotated[Path | None, to_file("The .html page to write.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Attackers and controls alone: no curve, no defences.")
    ] = False,
    test_features: Annotated[Path | None, typer.Option(help="Features to test on; else a random split.")] = None,
    test_images: Annotated[list[str], typer.Option(help="The photographs of --test-features.")] = [],  # noqa: B006
    labels: Annotated[Path | None, typer.Option(help="Classes: CSV lines of photograph,class.")] = None,
    size: Annotated[int, typer.Option(help="Pixels: the photographs' side.")] = AUDIT_SIZE,
    steps: Annotated[int | None, typer.Option(help=AUDIT_BUDGET)] = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Test on near duplicates too.")] = False,
    seed: Annotated[int, typer.Option(help="Decides the split, weights, order and noise.")] = 0,
    fit: FitOption = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure what saved features give away of their photographs: attackers, controls, and the worth of defences."""
    from preimage.audit import AuditSettings, judge_features
    from preimage.audit_page import write_page
    from preimage.pages import check_page

    if output is not None:
        check_page(output)
    settings = AuditSettings(
        quick=quick,
        image_size=size,
        steps=steps,
        seed=seed,
        keep_duplicates=keep_duplicates,
    )
    journal = output and output.with_suffix(".unfinished.json")
    with stepwise() as step, told_if_stopped(journal):
        result = judge_features(
            features,
            images,
            test_features=test_features,
            test_images=test_images or None,
            labels=labels,
            settings=settings,
            fit=fit or "crop",
            device=pick_device(device),
            journal=journal,
            on_progress=step,
        )
    note(f"features matched to photographs by {result.content['matched_by']}")
    if pairs := result.content["test_pairs"]:
        note(f"test features matched to photographs by {pairs['matched_by']}")
    tell_left_out(result.content["left_out"])
    duplicates = result.content["near_duplicates"]
    if found := len(duplicates["found"]):
        note(f"{found} test photographs are near duplicates: {'removed' if duplicates['removed'] else 'kept'}")
    if output is not None and journal is not None:
        write_page(result, output)  # before anything is printed: whoever reads that may stop reading
        journal.unlink(missing_ok=True)
        note(f"page: {output}")
    print_audit(result.content, as_json)


def print_audit(content: dict[str, Any], as_json: bool) -> None:
    from preimage.audit_summary import percent

    if as_json:
        print(to_json(content))
        return
    rows = [
        [
            row["attacker"],
            plus_minus(row["nre"], row["nre_sem"]),
            plus_minus(row["ssim"], row["ssim_sem"]),
            f"{percent(row['top1'])} (chance {percent(row['top1_chance'])})",
            percent(row["true_match_rate"]),
            f"{row['colour_error']:.1f}",
        ]
        for row in content["rows"]
    ]
    out.print(f"{content['n_train']} training and {content['n_test']} test pairs, {content['image_size']} pixels")
    print_columns(["attacker", "NRE ↓", "SSIM ↑", "right one of all", "at 1\u00a0% false", "colour error ↓"], rows)
    for sentence in content["summary"]:
        out.print(sentence, soft_wrap=True, highlight=False)
