"""The library's front door: names and paths in, results out."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import warnings
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
from preimage.errors import (
    FeatureError,
    ImageError,
    PreimageWarning,
    RunError,
    SettingsError,
    UnknownNameError,
    WeightsError,
)
from preimage.evaluation import Contender, Evaluation, fit_baselines
from preimage.evaluation import evaluate as evaluate_contenders
from preimage.files import read_json
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
    Autoencoder,
    Confidence,
    GradientDescent,
    MeanImage,
    Nearest,
    UpConv,
    check_file_name,
    load_inverters,
    main_of,
    make_inverter,
    portable,
    read_description,
    save_inverters,
)
from preimage.inverters.confidence import DEFAULT as CONFIDENCE
from preimage.networks import NETWORKS, named_files
from preimage.networks.weights import PUBLISHED
from preimage.pairs import EncodedPhotos
from preimage.plain import duration, shape_in_words
from preimage.representations import DOORS, REPRESENTATIONS, ModuleLayer, SavedFeatures, get_representation, is_door
from preimage.representations.foreign import attempt
from preimage.representations.modules import ModuleDoor
from preimage.representations.network import outputs_of
from preimage.representations.saved import PREFIX, check_like
from preimage.runs import HELD_OUT_IN_WORDS, Reporter, Run, Start
from preimage.training import BUDGETS

HELD_OUT = 0.1  # share of saved pairs that are kept for validation
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")  # free to show: scikit-image's wheel


def is_path(name: str | os.PathLike[str]) -> bool:
    """A plain name means what ships; anything with a slash, or a safetensors file, is a path; `onnx:...` is a name."""
    text = str(name)
    if isinstance(name, os.PathLike):  # which a run is too
        return True
    return not is_door(text) and ("/" in text or "\\" in text or text.endswith(".safetensors"))


def load_inverter(name: str | os.PathLike[str], **settings: Any) -> Inverter:
    """A trained inverter: a shipped one by name (`"hog"`), a run or its folder (`"./runs/hog"`), a file of inverters.

    `settings` go to its representation: `weights="FILE"` for a network whose weights are yours to bring. A file whose
    encoder is code (`python:`, `torch:`, `command:`) is loaded only with `trusted=True`. Raises `UnknownNameError`,
    `RunError` or `WeightsError`.
    """
    return main_of(load_kept(name, **settings))


def load_kept(name: str | os.PathLike[str], *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:
    """An inverter and, where they were kept with it, its baselines; the main one first."""
    if not is_path(name):
        return zoo.load_shipped(str(name), **settings)
    if Path(name).is_file() or str(name).endswith(".safetensors"):
        return load_inverters(os.fspath(name), trusted=trusted, **settings)
    inverter = runs.load_inverter(os.fspath(name), **settings)
    return {inverter.name: inverter}


def described(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Name and settings of the representation an inverter was made for, as far as they are noted; loads nothing."""
    if not is_path(name):
        return {"name": str(name)}
    if Path(name).is_file() or str(name).endswith(".safetensors"):
        return dict(read_description(os.fspath(name)).representation)
    return dict(Run.open(os.fspath(name)).settings.representation)


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


def fit_of(name: str | os.PathLike[str] | Inverter) -> Fit | None:
    """How a run made its photographs square; None for what ships and for a file, which do not know."""
    run = run_of(name)
    return run.settings.photos.fit if run else None


def is_run(name: str | os.PathLike[str]) -> bool:
    """Whether a name leads to a run folder, not to a file or to what ships."""
    return is_path(name) and Path(name).is_dir()


def run_of(inverter: str | os.PathLike[str] | Inverter) -> Run | None:
    """The run that a name leads to; None for what ships, a file, and an inverter at hand."""
    return None if isinstance(inverter, Inverter) or not is_run(inverter) else Run.open(os.fspath(inverter))


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
    trusted = described(name)["name"] == settings.representation["name"]  # which has run already
    start = load_inverter(name, trusted=trusted, **zoo.given_weights(settings.representation))
    if not isinstance(start, UpConv):
        raise SettingsError(f"{name} holds {start.name!r}: training starts from a trained network")
    decoder = DecoderSettings(start.settings["decoder"], start.settings["width"])
    facts = ("training", "augmentation", "made_with", "curve", "started_from")
    card = zoo.describe(Run.open(os.fspath(name)), start.representation) if is_run(name) else card_of(name)
    origin = {key: value for key, value in card.items() if key in facts}
    validated = settings.photos.validation or settings.photos.held_out
    seen = photos_of(name, start.representation) if validated else None
    return dataclasses.replace(settings, decoder=decoder), Start(start, {"inverter": str(name), **origin}, seen)


def photos_of(name: str | os.PathLike[str], representation: Representation) -> Photos | None:
    """What an inverter was trained on, where it is a run's and they are still as they were."""
    run = run_of(name)
    try:
        return runs.photos_of(run, representation)[0] if run else None
    except (ImageError, FeatureError, RunError):
        return None


def card_of(name: str | os.PathLike[str]) -> dict[str, Any]:
    """How an inverter that ships or is a file was made; nothing where a file has no card beside it."""
    if not is_path(name):
        return zoo.card(str(name))
    file = Path(name).with_suffix(".json")
    return read_json(file) if file.exists() else {}


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
    inverter: str | os.PathLike[str] | Inverter,
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
    baseline_limit: int = 20,
    on_progress: Callable[[int, int], None] = ignore,
) -> Evaluation:
    """An inverter beside its baselines and its control, on photographs it has not seen.

    `images` are by default those that a run was validated on. Baselines are fitted on `train_images`, by default those
    it was trained on. Without any, the mean image and the ridge regression kept with a shipped inverter serve, and the
    nearest neighbour is sought among the other evaluated photographs. `fit` is by default as the run had it, else
    "crop". `limit` takes the first so many photographs; `images_in_words` says in the table which these are.
    `settings` are those of `load_inverter`; `loaded` is what `load_kept` gave, where it was called before.
    `baselines` are slow ones to add, on the first `baseline_limit` photographs: names such as "gradient-descent", or
    files that `fit_inverter` wrote.

    An inverter of saved features takes the `features` of `images` from a file; for a run, by default its own, and the
    photographs it was trained on are left out. Its baselines are those of its own training.
    """
    images, baselines = source_list(images), list(baselines)
    train_images = None if train_images is None else source_list(train_images)
    check_places([*images, *(train_images or ())])
    run = run_of(inverter)
    if not images and run is None:
        raise SettingsError("name the photographs to evaluate on: --images, or images=...")
    if isinstance(inverter, Inverter):
        kept = {inverter.name: inverter}
    else:
        kept = dict(loaded or load_kept(inverter, **(settings or {})))
    main = main_of(kept)
    representation = main.representation
    if isinstance(representation, SavedFeatures):
        if baselines or train_images is not None:
            raise SettingsError(
                f"the baselines of {representation.name} are those of its training: leave out others, and photographs "
                "to fit them on"
            )
        contenders, photos = saved_contenders(kept, run, images, features, fit, limit, device)
    elif features is not None:
        raise SettingsError(f"{representation.name} encodes photographs itself: leave out the saved features")
    else:
        fit = fit or (run.settings.photos.fit if run else "crop")
        photos, train_photos = judged_photos(representation, run, images, fit)
        photos = photos.load(limit)
        contenders = encoding_contenders(
            kept, run, photos, train_photos, train_images, fit, device, baselines, baseline_limit
        )
    images = images or list(run.settings.photos.validation if run else ())
    images_in_words = images_in_words or sources_in_words(images) or HELD_OUT_IN_WORDS
    return evaluate_contenders(contenders, photos, images_in_words, device=device, on_progress=on_progress)


def encoding_contenders(
    kept: Mapping[str, Inverter],
    run: Run | None,
    photos: Photos,
    trained_on: Photos | None,
    train_images: list[str] | None,
    fit: Fit,
    device: str,
    baselines: Iterable[str | Path],
    baseline_limit: int,
) -> list[Contender]:
    """Who is judged by `evaluate` on photographs, for an inverter whose representation encodes them.

    Baselines are fitted on `train_images`, or on what the inverter was trained on, if that is at hand.
    """
    main = main_of(kept)
    representation = main.representation
    own_words = sources_in_words(run.settings.photos.train) if run else "its training photographs"
    words, train_photos = own_words, trained_on
    if trained_on is not None:
        runs.warn_seen(photos.among(trained_on), "were trained on")
    if train_images is not None:
        words, train_photos = sources_in_words(train_images), Photos.open(train_images, representation.image_size, fit)
        runs.warn_seen(photos.among(train_photos), "are those that baselines are fitted on")
    if train_photos is not None:
        train_photos = train_photos.load()
        warn_left_out(train_photos.left_out)
        words = f"{words} ({len(train_photos)} photographs)"
        known = EncodedPhotos(representation, train_photos, device=device)
        usual = fit_baselines(representation, train_photos, words, device)
    else:
        words = f"the {len(photos)} evaluated photographs"
        known = EncodedPhotos(representation, photos, device=device)
        usual = kept_baselines(kept, own_words, known)
    given = slow_baselines(baselines, known, words, baseline_limit, unseen=train_photos is not None)
    names = {main.name, *(one.inverter.name for one in given)}  # what was given takes the place of a usual one
    return [Contender(main, own_words), *(one for one in usual if one.inverter.name not in names), *given]


def judged_photos(
    representation: Representation, run: Run | None, images: list[str], fit: Fit
) -> tuple[Photos, Photos | None]:
    """What an inverter is judged on, by default what its run was validated on, and what the run was trained on."""
    train_photos, held_out = at_hand(run, representation) if run else (None, None)
    images = images or list(run.settings.photos.validation if run else ())
    if images:
        return Photos.open(images, representation.image_size, fit), train_photos
    if held_out is None:
        raise SettingsError("name the photographs to evaluate on, by --images")
    return held_out, train_photos


def at_hand(run: Run, representation: Representation) -> tuple[Photos, Photos | None] | tuple[None, None]:
    """The `photos_of` a run, if they are still as they were; warns where they are not."""
    try:
        return runs.photos_of(run, representation)
    except (ImageError, FeatureError, RunError) as error:
        warnings.warn(
            f"what the run was trained on is not there as it was, so no baseline is fitted on it: {error}",
            PreimageWarning,
            stacklevel=3,
        )
        return None, None


def kept_baselines(kept: Mapping[str, Inverter], trained_on: str, pairs: EncodedPhotos) -> list[Contender]:
    """What was kept with an inverter, and what can be fitted on the evaluated photographs without giving them away."""
    found = [Contender(baseline, trained_on) for baseline in list(kept.values())[1:]]
    if MeanImage.name not in kept:
        mean = MeanImage(pairs.representation).fit(pairs)
        found.insert(0, Contender(mean, f"the {len(pairs)} evaluated photographs"))
    if Nearest.name not in kept:
        others = f"the other {len(pairs) - 1} evaluated photographs"
        found.append(Contender(Nearest(pairs.representation, skip_same=True).fit(pairs), others))
    return found


def slow_baselines(
    names: Iterable[str | Path], pairs: EncodedPhotos, words: str, limit: int, *, unseen: bool
) -> list[Contender]:
    """Inverters from files, or by name fitted on pairs; unless those are `unseen`, only their mean colour is learnt."""
    found = []
    for name in names:
        if is_path(name):
            weights = zoo.given_weights(pairs.representation.settings)
            trusted = described(name)["name"] == pairs.representation.name  # which has run already
            inverter = load_inverter(name, trusted=trusted, **weights)
            fitted_on = f"its training photographs ({name})"
            if inverter.representation.fingerprint != pairs.representation.fingerprint:
                raise SettingsError(
                    f"{name} inverts {inverter.representation.name} with "
                    f"{inverter.representation.settings}, but evaluated is "
                    f"{pairs.representation.name} with {pairs.representation.settings}"
                )
        else:
            inverter, fitted_on = quick_inverter(str(name), pairs.representation), words
            if not unseen and name != GradientDescent.name:
                raise SettingsError(
                    f"{name} must be fitted on other photographs than those evaluated: give --train-images, or a file "
                    f"that `preimage fit {name}` wrote"
                )
            inverter.fit(pairs)
        found.append(Contender(inverter, fitted_on, limit))
    return found


def applies(baseline: str | Path, representation: Representation) -> bool:
    """Whether a slow baseline can invert a representation; a file's name and settings tell, it is not loaded."""
    if is_path(baseline):
        noted = described(baseline)
        own = json.loads(json.dumps(portable(representation)))  # tuples are lists, as files have them
        return all(own.get(key) == value for key, value in noted.items() if key != "weights")
    return baseline != GradientDescent.name or representation.smooth() is not None


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


TRAINED = {UpConv.name, Autoencoder.name}


def quick_inverter(name: str, representation: Representation, settings: Mapping[str, Any] | None = None) -> Inverter:
    """An inverter by name that is fitted without training."""
    if name in TRAINED:
        raise SettingsError(f"{name} is a network: train it by `preimage train {representation.name}`")
    if name not in INVERTERS:
        raise UnknownNameError("inverter that is fitted", name, INVERTERS.keys() - TRAINED)
    return make_inverter(name, representation, settings)


def fit_confidence(
    inverter: str | os.PathLike[str],
    images: Sources,
    output: str | Path,
    *,
    steps: int = 1000,
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
    kept = load_kept(inverter, **(settings or {}))
    main = main_of(kept)
    fit = fit or fit_of(inverter) or "crop"
    photos = Photos.open(images, main.representation.image_size, fit)
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed)).tolist()
    photos = photos.subset(order).load()
    warn_left_out(photos.left_out)
    pairs = EncodedPhotos(main.representation, photos, batch_size=16, device=device)
    training = dataclasses.replace(CONFIDENCE, steps=steps)
    main.confidence = Confidence(main, seed=seed).fit(pairs, training, on_progress)
    save_inverters(list(kept.values()), output)
    return main


def saved_contenders(
    kept: Mapping[str, Inverter],
    run: Run | None,
    images: list[str],
    features: str | Path | None,
    fit: Fit | None,
    limit: int | None,
    device: str,
) -> tuple[list[Contender], Photos]:
    """Who is judged by `evaluate` on what, for an inverter of saved features, which may be a run's."""
    main = main_of(kept)
    trained = main.representation
    assert isinstance(trained, SavedFeatures)
    judged, photos, train_photos = judged_pairs(trained, run, images, features, fit)
    if run is not None and train_photos is not None:
        train_photos = train_photos.load()
        words = f"{sources_in_words(run.settings.photos.train)} ({len(train_photos)} photographs)"
        contenders = [Contender(main, words), *fit_baselines(trained, train_photos, words, device)]
    else:
        contenders = [Contender(own, "its training photographs") for own in kept.values()]
    contenders = [dataclasses.replace(one, inverter=reading(judged, one.inverter)) for one in contenders]
    return contenders, photos.load(limit)


def reading(representation: Representation, inverter: Inverter) -> Inverter:
    """The same inverter on another representation of the same features."""
    other = copy.copy(inverter)
    other.representation = representation
    return other


def judged_pairs(
    trained: SavedFeatures, run: Run | None, images: list[str], features: str | Path | None, fit: Fit | None
) -> tuple[SavedFeatures, Photos, Photos | None]:
    """What an inverter of saved features is judged on, the photographs of it, and what its run was trained on."""
    if run is None and (features is None or not images):
        raise SettingsError(
            f"{trained.name} has no encoder: give saved pairs, by `preimage evaluate` with --features and --images"
        )
    judged = trained if features is None else SavedFeatures(features, trained.image_size)
    check_like(judged, trained)
    train_photos, held_out = at_hand(run, trained) if run else (None, None)
    validated = run.settings.photos.validation if run and features is None else ()
    if images or validated:
        fit = fit or (run.settings.photos.fit if run else "crop")
        photos = judged.match(Photos.open(images or validated, trained.image_size, fit))
        return judged, without(photos, train_photos) if images and train_photos else photos, train_photos
    if features is not None or held_out is None:
        raise SettingsError("name the photographs that the features belong to, by --images")
    return judged, held_out, train_photos


def without(photos: Photos, train_photos: Photos) -> Photos:
    """The photographs that are not among those an inverter was trained on."""
    seen = photos.among(train_photos)
    if all(seen):
        raise FeatureError("the inverter was trained on all of these photographs: name others")
    part = photos.subset(index for index, trained_on in enumerate(seen) if not trained_on)
    names = [own for own, trained_on in zip(photos.ids, seen, strict=True) if trained_on]
    part.left_out |= dict.fromkeys(names, "the inverter was trained on it")
    return part


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
