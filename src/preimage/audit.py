"""How much of a photo do these embeddings give away? What someone with example pairs can rebuild, and with how many.

Attackers (a trained network, ridge regression, the nearest neighbour, the mean image) learn from training pairs and
are judged on photographs that none of them has seen, near duplicates left out. Two controls are always there: learnt
from shuffled pairs, and given the features of another image. An error that stays high proves nothing about a better
attacker; the sentences of `summary` say so.
"""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from preimage import leakage, training
from preimage.audit_summary import ALPHA, summary
from preimage.defaults import AUDIT_SIZE, AUDIT_STEPS, QUICK_AUDIT_STEPS
from preimage.defences import FLOAT_BYTES, Changed, Defence, fit_defences, neighbours_kept, neighbours_of
from preimage.errors import FeatureError, PreimageWarning, RunError, SettingsError
from preimage.files import read_json, write_json
from preimage.images import Augmentation, Fit, Photos, Sources, TrainingStream, at_most, split
from preimage.interfaces import Inverter, Representation, ignore, short_hash
from preimage.inverters import MeanImage, Nearest, Ridge, UpConv, make_inverter
from preimage.metrics import distance, mean_and_sem, mean_pairwise_distance, ssim
from preimage.networks.weights import values_hash
from preimage.pairs import EncodedPhotos
from preimage.randomness import check_seed
from preimage.representations import SavedFeatures
from preimage.representations.saved import check_like
from preimage.runs import examples
from preimage.training import TrainingSettings, TrainingState

Row = dict[str, Any]

NETWORK, RIDGE, NEAREST, MEAN = UpConv.name, Ridge.name, Nearest.name, MeanImage.name
ATTACKERS = (NETWORK, RIDGE, NEAREST, MEAN)
TESTS = 2 * (len(ATTACKERS) - 1)  # of which the best is chosen: error and picks of each attacker that learns
WORK = {RIDGE: 60, NEAREST: 10, MEAN: 5}  # about so many steps of the network's training
FEWEST_TRAIN, FEWEST_TEST = 20, 10
LEAST = 32  # pairs at the beginning of the learning curve
PASSES = 60  # of the network over its pairs, at most
LOOKS = 10  # how often the network is tried on the pairs it held out
NETWORK_DEFENCES = {("noise", 1), ("quantisation", 1), ("binarisation", 1)}  # by name and strength
SHOWN = 6  # photographs on the page
FEW = 200  # photographs, of which the parts are counted closely
FITTED_ON = 2000  # photographs, of a defence


@dataclass(frozen=True)
class AuditSettings:
    """How thorough an audit is. `quick` leaves out the learning curve and the defences.

    `steps` are those of a network's training, at most: by default `AUDIT_STEPS`, `QUICK_AUDIT_STEPS` of a quick audit.
    """

    quick: bool = False
    image_size: int = AUDIT_SIZE
    steps: int | None = None
    width: float = 0.5  # of the network
    sizes: int = 5  # of the training sets of the learning curve
    seeds: int = 3
    seed: int = 0
    test_share: float = 0.2
    max_test: int = 500
    max_train: int = 20_000
    false_match_rate: float = 0.01
    permutations: int = 9999
    keep_duplicates: bool = False

    def __post_init__(self) -> None:
        if self.steps is None:
            object.__setattr__(self, "steps", QUICK_AUDIT_STEPS if self.quick else AUDIT_STEPS)
        for name in ("image_size", "steps", "width", "sizes", "seeds", "max_test", "max_train", "permutations"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} is positive, got {getattr(self, name)}")
        if self.permutations < (least := math.ceil(TESTS / ALPHA)):
            raise SettingsError(
                f"{self.permutations} permutations can show nothing at p < {ALPHA:g}: take at least {least}"
            )
        check_seed(self.seed)
        for name in ("test_share", "false_match_rate"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Audit:
    """What came out: `content` as plain values, and pictures of some photographs beside what was rebuilt of them."""

    content: dict[str, Any]
    pictures: dict[str, Tensor]
    captions: list[str]


@dataclass(frozen=True)
class AttackMaterial:
    """Training pairs, whose features are looked up when they are needed, and test pairs in memory."""

    representation: Representation
    train: Photos
    test_ids: list[str]
    test_images: Tensor  # (k, 3, S, S)
    test_features: Tensor  # (k, *feature_shape)
    labels: list[str]  # of the test photographs; empty where they have none
    why_no_labels: str
    pairwise: float  # N of the NRE, over the test photographs
    facts: dict[str, Any] = field(default_factory=dict)

    def pairs(self, size: int | None = None, seed: int = 0) -> EncodedPhotos:
        """So many training pairs at random; by default all."""
        photos = self.train
        if size is not None and size < len(photos):
            chosen = np.random.default_rng((seed, size)).choice(len(photos), size, replace=False)
            photos = photos.subset(chosen.tolist())
        return EncodedPhotos(self.representation, photos)

    def fingerprint(self, settings: AuditSettings, device: str) -> str:
        """Of all that an audit's numbers depend on."""
        seen = [values_hash(batch) for _, batch in self.train.batches(FEW)]
        tested = [values_hash(self.test_images), values_hash(self.test_features)]
        who = [version("preimage"), self.representation.fingerprint, device, asdict(settings)]
        return short_hash([*who, self.train.ids, seen, self.test_ids, tested])

    def defended(self, defence: Defence) -> AttackMaterial:
        """The same photographs, their features changed."""
        changed = Changed(self.representation, defence.words, defence.shape, defence.change)
        return replace(self, representation=changed, test_features=defence.change(self.test_ids, self.test_features))

    def shuffled(self, seed: int) -> AttackMaterial:
        """Every training photograph with the features of another."""
        ids = self.train.ids
        partner = {ids[one]: ids[other] for one, other in enumerate(partners(len(ids), seed))}
        inner = self.representation

        def look_up(own: Sequence[str], features: Tensor) -> Tensor:
            return inner.encode_photos([partner[one] for one in own], features)

        return replace(self, representation=Changed(inner, "shuffled", inner.feature_shape, look_up))


def partners(count: int, seed: int) -> list[int]:
    """Another place for each place, at random: neighbours in a folder may be alike."""
    order = np.random.default_rng(seed).permutation(count)
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    return [int(other) for other in others]


class Work:
    """Adds up the work of an audit, in steps of a network's training, and tells what is done and of what."""

    def __init__(self, on_progress: Callable[[str, int, int], None]) -> None:
        self.on_progress, self.stage, self.done, self.total = on_progress, "", 0, 1

    def begin(self, stage: str) -> None:
        self.stage = stage
        self.advance(0)

    def advance(self, work: int) -> None:
        self.done += work
        self.on_progress(self.stage, min(self.done, self.total), self.total)


class Journal:
    """What an audit has found so far, in a file if one is named, so that the same audit can go on from there."""

    def __init__(self, file: str | Path | None, audit: str) -> None:
        self.file, self.audit = None if file is None else Path(file), audit
        self.rows: dict[str, Row] = self.audits().get(audit, {})

    def audits(self) -> dict[str, Any]:
        """What the file keeps, by audit; nothing of one that is damaged."""
        if self.file is None or not self.file.exists():
            return {}
        try:
            return read_json(self.file)
        except RunError as error:
            warnings.warn(f"{error}: this audit begins anew", PreimageWarning, stacklevel=1)
            return {}

    def add(self, what: str, row: Row) -> None:
        self.rows[what] = row
        if self.file is not None:
            write_json(self.file, self.audits() | {self.audit: self.rows})


def judge_features(
    features: str | Path,
    images: Sources,
    *,
    test_features: str | Path | None = None,
    test_images: Sources | None = None,
    labels: str | Path | None = None,
    settings: AuditSettings | None = None,
    fit: Fit = "crop",
    device: str = "cpu",
    journal: str | Path | None = None,
    on_progress: Callable[[str, int, int], None] = ignore,
) -> Audit:
    """Attack saved features of photographs, and say how far one gets.

    Test pairs are split off at random unless they are given. `labels` is a CSV file (photograph, class); without it,
    shards, tables and the names of folders may give classes. `journal` is a file that keeps what was found: the same
    audit, if it was stopped, goes on from there. `on_progress` gets (stage, work done, all work).
    """
    began = time.monotonic()
    settings = settings or AuditSettings()
    material = open_material(features, images, test_features, test_images, labels, settings, fit)
    sizes, defences = [], []
    if not settings.quick:
        sizes = curve_sizes(len(material.train), settings.sizes)
        defences = fit_defences(sample_of(material), settings.seed)
    work = Work(on_progress)
    work.total = work_of(len(material.train), sizes, defences, settings)
    attack = Attack(settings, work, device, Journal(journal, material.fingerprint(settings, device) if journal else ""))

    built = {}
    for name in ATTACKERS:
        work.begin(name)
        attacker = attack.learn(name, material.pairs(), settings.seed)
        built[name] = attack.rebuild(attacker, material.test_features)
        if name != MEAN and best_of(material, built) == name:
            best = attacker
    rows = [judge(name, built, material, settings) for name in ATTACKERS]
    chosen = best_of(material, built)
    content: dict[str, Any] = {
        "n_train": len(material.train),
        "n_test": len(material.test_ids),
        "feature_shape": list(material.representation.feature_shape),
        "rows": rows,
        "best": chosen,
        "above_chance_p": above_chance(rows),
        "shuffled": shuffled_control(material, built[MEAN], attack),
        "other_image": {"attacker": chosen}
        | errors_of(attack.rebuild(best, others_of(material, settings.seed)), material),
        "classes": class_leakage(built[chosen], material, settings),
        "curve": learning_curve(material, sizes, attack),
        "defences": attack_defences(material, defences, rows, built[MEAN][:1], attack),
        "neighbours": neighbours_of(len(material.test_ids)),
        **material.facts,
        "settings": asdict(settings),
        "pairwise_distance": material.pairwise,
        "device": device,
    }
    content |= {"summary": summary(content), "seconds": round(time.monotonic() - began, 1)}
    order = distance(material.test_images, built[chosen]).argsort()
    places = order[torch.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().long()]
    names = [chosen, *(name for name in ATTACKERS if name != chosen)]
    pictures = {"photograph": material.test_images[places], **{name: built[name][places] for name in names}}
    return Audit(content, pictures, [material.test_ids[place] for place in places.tolist()])


# --- photographs and their features -----------------------------------------------------------------------------------


def open_material(
    features: str | Path,
    images: Sources,
    test_features: str | Path | None,
    test_images: Sources | None,
    labels: str | Path | None,
    settings: AuditSettings,
    fit: Fit,
) -> AttackMaterial:
    """Match, split, load, and take from the test side what is nearly the same on the training side."""
    if (test_features is None) != (test_images is None):
        raise SettingsError("test pairs are two things: give both test features and test images, or neither")
    own = SavedFeatures(features, settings.image_size)
    photos = own.match(Photos.open(images, settings.image_size, fit))
    tested = own
    if test_features is not None and test_images is not None:
        tested = SavedFeatures(test_features, settings.image_size)
        check_like(tested, own)
        train, test = photos, tested.match(Photos.open(test_images, settings.image_size, fit))
    else:
        if len(photos) < FEWEST_TRAIN + FEWEST_TEST:
            raise too_few(str(len(photos)))
        if len(photos) < FEW:
            photos = photos.load()  # damaged ones must not count
        share = min(max(settings.test_share, FEWEST_TEST / len(photos)), settings.max_test / len(photos))
        train, test = split(photos, share, settings.seed)
    train = at_most(train, settings.max_train, settings.seed).load()
    test = at_most(test, settings.max_test, settings.seed).load()
    left_out = train.left_out | test.left_out
    pictures = torch.cat([batch for _, batch in test.batches()])
    copies = leakage.near_duplicates(pictures, (batch for _, batch in train.batches(256)))
    duplicates = [{"test": test.ids[a], "train": train.ids[b]} for a, b in copies]
    if not settings.keep_duplicates:
        known = {place for place, _ in copies}
        test = test.subset(place for place in range(len(test)) if place not in known)
    enough(len(train), len(test), duplicates=0 if settings.keep_duplicates else len(duplicates))
    pictures = torch.cat([batch for _, batch in test.batches()])
    classes, why = labels_of(test, labels)
    facts = {
        "matched_by": own.matched_by,
        "features": own.file,
        "sha256": own.sha256,
        "test_pairs": None if tested is own else {"features": tested.file, "matched_by": tested.matched_by},
        "image_size": settings.image_size,
        "near_duplicates": {"found": duplicates, "removed": not settings.keep_duplicates},
        "left_out": left_out,
    }
    return AttackMaterial(
        own, train, test.ids, pictures, tested.encode_photos(test.ids, pictures), classes, why,
        mean_pairwise_distance(pictures), facts,
    )  # fmt: skip


def enough(train: int, test: int, duplicates: int = 0) -> None:
    """Raise `FeatureError` where an audit would be about too few photographs to say anything."""
    if train < FEWEST_TRAIN or test < FEWEST_TEST:
        copies = f" ({duplicates} near duplicates were taken from the test side)" if duplicates else ""
        raise too_few(f"{train} and {test}{copies}")


def too_few(got: str) -> FeatureError:
    return FeatureError(
        f"an audit needs at least {FEWEST_TRAIN} training and {FEWEST_TEST} test pairs, got {got}: give more pairs"
    )


def labels_of(photos: Photos, file: str | Path | None) -> tuple[list[str], str]:
    """The class of every photograph, empty where it has none; and why there are none at all."""
    if file is not None:
        try:
            with Path(file).open(newline="", encoding="utf-8-sig") as handle:
                pairs = {line[0]: line[1] for line in csv.reader(handle) if len(line) > 1}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SettingsError(f"{file} cannot be read as labels, a line `photograph,class` each: {error}") from error
        labels = [pairs.get(own, pairs.get(Path(own).name, pairs.get(Path(own).stem, ""))) for own in photos.ids]
        if not any(labels):
            raise SettingsError(f"{file} names none of the photographs; the first is {photos.ids[0]}")
        return labels, ""
    if any(label is not None for label in photos.labels):
        return ["" if label is None else str(label) for label in photos.labels], ""
    folders = [str(Path(own).parent) for own in photos.ids]
    if all("/" in own for own in photos.ids) and len(set(folders)) > 1:
        return folders, ""
    return [""] * len(photos), "no labels"


def sample_of(material: AttackMaterial) -> Tensor:
    """Features of some training photographs, for defences to be fitted on."""
    return torch.cat([batch.features for batch in material.pairs(FITTED_ON)])


# --- attackers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """How attackers learn and rebuild, and who is told of it."""

    settings: AuditSettings
    work: Work
    device: str
    journal: Journal

    def judged(self, stage: str, name: str, pairs: EncodedPhotos, seed: int, judge: Callable[[Inverter], Row]) -> Row:
        """What is found out about an attacker that has learnt from these pairs; in the journal if it was before."""
        self.work.begin(f"{stage}: {name}")
        what = f"{stage}: {name}, seed {seed}"
        if what in self.journal.rows:
            self.work.advance(cost(name, len(pairs), self.settings))
        else:
            self.journal.add(what, judge(self.learn(name, pairs, seed)))
        return self.journal.rows[what]

    def learn(self, name: str, pairs: EncodedPhotos, seed: int) -> Inverter:
        """An attacker that has learnt from these pairs."""
        pairs = replace(pairs, device=self.device)
        if name == NETWORK:
            return train_network(pairs, self.settings, seed, self.work)
        attacker = make_inverter(name, pairs.representation).fit(pairs)
        self.work.advance(cost(name, len(pairs), self.settings))
        return attacker

    def rebuild(self, attacker: Inverter, features: Tensor) -> Tensor:
        """Reconstructions (k, 3, S, S) on the CPU."""
        return torch.cat([attacker.invert(part.to(self.device)).cpu() for part in torch.split(features, 64)])


def network_steps(pairs: int, settings: AuditSettings) -> int:
    assert settings.steps is not None
    return min(settings.steps, PASSES * max(1, pairs // 32))


@training.learning()
def train_network(pairs: EncodedPhotos, settings: AuditSettings, seed: int, work: Work) -> UpConv:
    """The up-convolutional network, stopped where it did best on a tenth of the pairs, which it does not learn from."""
    photos, held_out = split(pairs.photos, 0.1, seed)
    representation, steps = pairs.representation, network_steps(len(pairs), settings)
    plan = TrainingSettings(
        steps=steps,
        batch_size=min(32, len(photos)),
        warmup_steps=100,
        ema_decay=0.99,
        grid_weight=0,
        evaluate_every=max(1, steps // LOOKS),
        checkpoint_every=steps,
    )
    attacker = UpConv(representation, "compact", settings.width, seed)
    accelerator = training.make_accelerator(pairs.device)
    stream = TrainingStream(photos, plan.batch_size, seed, Augmentation(flip=False, min_scale=1.0))
    attacker.prepare(replace(pairs, photos=photos))
    least = torch.inf
    kept: dict[str, Tensor] = {}

    def look(state: TrainingState) -> None:
        nonlocal least, kept
        error = mean_error(attacker.use(state.best), replace(pairs, photos=held_out))
        if error < least:
            least, kept = error, {name: value.clone() for name, value in state.best.state_dict().items()}

    state = training.start(attacker.network, plan)
    batches = examples(stream, attacker, accelerator.device, 0)
    training.train(state, batches, steps, plan, accelerator, on_step=lambda _: work.advance(1), on_evaluate=look)
    return attacker.restore(kept)


def mean_error(attacker: Inverter, pairs: EncodedPhotos) -> float:
    """Mean distance between photographs and reconstructions."""
    distances = [distance(batch.images, attacker.invert(batch.features)) for batch in pairs]
    return float(torch.cat(distances).mean())


# --- what came out ----------------------------------------------------------------------------------------------------


def errors_of(reconstructions: Tensor, material: AttackMaterial) -> Row:
    """NRE and SSIM with their standard errors."""
    nre, nre_sem = mean_and_sem((distance(material.test_images, reconstructions) / material.pairwise).tolist())
    alike, alike_sem = mean_and_sem(ssim(material.test_images, reconstructions).tolist())
    return {"nre": nre, "nre_sem": nre_sem, "ssim": alike, "ssim_sem": alike_sem}


def best_of(material: AttackMaterial, built: dict[str, Tensor]) -> str:
    """The attacker with the least error, the mean image aside."""
    errors = {name: float(distance(material.test_images, own).mean()) for name, own in built.items() if name != MEAN}
    return min(errors, key=lambda name: errors[name])


def judge(name: str, built: dict[str, Tensor], material: AttackMaterial, settings: AuditSettings) -> Row:
    """Everything about one attacker."""
    own, mean = built[name], built[MEAN][:1]
    alike = leakage.likeness(own, material.test_images, mean)
    top1, top1_low, top1_high = leakage.share_with_interval(leakage.hits(alike))
    rate, rate_low, rate_high = leakage.share_with_interval(leakage.true_matches(alike, settings.false_match_rate))
    colour, colour_sem = mean_and_sem(leakage.colour_errors(material.test_images, own).tolist())
    return {
        "attacker": name,
        "n_train": len(material.train),
        **errors_of(own, material),
        "top1": top1,
        "top1_low": top1_low,
        "top1_high": top1_high,
        "top1_chance": 1 / len(own),
        "top1_p": leakage.identification_p(alike, settings.permutations, settings.seed),
        "false_match_rate": settings.false_match_rate,
        "true_match_rate": rate,
        "true_match_rate_low": rate_low,
        "true_match_rate_high": rate_high,
        "colour_error": colour,
        "colour_error_sem": colour_sem,
        "p": leakage.permutation_p(own, material.test_images, settings.permutations, settings.seed),
    }


def above_chance(rows: Sequence[Row]) -> float:
    """How probable the best attacker's success would be by luck, corrected for choosing the best of `TESTS`."""
    return min(1.0, TESTS * min(float(row[p]) for row in rows if row["attacker"] != MEAN for p in ("p", "top1_p")))


def others_of(material: AttackMaterial, seed: int) -> Tensor:
    """For every test photograph the features of another one."""
    return material.test_features[partners(len(material.test_ids), seed)]


def shuffled_control(material: AttackMaterial, mean: Tensor, attack: Attack) -> Row:
    """The network and ridge regression, learnt from shuffled pairs: the better one must do no better than the mean.

    `difference` is that from the mean image's NRE, photograph by photograph.
    """
    wrong = material.shuffled(attack.settings.seed)
    guessed = distance(material.test_images, mean)

    def judge(attacker: Inverter) -> Row:
        own = attack.rebuild(attacker, material.test_features)
        further = (distance(material.test_images, own) - guessed) / material.pairwise
        difference, sem = mean_and_sem(further.tolist())
        row = errors_of(own, material)
        return {"attacker": attacker.name, **row, "difference": difference, "difference_sem": sem}

    results = [
        attack.judged("control: shuffled pairs", name, wrong.pairs(), attack.settings.seed, judge)
        for name in (NETWORK, RIDGE)
    ]
    return min(results, key=lambda row: float(row["nre"]))


def class_leakage(reconstructions: Tensor, material: AttackMaterial, settings: AuditSettings) -> Row:
    """A linear probe's accuracy on reconstructions, beside that on the photographs themselves and the largest class."""
    if material.why_no_labels:
        return {"available": False, "reason": material.why_no_labels}
    places = leakage.frequent(material.labels)
    if not places:
        reason = f"no two classes have {leakage.FOLDS} test photographs each"
        return {"available": False, "reason": reason}
    labels = [material.labels[place] for place in places]
    results = {}
    for words, images in {"reconstructions": reconstructions, "photographs": material.test_images}.items():
        right = leakage.class_accuracy(images[places], labels, settings.seed)
        results[words] = dict(zip(("accuracy", "low", "high"), leakage.share_with_interval(right), strict=True))
    largest = max(labels.count(label) for label in set(labels)) / len(labels)
    return {"available": True, "n": len(labels), "classes": len(set(labels)), "chance": largest, **results}


def curve_sizes(pairs: int, count: int) -> list[int]:
    """Sizes of training sets, geometric, up to all pairs."""
    least = min(LEAST, max(FEWEST_TRAIN, pairs // 16))
    return sorted({round(size) for size in np.geomspace(least, pairs, count)})


def learning_curve(material: AttackMaterial, sizes: Sequence[int], attack: Attack) -> list[Row]:
    """Errors by the number of pairs an attacker has. `nre_sem` is over photographs and over seeds, added up."""
    rows: list[Row] = []
    settings = attack.settings

    def judge(attacker: Inverter) -> Row:
        return errors_of(attack.rebuild(attacker, material.test_features), material)

    for size in sizes:
        for name in ATTACKERS:
            stage = f"learning curve, {size} pairs"
            seeds = range(settings.seed, settings.seed + settings.seeds)
            results = [attack.judged(stage, name, material.pairs(size, seed), seed, judge) for seed in seeds]
            row: Row = {"n_train": size, "attacker": name, "seeds": settings.seeds}
            for measure in ("nre", "ssim"):
                row[measure], between = mean_and_sem([one[measure] for one in results])
                within = sum(one[f"{measure}_sem"] for one in results) / len(results)
                row[f"{measure}_sem"] = (within**2 + (between**2 if len(results) > 1 else 0.0)) ** 0.5
            rows.append(row)
    return rows


def attack_defences(
    material: AttackMaterial, defences: Sequence[Defence], rows: Sequence[Row], mean: Tensor, attack: Attack
) -> list[Row]:
    """What defended features still give away to attackers that learn from defended pairs, and what they still serve."""
    if not defences:
        return []
    size = int(np.prod(material.representation.feature_shape))
    undefended: Row = {
        "defence": "none",
        "strength": 0,
        "words": "as they are",
        "bytes": FLOAT_BYTES * size,
        "neighbours_kept": 1.0,
    }
    table = [
        undefended | {key: row[key] for key in ("attacker", "nre", "nre_sem", "ssim", "ssim_sem", "top1")}
        for row in rows
        if row["attacker"] in (NETWORK, RIDGE)
    ]
    for defence in defences:
        changed = material.defended(defence)
        facts = {
            "defence": defence.name,
            "strength": defence.strength,
            "words": defence.words,
            "bytes": defence.bytes,
            "neighbours_kept": neighbours_kept(material.test_features, changed.test_features),
        }

        def judge(attacker: Inverter, features: Tensor = changed.test_features) -> Row:
            own = attack.rebuild(attacker, features)
            top1 = float(leakage.hits(leakage.likeness(own, material.test_images, mean)).mean())
            return {"attacker": attacker.name, **errors_of(own, material), "top1": top1}

        stage = f"{defence.name}, {defence.words}"
        table += [
            facts | attack.judged(stage, name, changed.pairs(), attack.settings.seed, judge)
            for name in attackers_of(defence)
        ]
    return table


def attackers_of(defence: Defence) -> tuple[str, ...]:
    """Ridge regression attacks every defence, the network a few."""
    return (RIDGE, NETWORK) if (defence.name, defence.strength) in NETWORK_DEFENCES else (RIDGE,)


def cost(name: str, pairs: int, settings: AuditSettings) -> int:
    """The work of an attacker that learns from so many pairs, in steps of a network's training."""
    return network_steps(pairs, settings) if name == NETWORK else WORK[name]


def work_of(pairs: int, sizes: Sequence[int], defences: Sequence[Defence], settings: AuditSettings) -> int:
    """All that an audit will do, in steps of a network's training."""
    jobs = [*((name, pairs) for name in ATTACKERS), (NETWORK, pairs), (RIDGE, pairs)]
    jobs += [(name, size) for size in sizes for name in ATTACKERS for _ in range(settings.seeds)]
    jobs += [(name, pairs) for defence in defences for name in attackers_of(defence)]
    return sum(cost(name, size, settings) for name, size in jobs)
