"""The library's front door: names and paths in, results out. What the sub-commands do, they do here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from preimage import runs, zoo
from preimage.config import Settings, load_preset, make_settings, preset_names
from preimage.decoders import DECODERS
from preimage.errors import WeightsError
from preimage.evaluation import Contender, Evaluation, fit_baselines
from preimage.evaluation import evaluate as evaluate_contenders
from preimage.images import Fit, Photos, steps_per_epoch
from preimage.interfaces import Inverter, ignore, never
from preimage.inverters import INVERTERS, MeanImage, Nearest, load_inverters
from preimage.networks.weights import PUBLISHED
from preimage.pairs import EncodedPhotos
from preimage.representations import REPRESENTATIONS, get_representation
from preimage.runs import Reporter, Run

Sources = str | Path | Iterable[str | Path]

SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")  # free to show: scikit-image's wheel


def is_path(name: str | Path) -> bool:
    """A plain name means what ships; anything with a slash, or a safetensors file, is a path."""
    text = str(name)
    return isinstance(name, Path) or "/" in text or "\\" in text or text.endswith(".safetensors")


def load_inverter(name: str | Path, **settings: Any) -> Inverter:
    """A trained inverter: a shipped one by name (`"hog"`), a run folder (`"./runs/hog"`), or a file of inverters.

    `settings` go to its representation: `weights="FILE"` for a network whose weights are yours to bring. Raises
    `UnknownNameError`, `RunError` or `WeightsError`.
    """
    return next(iter(load_contenders(name, **settings).values()))


def load_contenders(name: str | Path, **settings: Any) -> dict[str, Inverter]:
    """An inverter and, where they were kept with it, its baselines; the main one first."""
    if not is_path(name):
        return zoo.load_shipped(str(name), **settings)
    if Path(name).is_file():
        return load_inverters(name, **settings)
    return {"upconv": runs.load_inverter(name, **settings)}


def training_time(name: str, photos: int = 10_000, device: str | None = None) -> str:
    """How long training an inverter would take here, in words; some steps are tried, which takes seconds."""
    settings = make_settings(load_preset(name))
    pace, batch_size = runs.measure_pace(settings, device), settings.training.batch_size
    epochs = settings.training.epochs or runs.DEFAULT_EPOCHS
    whole = pace * epochs * steps_per_epoch(photos, batch_size)
    return (
        f"here 1,000 steps of {batch_size} photographs take about {pace * 1000 / 60:.0f} min; "
        f"the {epochs:.0f} passes of its preset over {photos:,} photographs, {whole / 3600:.1f} h"
    )


def fit_of(run: str | Path) -> Fit | None:
    """How a run made its photographs square; None for a file, which does not know."""
    return Run.open(run).settings.photos.fit if Path(run).is_dir() else None


def train(
    preset: str,
    images: Sources,
    run: str | Path,
    *,
    validation: Sources = (),
    overrides: Iterable[str] = (),
    seed: int = 0,
    device: str | None = None,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = never,
) -> Run:
    """Train an inverter on photographs into a new run folder.

    `preset` names the settings to start from; `overrides` are texts such as `"training.minutes=30"`. Raises
    `PreimageError` with advice for anything a caller can mend.
    """
    settings = training_settings(preset, images, validation, overrides, seed)
    return runs.train(settings, run, device=device, reporter=reporter, should_stop=should_stop)


def training_settings(
    preset: str, images: Sources, validation: Sources = (), overrides: Iterable[str] = (), seed: int = 0
) -> Settings:
    """What `train` would run with."""
    overrides = list(overrides)
    tables = load_preset(preset)
    budgets = {"training.steps", "training.epochs", "training.minutes"}
    if budgets & {override.partition("=")[0].strip() for override in overrides}:
        for budget in ("steps", "epochs", "minutes"):  # a budget given replaces the preset's
            tables["training"].pop(budget, None)
    tables["photos"] = {"train": as_texts(images), "validation": as_texts(validation)}
    return make_settings(tables | {"seed": seed}, overrides)


def as_texts(sources: Sources) -> list[str]:
    return [str(sources)] if isinstance(sources, str | Path) else [str(source) for source in sources]


def evaluate(
    inverter: str | Path | Inverter,
    images: Sources,
    *,
    train_images: Sources | None = None,
    described: str | None = None,
    fit: Fit | None = None,
    device: str = "cpu",
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] = ignore,
) -> Evaluation:
    """An inverter beside its baselines and its control, on photographs it has not seen.

    Baselines are fitted on `train_images`, by default those a run was trained on. Without any, the mean image and the
    ridge regression kept with a shipped inverter serve, and the nearest neighbour is sought among the other evaluated
    photographs. `fit` is by default as the run had it, else "crop". `limit` takes the first so many photographs;
    `described` says in the table which photographs these are. `settings` are those of `load_inverter`.
    """
    if isinstance(inverter, Inverter):
        kept = {inverter.name: inverter}
    else:
        kept = load_contenders(inverter, **(settings or {}))
    main = next(iter(kept.values()))
    representation = main.representation
    trained_on = "its training photographs"
    if not isinstance(inverter, Inverter) and is_path(inverter) and Path(inverter).is_dir():
        own = Run.open(inverter).settings.photos
        fit = fit or own.fit
        trained_on = ", ".join(own.train)
        train_images = train_images or own.train
    fit = fit or "crop"
    photos = Photos.open(images, representation.image_size, fit)
    if limit is not None:
        photos.photos = photos.photos[:limit]
    photos.load()

    contenders = [Contender(main, trained_on)]
    if train_images is not None:
        train_photos = Photos.open(train_images, representation.image_size, fit).load()
        words = f"{', '.join(as_texts(train_images))} ({len(train_photos)} photographs)"
        baselines = fit_baselines(representation, train_photos, words, device)
        contenders += [contender for contender in baselines if contender.inverter.name != main.name]
    else:
        pairs = EncodedPhotos(representation, photos, device=device)
        others = f"the other {len(photos) - 1} evaluated photographs"
        if MeanImage.name not in kept:
            mean = MeanImage(representation).fit(pairs)
            contenders.append(Contender(mean, f"the {len(photos)} evaluated photographs"))
        contenders += [Contender(baseline, trained_on) for name, baseline in kept.items() if baseline is not main]
        if Nearest.name not in kept:
            contenders.append(Contender(Nearest(representation, skip_same=True).fit(pairs), others))
    described = described or ", ".join(as_texts(images))
    return evaluate_contenders(contenders, photos, described, device=device, on_progress=on_progress)


def sample_files() -> list[Path]:
    """Free photographs that come with scikit-image: an astronaut, a cat, a cup of coffee, a rocket."""
    folder = Path(str(resources.files("skimage") / "data"))
    return [folder / name for name in SAMPLES]


def sample_photos(image_size: int = 256) -> Photos:
    """The sample photographs, decoded to `image_size` pixels."""
    return Photos.open(sample_files(), image_size)


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
        "decoders": {name: first_line(table) for name, table in DECODERS.items()},
        "inverters": {name: first_line(kind) for name, kind in INVERTERS.items()},
        "analyses": {},  # none in this version
        "presets": preset_names(),
        "shipped": {name: zoo.summary(name) for name in zoo.shipped()},
    }
