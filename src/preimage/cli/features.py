"""What there is, and both directions: list, weights, encode, invert."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from preimage.cli.terminal import (
    AsJson,
    Device,
    FitOption,
    Images,
    Layer,
    Name,
    NamedOverrides,
    Overrides,
    app,
    as_override,
    note,
    open_photos,
    out,
    pick_device,
    plain_table,
    progress_bar,
    representation_of,
    representation_settings,
    shipped_like,
    to_file,
    to_folder,
)
from preimage.errors import FeatureError, SettingsError
from preimage.words import mebibytes, plus_minus, shape_in_words


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
            size = shape_in_words(facts["feature_shape"])
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
    titles = {
        "doors": ("encoders of your own: -r PREFIX:ADDRESS", "prefix", "what is there"),
        "decoders": ("decoders", "name", "what it is"),
        "inverters": ("inverters", "name", "what it is"),
        "analyses": ("analyses", "name", "what it asks"),
    }
    for kind, heading in titles.items():
        table = plain_table(*heading)
        for name, description in catalogue[kind].items():
            table.add_row(name, description)
        out.print(table, "")
    out.print(f"presets: {', '.join(catalogue['presets'])}\n")
    table = plain_table("inverters that come with the package", "shipped", "size", "trained on", "NRE")
    for name, entry in catalogue["shipped"].items():
        nre = f"{plus_minus(entry['nre'], entry['nre_sem'])} (n={entry['n']})"
        table.add_row(name, mebibytes(entry["size_bytes"]), entry["trained_on"], nre)
    out.print(table)


@app.command()
def weights(
    action: Annotated[str, typer.Argument(help="'list', or 'get' to download.")],
    name: Annotated[str | None, typer.Argument(help="alexnet, bvlc_alexnet or caffenet.")] = None,
) -> None:
    """List the published weights of networks known here, or download them. They are never downloaded otherwise."""
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


@app.command()
def check(
    representation: Name = "hog",
    layer: Layer = None,
    overrides: Overrides = [],  # noqa: B006 (typer reads it, nobody changes it)
) -> None:
    """Check on a few pictures that a representation keeps the promises of all representations; exit code 1 if not."""
    from preimage.contract import PROMISES, broken_promises

    broken = broken_promises(representation_of(representation, overrides + as_override(layer)))
    reasons = list(broken.values())
    if reasons and reasons.count(reasons[0]) > 1:  # it cannot be asked at all
        raise FeatureError(reasons[0])
    table = plain_table("", "", "promise")
    for promise in PROMISES:
        table.add_row(*(("broken", f"{promise}: {broken[promise]}") if promise in broken else ("kept", promise)))
    out.print(table)
    if broken:
        sys.exit(1)


@app.command()
def layers(
    representation: Annotated[str, typer.Argument(help="timm:NAME, torch:MODULE:FACTORY, ..., or efficientnet_lite0.")],
    overrides: Overrides = [],  # noqa: B006 (typer reads it, nobody changes it)
    as_json: AsJson = False,
) -> None:
    """List the layers of a torch module (for --layer) or of a network known here (for -r), with output shapes."""
    from preimage import api

    found = api.layers(representation, **representation_settings(overrides))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = plain_table("", "layer", "output")
    for path, output in found.items():
        table.add_row(path, output)
    out.print(table)


@app.command()
def encode(
    images: Images,
    output: Annotated[Path, to_file("The .npy file to write; its settings go beside it.")],
    representation: Name = "hog",
    layer: Layer = None,
    fit: FitOption = None,
    overrides: Overrides = [],  # noqa: B006 (typer reads it, nobody changes it)
    device: Device = None,
) -> None:
    """Features of photographs: an array (N, ...) and, beside it, their shape and settings as JSON."""
    import numpy as np

    from preimage.inversion import warn_empty
    from preimage.pairs import EncodedPhotos, save_features

    if output.suffix != ".npy":
        raise SettingsError(f"features are written as .npy, not {output}")
    chosen = representation_of(representation, overrides + as_override(layer))
    photos = open_photos(images, chosen.image_size, fit)
    pairs = EncodedPhotos(chosen, photos, device=pick_device(device))
    described = save_features(pairs, output, on_batch=lambda batch: warn_empty(batch.ids, batch.features))
    features = np.load(output, mmap_mode="r")
    print(f"{output}: {shape_in_words(features.shape)} {features.dtype}, settings in {described}")


@app.command()
def invert(
    images: Annotated[list[Path] | None, typer.Argument(help="Photographs to encode and invert.")] = None,
    output: Annotated[Path, to_folder("Folder for the pictures.")] = Path("out"),
    representation: Annotated[
        list[str],
        typer.Option(
            "--representation",
            "-r",
            help="What ships: hog (by default), ...; repeatable.",
            autocompletion=shipped_like,
        ),
    ] = [],  # noqa: B006
    run: Annotated[list[str], typer.Option(help="A run folder or .safetensors file; repeatable.")] = [],  # noqa: B006
    features: Annotated[Path | None, typer.Option(help="Invert saved features instead of photographs.")] = None,
    fit: FitOption = None,
    size: Annotated[
        Literal["own", "native"], typer.Option(help="The representation's, or the photograph's (hog, lbp, sift).")
    ] = "own",
    overrides: NamedOverrides = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Features back into pictures: out/PHOTO.hog.png, and PHOTO.hog.sheet.png beside the photograph.

    Of several -r or --run, every photograph has one sheet with all of them: PHOTO.sheet.png.
    """
    from preimage import zoo
    from preimage.inversion import invert as invert_photos
    from preimage.inversion import invert_features
    from preimage.representations.tables import facts_beside

    if (images is None) == (features is None):
        raise SettingsError("give either photographs or --features, not both and not neither")
    if features is not None and (size == "native" or fit is not None):
        raise SettingsError("--size native and --fit are about photographs: leave them out where --features are given")
    if size == "native" and fit is not None:
        raise SettingsError("--size native takes photographs as they are: leave out --fit")
    if features is not None and not representation and not run:
        made_by = facts_beside(features).get("representation")
        representation = [own for own in zoo.shipped() if isinstance(made_by, dict) and own == made_by.get("name")]
    for kind, names in (("run", run), ("photograph", [str(image) for image in images or []])):
        if ships := [name for name in names if name in zoo.shipped() and not Path(name).exists()]:
            raise SettingsError(f"{ships[0]} is no {kind} but what ships: name it by -r {ships[0]}")
    inverters: list[str | Path] = [*representation, *map(Path, run)] or ["hog"]
    where = pick_device(device)
    if images is None:
        assert features is not None
        files = invert_features(inverters, features, output, overrides=overrides, device=where)
    else:
        files = invert_photos(
            inverters, images, output, fit=fit, native=size == "native", overrides=overrides, device=where
        )
    for file in files:
        print(file)
