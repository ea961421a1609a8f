"""Who is judged on what: an inverter's photographs and its baselines, by default those of its own training."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from preimage import runs
from preimage.errors import FeatureError, ImageError, PreimageWarning, RunError, SettingsError, UnknownNameError
from preimage.evaluation import Contender, fit_baselines
from preimage.images import Fit, Photos, sources_in_words, warn_left_out
from preimage.interfaces import Inverter, Representation
from preimage.inverters import (
    INVERTERS,
    Autoencoder,
    GradientDescent,
    MeanImage,
    Nearest,
    UpConv,
    main_of,
    make_inverter,
    portable,
)
from preimage.kept import Kept, is_path
from preimage.pairs import EncodedPhotos
from preimage.representations import SavedFeatures
from preimage.representations.saved import check_like
from preimage.runs import Run

TRAINED = {UpConv.name, Autoencoder.name}
UNKNOWN = "its training photographs"  # of which no more is known


# --- photographs ------------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """What an inverter is judged on, and what it was trained on where that was asked for and is at hand."""

    representation: Representation  # the inverter's own; of saved features those that are judged
    photos: Photos
    places: Sequence[str]  # where they lie; none for those that the run held out
    trained_on: Photos | None

    def load(self, limit: int | None) -> Photos:
        """The first photographs that can be read; warns of those that were trained on."""
        photos = self.photos.first(None).load(limit)
        if self.trained_on is not None:
            runs.warn_seen(photos.among(self.trained_on), "were trained on")
        return photos


def judged(
    kept: Kept,
    representation: Representation,
    images: Sequence[str] = (),
    features: str | Path | None = None,
    fit: Fit | None = None,
    *,
    trained_on: bool = False,
) -> Judged:
    """What an inverter is judged on: `images`, by default those that its run was validated on.

    Of saved features those of the file `features`, by default the run's own; photographs it was trained on are left
    out. `trained_on` asks for what the inverter was trained on.
    """
    run, own = kept.run, representation
    given = isinstance(representation, SavedFeatures) and bool(images)  # pairs, some of which may have been trained on
    if isinstance(representation, SavedFeatures):
        if run is None and not (features and images):
            raise SettingsError(
                f"{representation.name} has no encoder: give saved pairs, by `preimage evaluate` with --features and "
                "--images"
            )
        if features is not None:
            own = SavedFeatures(features, representation.image_size)
            check_like(own, representation)
    elif features is not None:
        raise SettingsError(f"{representation.name} encodes photographs itself: leave out the saved features")
    places = images or (run.settings.photos.validation if run and features is None else ())
    wanted = trained_on or given or not places
    train_photos, held_out = at_hand(run, representation) if run and wanted else (None, None)
    if not places:
        if held_out is None or features is not None:
            raise SettingsError("name the photographs to judge it on, by --images")
        return Judged(own, held_out, places, train_photos)
    photos = Photos.open(places, representation.image_size, fit or kept.fit)
    photos = own.match(photos) if isinstance(own, SavedFeatures) else photos
    photos = without(photos, train_photos) if given and train_photos is not None else photos
    return Judged(own, photos, places, train_photos)


def at_hand(run: Run, representation: Representation) -> tuple[Photos, Photos | None] | tuple[None, None]:
    """The `photos_of` a run, if they are still as they were; warns where they are not."""
    try:
        return runs.photos_of(run, representation)
    except (ImageError, FeatureError, RunError) as error:
        warnings.warn(
            f"what {run.folder} was trained on is not there as it was: {error}", PreimageWarning, stacklevel=1
        )  # here: Python repeats none of one place
        return None, None


def without(photos: Photos, train_photos: Photos) -> Photos:
    """The photographs that are not among those an inverter was trained on."""
    seen = photos.among(train_photos)
    if all(seen):
        raise FeatureError("the inverter was trained on all of these photographs: name others")
    part = photos.subset(index for index, trained_on in enumerate(seen) if not trained_on)
    names = [photo_id for photo_id, trained_on in zip(photos.ids, seen, strict=True) if trained_on]
    part.left_out |= dict.fromkeys(names, "the inverter was trained on it")
    return part


# --- contenders -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Basis:
    """What baselines are fitted on, in words too; `unseen`: others than those that are judged."""

    pairs: EncodedPhotos
    words: str
    unseen: bool


def basis_of(
    representation: Representation, train_photos: Photos | None, words: str, photos: Photos, device: str
) -> Basis:
    """Photographs to train on, which are called so in `words`; without any the judged `photos` must do."""
    if train_photos is None:
        pairs = EncodedPhotos(representation, photos, device=device)
        return Basis(pairs, f"the {len(photos)} evaluated photographs", unseen=False)
    train_photos = train_photos.load()
    warn_left_out(train_photos.left_out)
    pairs = EncodedPhotos(representation, train_photos, device=device)
    return Basis(pairs, f"{words} ({len(train_photos)} photographs)", unseen=True)


def encoding_contenders(
    kept: Mapping[str, Inverter], trained_on: str, basis: Basis, baselines: Iterable[str | Path], limit: int
) -> list[Contender]:
    """An inverter whose representation encodes photographs, its usual baselines, and slow ones on `limit` photographs.

    What was given takes the place of a usual one.
    """
    main = main_of(kept)
    pairs = basis.pairs
    usual = fit_baselines(pairs, basis.words) if basis.unseen else kept_baselines(kept, trained_on, pairs)
    given = slow_baselines(baselines, basis, limit)
    names = {main.name, *(contender.inverter.name for contender in given)}
    usual = [contender for contender in usual if contender.inverter.name not in names]
    return [Contender(main, trained_on), *usual, *given]


def saved_contenders(kept: Mapping[str, Inverter], run: Run | None, found: Judged, device: str) -> list[Contender]:
    """An inverter of saved features, then its baselines, which are those of its own training."""
    main = main_of(kept)
    if run is not None and found.trained_on is not None:
        train_photos = found.trained_on.load()
        fitted_on = f"{sources_in_words(run.settings.photos.train)} ({len(train_photos)} photographs)"
        baselines = fit_baselines(EncodedPhotos(main.representation, train_photos, device=device), fitted_on)
        contenders = [Contender(main, fitted_on), *baselines]
    else:
        contenders = [Contender(inverter, UNKNOWN) for inverter in kept.values()]
    return [
        dataclasses.replace(contender, inverter=reading(found.representation, contender.inverter))
        for contender in contenders
    ]


def reading(representation: Representation, inverter: Inverter) -> Inverter:
    """The same inverter on another representation of the same features."""
    other = copy.copy(inverter)
    other.representation = representation
    return other


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


def slow_baselines(names: Iterable[str | Path], basis: Basis, limit: int) -> list[Contender]:
    """Inverters from files, or by name fitted here; of photographs that are judged, only the mean colour is learnt."""
    found, pairs = [], basis.pairs
    for name in names:
        if is_path(name):
            inverter = main_of(Kept.of(name).load_beside(pairs.representation.description))
            fitted_on = f"its training photographs ({name})"
            if inverter.representation.fingerprint != pairs.representation.fingerprint:
                raise SettingsError(
                    f"{name} inverts {inverter.representation.name} with "
                    f"{inverter.representation.settings}, but evaluated is "
                    f"{pairs.representation.name} with {pairs.representation.settings}"
                )
        else:
            inverter, fitted_on = quick_inverter(str(name), pairs.representation), basis.words
            if not basis.unseen and name != GradientDescent.name:
                raise SettingsError(
                    f"{name} must be fitted on other photographs than those evaluated: give --train-images, or a file "
                    f"that `preimage fit {name}` wrote"
                )
            inverter.fit(pairs)
        found.append(Contender(inverter, fitted_on, limit))
    return found


def applies(baseline: str | Path, inverter: Inverter) -> bool:
    """Whether a slow baseline can invert what an inverter does; a file's name and settings tell, it is not loaded.

    Those in files do not know the encoder that an autoencoder trained.
    """
    representation = inverter.representation
    if not is_path(baseline):
        return baseline != GradientDescent.name or representation.smooth() is not None
    noted: dict[str, Any] = Kept.of(baseline).representation
    own = json.loads(json.dumps(portable(representation.description)))  # tuples are lists, as files have them
    same = all(own.get(key) == value for key, value in noted.items() if key != "weights")
    return same and inverter.origin is representation


def quick_inverter(name: str, representation: Representation, settings: Mapping[str, Any] | None = None) -> Inverter:
    """An inverter by name that is fitted without training."""
    if name in TRAINED:
        raise SettingsError(f"{name} is a network: train it by `preimage train {representation.name}`")
    if name not in INVERTERS:
        raise UnknownNameError("inverter that is fitted", name, INVERTERS.keys() - TRAINED)
    return make_inverter(name, representation, settings)
