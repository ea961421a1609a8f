"""The library's front door: names and paths in, results out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preimage import runs, zoo
from preimage.analyses import ANALYSES
from preimage.cache import cached
from preimage.config import DecoderSettings, Settings, load_preset, make_settings, preset_names
from preimage.decoders import DECODERS
from preimage.defaults import BASELINE_LIMIT, CONFIDENCE_STEPS
from preimage.errors import (
    ImageError,
    SettingsError,
    WeightsError,
)
from preimage.evaluation import Evaluation, evaluate_contenders
from preimage.images import (
    Fit,
    Photos,
    Sources,
    absolute,
    check_places,
    source_list,
    sources_in_words,
    warn_left_out,
)
from preimage.interfaces import Inverter, Representation, ignore, never
from preimage.inverters import (
    INVERTERS,
    Confidence,
    UpConv,
    check_file_name,
    main_of,
    save_inverters,
)
from preimage.inverters.confidence import DEFAULT as CONFIDENCE
from preimage.judging import (
    UNKNOWN,
    at_hand,
    basis_of,
    encoding_contenders,
    judged,
    quick_inverter,
    saved_contenders,
)
from preimage.kept import Kept, Named
from preimage.networks import NETWORKS, named_files
from preimage.networks.weights import PUBLISHED
from preimage.pairs import EncodedPhotos
from preimage.representations import DOORS, REPRESENTATIONS, ModuleLayer, SavedFeatures, get_representation
from preimage.representations.foreign import attempt
from preimage.representations.modules import ModuleDoor
from preimage.representations.network import outputs_of
from preimage.representations.saved import PREFIX
from preimage.runs import HELD_OUT_IN_WORDS, Reporter, Run, Start
from preimage.training import BUDGETS
from preimage.words import duration, shape_in_words

HELD_OUT = 0.1  # share of saved pairs that are kept for validation
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")  # free to show: scikit-image's wheel


def load_inverter(name: str | os.PathLike[str], **settings: Any) -> Inverter:
    """A trained inverter: a shipped one by name (`"hog"`), a run or its folder (`"./runs/hog"`), a file of inverters.

    `settings` go to its representation: `weights="FILE"` for a network whose weights are yours to bring. A file whose
    encoder is code (`python:`, `torch:`, `command:`) is loaded only with `trusted=True`. Raises `UnknownNameError`,
    `RunError` or `WeightsError`.
    """
    return main_of(Kept.of(name).load(**settings))


def training_time(name: str, given: Mapping[str, Any] | None = None) -> str:
    """How long training an inverter would take here, in words; some steps are tried, which takes seconds.

    `given` settings of the representation replace the preset's.
    """
    preset = load_preset(name)
    settings = make_settings({**preset, "representation": {**preset["representation"], **(given or {})}})
    pace, batch_size, photos = runs.measure_pace(settings), settings.training.batch_size, 10_000
    epochs = settings.training.epochs or runs.DEFAULT_EPOCHS
    whole = pace * epochs * photos / batch_size
    return (
        f"here 1,000 steps of {batch_size} photographs take about {duration(1000 * pace)}; "
        f"{epochs:.0f} passes over {photos:,} photographs, as by default, {duration(whole)}"
    )


def train(
    preset: str | None,
    images: Sources,
    run: str | Path,
    *,
    features: str | Path | None = None,
    validation: Sources = (),
    start_from: str | Path | None = None,
    overrides: Iterable[str] = (),
    seed: int = 0,
    device: str | None = None,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = never,
) -> Run:
    """Train an inverter on photographs into a new run folder.

    `preset` names the settings to start from; `overrides` are texts such as `"training.minutes=30"`. `start_from` is a
    trained inverter, as `load_inverter` knows it, whose decoder and weights are the first ones.

    With `features`, a file of those that someone else computed of the photographs, there is no preset (None), and no
    encoder is used; a tenth of the photographs is held out for validation (`photos.held_out`), unless some are given.

    Raises `PreimageError` with advice for anything a caller can mend.
    """
    if isinstance(overrides, str | Mapping):
        raise SettingsError('overrides are a list of texts, such as ["training.steps=100"]')
    overrides = list(overrides)
    if preset is not None and features is None:
        wanted = training_settings(preset, images, validation, overrides, seed)
    elif features is not None and preset is None:
        wanted = saved_settings(features, images, validation, overrides, seed)
    else:
        raise SettingsError("give a preset, or None and a file of features")
    settings, start = started_from(start_from, wanted, overrides)
    return runs.train(settings, run, start=start, device=device, reporter=reporter, should_stop=should_stop)


def resume(
    run: str | Path,
    *,
    images: Sources = (),
    validation: Sources = (),
    weights: str | None = None,
    features: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = never,
) -> Run:
    """Go on with a run where its checkpoint stands.

    `images`, `validation`, `weights` and `features` say where its photographs, its network's weights and its saved
    features lie by now.
    """
    settings = Run.open(run).settings
    if features is not None and not settings.representation["name"].startswith(PREFIX):
        raise SettingsError(f"{run} encodes photographs itself: leave out the saved features")
    moved = {
        **({} if weights is None else {"weights": weights}),
        **({} if features is None else {"file": str(Path(features).expanduser().absolute())}),
    }
    settings = from_anywhere(dataclasses.replace(settings, representation={**settings.representation, **moved}))
    photos = dataclasses.replace(
        settings.photos,
        train=tuple(absolute(images)) or settings.photos.train,
        validation=tuple(absolute(validation)) or settings.photos.validation,
    )
    try:
        check_places([*photos.train, *photos.validation])
    except ImageError as error:
        raise ImageError(f"{error}; where a run's photographs lie by now is told by --images and --val") from error
    settings = dataclasses.replace(settings, photos=photos)
    return runs.resume(run, settings, device=device, reporter=reporter, should_stop=should_stop)


def started_from(
    name: str | os.PathLike[str] | None, settings: Settings, overrides: Sequence[str]
) -> tuple[Settings, Start | None]:
    """The settings with the decoder of a trained inverter, and it; raises `SettingsError` where it is no network."""
    if name is None:
        return settings, None
    if other := [one for one in overrides if one.startswith("decoder.")]:
        raise SettingsError(f"the decoder is that of {name}: leave out {other[0]}")
    kept = Kept.of(name)
    start = main_of(kept.load_beside(settings.representation))
    if not isinstance(start, UpConv):
        raise SettingsError(f"{name} holds {start.name!r}: training starts from a trained network")
    decoder = DecoderSettings(start.settings["decoder"], start.settings["width"])
    facts = ("training", "augmentation", "made_with", "curve", "started_from")
    origin = {key: value for key, value in kept.card.items() if key in facts}
    validated = settings.photos.validation or settings.photos.held_out
    seen = at_hand(kept.run, start.representation)[0] if kept.run and validated else None
    return dataclasses.replace(settings, decoder=decoder), Start(start, {"inverter": str(name), **origin}, seen)


def training_settings(
    preset: str, images: Sources, validation: Sources = (), overrides: Iterable[str] = (), seed: int = 0
) -> Settings:
    """What `train` would run with."""
    overrides = list(overrides)
    tables = load_preset(preset)
    given = {override.partition("=")[0].strip() for override in overrides}
    if given & {f"training.{budget}" for budget in BUDGETS}:
        for budget in BUDGETS:  # one that is given replaces the preset's
            tables["training"].pop(budget, None)
    tables["photos"] = {"train": absolute(images), "validation": absolute(validation)}
    return from_anywhere(make_settings(tables | {"seed": seed}, overrides))


def saved_settings(
    features: str | Path, images: Sources, validation: Sources, overrides: Iterable[str], seed: int
) -> Settings:
    """The settings of a training on saved features."""
    tables: dict[str, Any] = {
        "representation": {"name": PREFIX + Path(features).name, "file": str(Path(features).expanduser().absolute())},
        "photos": {"train": absolute(images), "validation": absolute(validation), "held_out": HELD_OUT},
        "augmentation": {"flip": False, "min_scale": 1.0},
        "seed": seed,
    }
    return make_settings(tables, overrides)


def from_anywhere(settings: Settings) -> Settings:
    """The same settings in whatever folder one is, for weights that are files."""
    found = dict(settings.representation)
    files = named_files(str(found.get("weights", "")))  # a door's may be no file
    if all(file.is_file() for file in files):
        found["weights"] = ",".join(str(file.absolute()) for file in files)
    door, _, address = found["name"].partition(":")
    if door == "onnx":
        found["name"] = f"onnx:{Path(address).expanduser().absolute()}"
    return dataclasses.replace(settings, representation=found)


def evaluate(
    inverter: Named,
    images: Sources = (),
    *,
    features: str | Path | None = None,
    train_images: Sources | None = None,
    images_in_words: str | None = None,
    fit: Fit | None = None,
    device: str = "cpu",
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    loaded: Mapping[str, Inverter] | None = None,
    baselines: Iterable[str | Path] = (),
    baseline_limit: int = BASELINE_LIMIT,
    on_progress: Callable[[int, int], None] = ignore,
) -> Evaluation:
    """An inverter beside its baselines and its control, on photographs it has not seen.

    `images` are by default those that a run was validated on. Baselines are fitted on `train_images`, by default those
    it was trained on. Without any, the mean image and the ridge regression kept with a shipped inverter serve, and the
    nearest neighbour is sought among the other evaluated photographs. `fit` is by default as the run had it, else
    "crop". `limit` takes the first so many photographs; `images_in_words` says in the table which these are.
    `settings` are those of `load_inverter`; `loaded` is what they loaded before, by name, baselines included.
    `baselines` are slow ones to add, on the first `baseline_limit` photographs: names such as "gradient-descent", or
    files that `fit_inverter` wrote.

    An inverter of saved features takes the `features` of `images` from a file; for a run, by default its own, and the
    photographs it was trained on are left out. Its baselines are those of its own training.
    """
    images, baselines = source_list(images), list(baselines)
    train_images = None if train_images is None else source_list(train_images)
    check_places([*images, *(train_images or ())])
    source = Kept.of(inverter)
    if not images and source.run is None:
        raise SettingsError("name the photographs to evaluate on: --images, or images=...")
    kept = loaded or source.load(**(settings or {}))
    representation = main_of(kept).representation
    saved = isinstance(representation, SavedFeatures)
    if saved and (baselines or train_images is not None):
        raise SettingsError(
            f"the baselines of {representation.name} are those of its training: leave out others, and photographs "
            "to fit them on"
        )
    found = judged(source, representation, images, features, fit, trained_on=True)
    photos = found.load(limit)
    if saved:
        contenders = saved_contenders(kept, source.run, found, device)
    else:
        own_photographs = sources_in_words(source.run.settings.photos.train) if source.run else UNKNOWN
        train_photos, words = found.trained_on, own_photographs
        if train_images is not None:
            train_photos = Photos.open(train_images, representation.image_size, fit or source.fit)
            words = sources_in_words(train_images)
            runs.warn_seen(photos.among(train_photos), "are those that baselines are fitted on")
        basis = basis_of(representation, train_photos, words, photos, device)
        contenders = encoding_contenders(kept, own_photographs, basis, baselines, baseline_limit)
    images_in_words = images_in_words or sources_in_words(found.places) or HELD_OUT_IN_WORDS
    return evaluate_contenders(contenders, photos, images_in_words, device=device, on_progress=on_progress)


def fit_inverter(
    inverter: str,
    representation: str | Representation,
    images: Sources,
    file: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    fit: Fit = "crop",
    device: str = "cpu",
) -> Inverter:
    """Fit an inverter that is no network (`"hoggles"`, `"ridge"`) on photographs, and write it to a file.

    `settings` are the inverter's own; networks are trained by `train`.
    """
    check_file_name(file)
    chosen = representation if isinstance(representation, Representation) else get_representation(representation)
    made = quick_inverter(inverter, cached(chosen), settings)
    photos = Photos.open(images, chosen.image_size, fit).load()
    warn_left_out(photos.left_out)
    made.fit(EncodedPhotos(made.representation, photos, device=device))
    save_inverters([made], file)
    return made


def fit_confidence(
    inverter: str | os.PathLike[str],
    images: Sources,
    output: str | Path,
    *,
    steps: int = CONFIDENCE_STEPS,
    fit: Fit | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = ignore,
) -> Inverter:
    """Learn how far off each pixel of an inverter's reconstructions is, from photographs; write both into one file.

    The inverter, and the baselines kept with it, go into the file as they are. The photographs may be those it was
    trained on; on others the map is calibrated better. `settings` are those of `load_inverter`.
    """
    check_file_name(output)
    source = Kept.of(inverter)
    kept = source.load(**(settings or {}))
    main = main_of(kept)
    photos = Photos.open(images, main.representation.image_size, fit or source.fit)
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed)).tolist()
    photos = photos.subset(order).load()
    warn_left_out(photos.left_out)
    pairs = EncodedPhotos(main.representation, photos, batch_size=16, device=device)
    training = dataclasses.replace(CONFIDENCE, steps=steps)
    main.confidence = Confidence(main, seed=seed).fit(pairs, training, on_progress)
    save_inverters(list(kept.values()), output)
    return main


def sample_files() -> list[Path]:
    """Free photographs that come with scikit-image: an astronaut, a cat, a cup of coffee, a rocket."""
    folder = Path(str(resources.files("skimage") / "data"))
    return [folder / name for name in SAMPLES]


def sample_photos(image_size: int = 256) -> Photos:
    """The sample photographs, decoded to `image_size` pixels."""
    return Photos.open(sample_files(), image_size)


def layers(name: str, **settings: Any) -> dict[str, str]:
    """The layers of a network, or of an encoder that is a torch module, and the shape of what each puts out, in words.

    `settings` are those of `get_representation`. Raises `SettingsError` for other encoders.
    """
    network = name.partition(".")[0]
    if network in NETWORKS:  # whose layers have names of their own
        named = [f"{network}.{layer}" for layer in NETWORKS[network].layers]
        return {one: shape_in_words(get_representation(one, **settings).feature_shape) for one in named}
    representation = get_representation(name, **settings)
    if not isinstance(representation, ModuleLayer | ModuleDoor):
        raise SettingsError(f"{name} is no torch module: it has no layers to choose from")
    size = representation.image_size
    found = attempt(
        lambda: outputs_of(representation.module, representation.preprocessing(torch.zeros(1, 3, size, size))),
        f"{name} fails on an image of {size} pixels (another size is given by --set image_size=...)",
    )
    return {
        path: shape_in_words(one.shape[1:]) if isinstance(one, Tensor) else type(one).__name__
        for path, one in found.items()
        if path
    }


def catalogue() -> dict[str, Any]:
    """Everything there is a name for."""

    def first_line(kind: object) -> str:
        return (kind.__doc__ or "").strip().splitlines()[0]

    def describe(name: str) -> dict[str, Any]:
        try:
            representation = get_representation(name)
        except WeightsError:
            network = name.partition(".")[0]
            get = f"preimage weights get {network}, or " if network in PUBLISHED else ""
            needs = f"needs weights: {get}--set weights=FILE"
            return {"feature_shape": None, "image_size": None, "differentiable": True, "source": needs}
        return {
            "feature_shape": representation.feature_shape,
            "image_size": representation.image_size,
            "differentiable": representation.differentiable,
            "source": representation.source,
        }

    return {
        "representations": {name: describe(name) for name in REPRESENTATIONS},
        "doors": dict(first_line(door).split(": ", 1) for door in DOORS.values()),
        "decoders": {name: first_line(table) for name, table in DECODERS.items()},
        "inverters": {name: first_line(kind) for name, kind in INVERTERS.items()},
        "analyses": {name: kind.question for name, kind in ANALYSES.items()},
        "presets": preset_names(),
        "shipped": {name: zoo.summary(name) for name in zoo.shipped()},
    }
