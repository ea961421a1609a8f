"""Inverters made and measured: train, evaluate, fit, confidence, export."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from preimage.cli.terminal import (
    AsJson,
    Baselines,
    Device,
    FeaturesOption,
    FitOption,
    ImagesOption,
    Inverter,
    Layer,
    Name,
    Overrides,
    Seed,
    TrainImages,
    Val,
    app,
    as_argument,
    as_override,
    for_file,
    make_reporter,
    note,
    pick_device,
    presets_like,
    print_evaluation,
    progress_bar,
    representation_of,
    representation_settings,
    speaks_for_all,
    stepwise,
    stop_on_signals,
    to_file,
)
from preimage.defaults import BASELINE_LIMIT, CONFIDENCE_STEPS
from preimage.errors import SettingsError
from preimage.words import mebibytes


@app.command()
def train(
    preset: Annotated[
        str | None, typer.Argument(help="hog, ...: the preset to start from.", autocompletion=presets_like)
    ] = None,
    images: ImagesOption = [],  # noqa: B006
    val: Val = [],  # noqa: B006
    run: Annotated[Path | None, typer.Option(help="The new run folder.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder.")] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Begin with decoder and weights of a trained inverter: hog, a run, a file.")
    ] = None,
    features: FeaturesOption = None,
    steps: Annotated[int | None, typer.Option(help="Budget in steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in passes over the photographs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes, turned into steps by timing.")] = None,
    overrides: Overrides = [],  # noqa: B006
    seed: Seed = 0,
    representation: Annotated[str | None, typer.Option("--representation", "-r", help="Any encoder.")] = None,
    layer: Layer = None,
    device: Device = None,
) -> None:
    """Train an inverter into a run folder, or go on with one. Ctrl-C saves a checkpoint first.

    --features takes the place of a preset: features that you have, of the photographs in --images.
    """
    from preimage import api
    from preimage.config import plain_settings

    if preset is not None and representation is not None:
        raise SettingsError(f"name either a preset ({preset}) or --representation ({representation}), not both")
    preset = preset or representation
    overrides = overrides + as_override(layer)
    stop = stop_on_signals()
    with progress_bar() as bar:
        reporter = make_reporter(bar)
        budgets = {"steps": steps, "epochs": epochs, "minutes": minutes}
        if resume is not None:
            given = plain_settings(overrides, "representation")
            if any([preset, run, start_from, seed, *budgets.values(), given.keys() - {"weights"}]):
                raise SettingsError(
                    "--resume goes on with a run's own settings: it takes no others, but --images, --val, --features "
                    "and --set weights=FILE where its photographs, features or network's weights have moved"
                )
            where: dict[str, Any] = {"images": images, "validation": val, "features": features, **given}
            result = api.resume(resume, **where, device=device, reporter=reporter, should_stop=stop)
        else:
            if preset is not None and features is not None:
                raise SettingsError(f"name either a preset ({preset}) or --features, not both")
            given = {"a preset (hog), -r or --features": preset or features, "--images": images, "--run": run}
            if missing := [name for name, value in given.items() if not value]:
                raise SettingsError(f"to train, name {', '.join(missing)} too; or --resume a run")
            assert run is not None
            budgeted = overrides + [f"training.{key}={value}" for key, value in budgets.items() if value is not None]
            result = api.train(
                preset, images, run, features=features, validation=val, start_from=start_from, overrides=budgeted,
                seed=seed, device=device, reporter=reporter, should_stop=stop,
            )  # fmt: skip
    if not speaks_for_all():
        return
    total = result.settings.training.steps
    if result.step != total:
        note(f"stopped at step {result.step} of {total}; go on with: preimage train --resume {result.folder}")
        sys.exit(130)
    own = "" if result.settings.photos.held_out or result.settings.photos.validation else " --images ..."
    print(f"{result.folder}: {total} steps done. Next: preimage evaluate {as_argument(result.folder)}{own}")


@app.command()
def evaluate(
    inverter: Inverter,
    images: ImagesOption = [],  # noqa: B006
    features: FeaturesOption = None,
    train_images: TrainImages = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=2, help="Use only the first N photographs.")] = None,
    baseline: Baselines = [],  # noqa: B006
    baseline_limit: Annotated[
        int, typer.Option(min=2, help="Photographs for each --baseline: these are slow.")
    ] = BASELINE_LIMIT,
    records: Annotated[
        Path | None, typer.Option(callback=for_file, help="Also write a CSV, a line per photograph and inverter.")
    ] = None,
    fit: FitOption = None,
    overrides: Overrides = [],  # noqa: B006
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """NRE, PSNR and SSIM beside the mean image, the nearest neighbour, ridge regression and the control."""
    from preimage import api
    from preimage.files import replace_text

    with stepwise() as step:
        result = api.evaluate(
            inverter,
            images,
            features=features,
            train_images=train_images or None,
            fit=fit,
            device=pick_device(device),
            limit=limit,
            settings=representation_settings(overrides),
            baselines=baseline,
            baseline_limit=baseline_limit,
            on_progress=partial(step, "evaluating"),
        )
    if records is not None:
        replace_text(records, result.records_csv())
    print_evaluation(result, as_json)


@app.command()
def fit(
    inverter: Annotated[str, typer.Argument(help="hoggles, gradient-descent, ridge, nearest or mean-image.")],
    images: ImagesOption,
    output: Annotated[Path, to_file("The .safetensors file to write.")],
    representation: Name = "hog",
    layer: Layer = None,
    fit: FitOption = None,
    overrides: Overrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Fit an inverter other than the network, and write it for `invert --run` and `evaluate --baseline`.

    --set changes the inverter's settings (windows=20000) or, if it has none of that name, the representation's.
    """
    from preimage import api
    from preimage.config import parse_override, plain_settings
    from preimage.inverters import settings_of
    from preimage.representations import has_setting, runs_code

    def is_of_representation(override: str) -> bool:
        section, key, _ = parse_override(override)
        return section == "representation" or (
            not section and key not in settings_of(inverter) and has_setting(representation, key)
        )

    of_representation = as_override(layer) + list(filter(is_of_representation, overrides))
    own = [override for override in overrides if override not in of_representation]
    note(f"fitting {inverter} for {representation} ...")
    api.fit_inverter(
        inverter,
        representation_of(representation, of_representation),
        images,
        output,
        settings=plain_settings(own, "inverter"),
        fit=fit or "crop",
        device=pick_device(device),
    )
    trusted = " --set trusted=true" if runs_code(representation) else ""
    size = mebibytes(output.stat().st_size)
    print(f"{output}: {size}. Next: preimage invert --run {as_argument(output)}{trusted} ...")


@app.command()
def confidence(
    inverter: Inverter,
    images: ImagesOption,
    output: Annotated[Path, to_file("The .safetensors file to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of 16 photographs.")] = CONFIDENCE_STEPS,
    fit: FitOption = None,
    seed: Annotated[int, typer.Option(help="Decides weights and order.")] = 0,
    overrides: Overrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Learn how uncertain each pixel is, and write the inverter with this map; reconstructions do not change."""
    from preimage import api

    with stepwise() as step:
        api.fit_confidence(
            inverter,
            images,
            output,
            steps=steps,
            fit=fit,
            settings=representation_settings(overrides),
            seed=seed,
            device=pick_device(device),
            on_progress=partial(step, "fitting"),
        )
    print(f"{output}: {mebibytes(output.stat().st_size)}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    output: Annotated[Path, to_file("The .safetensors file to write.")],
    licence: Annotated[str, typer.Option(help="What others may do with the file.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Keep float32 instead of float16.")] = False,
    overrides: Overrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """A run's inverter, with its mean image and ridge regression, as one file to pass on, and a card of facts."""
    from preimage import zoo

    given = representation_settings(overrides)
    card = zoo.export(run, output, licence=licence, half=not full, settings=given, device=pick_device(device))
    print(f"{output}: {mebibytes(card['size_bytes'])}, card in {output.with_suffix('.json').name}")
