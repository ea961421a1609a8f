"""Is it still the same photograph, and is what it shows still named? As others than the inverted features see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from preimage.analyses.conditions import (
    BATCH,
    CONTROL,
    KEPT,
    MEAN,
    SHOWN,
    anothers,
    conditions,
    encoded,
    percent,
    reconstructed,
    records_of,
    resized,
)
from preimage.errors import SettingsError, UnknownNameError, WeightsError
from preimage.findings import Analysis, Finding, Plot, Point, Record, Sheet, mean_in_words, points, summarise
from preimage.interfaces import Inverter, Representation
from preimage.metrics import wilson
from preimage.networks import NETWORKS, has_weights, load_network, on_device
from preimage.networks.classes import class_names
from preimage.networks.weights import fingerprint
from preimage.representations import REPRESENTATIONS, get_representation

PIXELS = "pixels"
PHOTOGRAPH = "photograph"
FEW = 5  # "among the first five"


# --- identity ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity(Analysis):
    """For every reconstruction all photographs in order of distance: in which place is its own?

    `spaces` are where distances are Euclidean: "pixels", or representations by name. One that is the inverted
    representation, or a layer of the same network, is marked: it judges its own work.
    """

    name: ClassVar[str] = "identity"
    question: ClassVar[str] = "Is the reconstruction nearer to its own photograph than to any other?"
    columns: ClassVar[Mapping[str, str]] = {
        "space": "distance in",
        "top1": "right one first, share ↑",
        "top5": "right one among five, share ↑",
        "rank": "place of the right one, mean ↓",
        "chance": "chance of the right one first, share",
    }
    spaces: tuple[str, ...] = (PIXELS, "hog", "efficientnet_lite0.pool")

    def __post_init__(self) -> None:
        for space in self.spaces:
            if space not in (PIXELS, *REPRESENTATIONS):
                raise UnknownNameError("space to compare in", space, [PIXELS, *REPRESENTATIONS])
        if not self.spaces:
            raise SettingsError("name at least one space to compare in, such as 'pixels'")

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        own, images = reconstructed(inverter, images), images.cpu()
        records: list[Record] = []
        for space in dict.fromkeys(self.spaces):
            photographs, pictures = (vectors(space, one) for one in (images, own))
            title = f"{space} (inverted itself)" if is_own(space, inverter.representation) else space
            for condition, found in ((KEPT, pictures), (CONTROL, anothers(pictures))):
                rank = ranks(torch.cdist(found, photographs))
                values = {"rank": rank, "top1": rank <= 1, f"top{FEW}": rank <= FEW}
                values = {name: value.double() for name, value in values.items()}
                records += records_of(ids, {"space": title, "condition": condition}, values)
        table = with_intervals(summarise(records, ["space", "condition"], ["top1", f"top{FEW}", "rank"]))
        plot = identity_plot(table)
        return Finding(self.name, self.question, identity_answer(table), table, records, [plot])


def identity_plot(table: Sequence[Record]) -> Plot:
    """Shares with their 95 % intervals, beside what chance finds."""
    series: dict[str, list[Point]] = {}
    for condition in (KEPT, CONTROL):
        rows = [row for row in table if row["condition"] == condition]
        words = "" if condition == KEPT else f", {CONTROL}"
        series |= {f"first{words}": shares(rows, "top1"), f"among {FEW}{words}": shares(rows, f"top{FEW}")}
    spaces = list(dict.fromkeys(str(row["space"]) for row in table))
    chance = float(table[0]["chance"])
    name = f"chance to be first ({percent(chance)}; among {FEW} {percent(min(1, FEW * chance))})"
    return Plot("distance in", "share found", series, "bars", spaces, level=chance, level_name=name)


def vectors(space: str, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) -> what distances are taken between (N, D), float64."""
    if space == PIXELS:
        return images.flatten(1).double()
    representation = get_representation(space)
    return encoded(representation, resized(images, representation.image_size)).flatten(1).double()


def ranks(distances: Tensor) -> Tensor:
    """Distances (N, N) from pictures to photographs -> the place (N,) of each picture's own, 1 the nearest.

    Photographs at the very same distance share their mean place: a picture that resembles all alike finds none.
    """
    own = distances.diagonal()[:, None]
    nearer, as_near = (distances < own).sum(dim=1), (distances == own).sum(dim=1)
    return nearer + (as_near + 1) / 2


def is_own(space: str, representation: Representation) -> bool:
    """Whether a space is the inverted representation, or belongs to the same network."""
    network = space.partition(".")[0]
    return same_network(network, None, representation) if network in NETWORKS else space == representation.name


def with_intervals(table: Sequence[Record]) -> list[Record]:
    """Beside every share its 95 % interval."""
    rows: list[Record] = []
    for row in table:
        shares = [name for name in row if f"{name}_sem" in row and name.startswith("top")]
        more: Record = {}
        for name in shares:
            more[f"{name}_low"], more[f"{name}_high"] = wilson(float(row[name]), int(row["n"]))
        rows.append(row | more | {"chance": 1 / int(row["n"])})
    return rows


def interval(row: Record, name: str) -> str:
    """`58 % (46 to 70 %)`."""
    return f"{percent(row[name])} ({100 * float(row[f'{name}_low']):.0f} to {100 * float(row[f'{name}_high']):.0f} %)"


def identity_answer(table: Sequence[Record]) -> str:
    parts = [
        f"{row['space']}: {interval(row, 'top1')} first, {percent(row[f'top{FEW}'])} among {FEW}"
        for row in table
        if row["condition"] == KEPT
    ]
    control = max(float(row["top1"]) for row in table if row["condition"] == CONTROL)
    n = int(table[0]["n"])
    return (
        f"Of {n} photographs the right one is the nearest, by distance in {'; '.join(parts)}. Chance is "
        f"{100 / n:.1f} %; with another photograph's features {percent(control)} at most. In brackets: 95 % intervals."
    )


# --- class ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Class(Analysis):
    """Whether classifiers still say of the reconstruction what they say of the photograph; no labels are needed.

    `classifiers` are networks by name; where none is named, all whose weights are at hand. `weights` are files of
    networks that bring none, by network. A classifier that is the inverted network is marked: it judges its own work.
    """

    name: ClassVar[str] = "class"
    question: ClassVar[str] = "Does a classifier still name what the photograph shows?"
    columns: ClassVar[Mapping[str, str]] = {
        "top1": "right one first, share ↑",
        "top5": "right one among five, share ↑",
        "probability": "probability of the photograph's class ↑",
    }
    classifiers: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for network in (*self.classifiers, *self.weights):
            if network not in NETWORKS:
                raise UnknownNameError("classifier", network, NETWORKS)

    def with_weights(self, files: Mapping[str, str]) -> Class:
        return replace(self, weights={**files, **self.weights})

    def judges(self) -> dict[str, nn.Module]:
        """The classifiers; raises `WeightsError` where one that was named cannot be had whole."""
        at_hand = [name for name in NETWORKS if name in self.weights or has_weights(name)]
        found = {name: load_network(name, self.weights.get(name)) for name in self.classifiers or at_hand}
        whole = {name: network for name, network in found.items() if hasattr(network, "prob")}
        for name in self.classifiers:
            if name not in whole:
                raise WeightsError(f"the weights of {name} hold no whole classifier: its last layers miss")
        return whole

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        pictures = {PHOTOGRAPH: images.cpu(), **conditions(inverter, images)}
        records: list[Record] = []
        captions: dict[str, list[str]] = {}
        for network, judge in self.judges().items():
            itself = same_network(network, self.weights.get(network), inverter.representation)
            title = f"{network} (inverted itself)" if itself else network
            said = {
                condition: self.probabilities(network, judge, own, images.device) for condition, own in pictures.items()
            }
            verdicts = judged(said)
            for condition, values in verdicts.items():
                records += records_of(ids, {"classifier": title, "condition": condition}, values)
            captions[title] = [in_words(one, place, verdicts) for place, one in enumerate(ids[:SHOWN])]
        values_shown = ["top1", f"top{FEW}", "probability"]
        table = with_intervals(summarise(records, ["classifier", "condition"], values_shown))
        for row in table:
            row.pop("chance")  # of 1,000 classes that are not equally frequent: the control says it better
        by_judge = {title: [row for row in table if row["classifier"] == title] for title in captions}
        seen = min(by_judge, key=is_marked)  # the first that does not judge itself, if there is one
        shown = {f"photograph (class by {seen})": pictures[PHOTOGRAPH], KEPT: pictures[KEPT]}
        return Finding(
            self.name,
            self.question,
            " ".join([*(class_answer(rows) for rows in by_judge.values()), advice(by_judge)]).strip(),
            table,
            records,
            [class_plot(rows) for rows in by_judge.values()],
            [Sheet({title: own[:SHOWN] for title, own in shown.items()}, captions[seen])],
        )

    def probabilities(self, network: str, judge: nn.Module, images: Tensor, device: torch.device) -> Tensor:
        """Images (N, 3, H, W) -> class probabilities (N, classes) on the CPU, computed on a device.

        The whole picture is scaled to the input's size.
        """
        preprocessing = NETWORKS[network].preprocessing
        judge = on_device(judge, device)  # which may be the inverter's own, and elsewhere
        with torch.inference_mode():
            parts = [
                judge(preprocessing(resized(part.to(device), preprocessing.image_size))).cpu()
                for part in torch.split(images, BATCH)
            ]
        return torch.cat(parts)


def judged(said: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Class probabilities (N, classes) by condition -> what becomes of the photographs' classes, values (N,)."""
    wanted = said[PHOTOGRAPH].argmax(dim=1)[:, None]
    verdicts = {}
    for condition, own in said.items():
        probability = own.gather(1, wanted)
        place = 1 + (own > probability).sum(dim=1)  # as many classes come before
        verdicts[condition] = {
            "class": own.argmax(dim=1),
            "place": place,
            "top1": (place <= 1).double(),
            f"top{FEW}": (place <= FEW).double(),
            "probability": probability[:, 0].double(),
        }
    return verdicts


def in_words(one: str, place: int, verdicts: Mapping[str, Mapping[str, Tensor]]) -> str:
    """A caption: the class of a photograph, and how likely and in which place it is for the reconstruction."""
    before, after = ({key: float(own[place]) for key, own in verdicts[c].items()} for c in (PHOTOGRAPH, KEPT))
    return (
        f"{one}\n{class_names()[int(before['class'])]}: {chance_in_words(before['probability'])}\n"
        f"now {chance_in_words(after['probability'])}, place {after['place']:.0f}"
    )


def chance_in_words(probability: float) -> str:
    """`93 %`, `0.02 %`."""
    return f"{100 * probability:.0f} %" if probability >= 0.01 else f"{100 * probability:.1g} %"


def same_network(network: str, weights: str | None, representation: Representation) -> bool:
    """Whether a representation is a layer of a network: by name, or by having the very same weights."""
    if representation.name.partition(".")[0] == network:
        return True
    module = getattr(representation.uncached, "module", None)
    return isinstance(module, nn.Module) and fingerprint(module) == fingerprint(load_network(network, weights))


def is_marked(title: str) -> bool:
    return "(inverted itself)" in title


def class_plot(table: Sequence[Record]) -> Plot:
    """Of one classifier; shares with their 95 % intervals."""
    series: dict[str, list[Point]] = {
        "named first": shares(table, "top1"),
        f"among {FEW}": shares(table, f"top{FEW}"),
        "probability": points(table, "probability"),
    }
    groups = [str(row["condition"]) for row in table]
    return Plot("", f"class of the photograph by\n{table[0]['classifier']}, share", series, "bars", groups)


def shares(rows: Sequence[Record], name: str) -> list[Point]:
    """Points of a plot with a group for each row: shares and their intervals."""
    return [
        (float(place), float(row[name]), (float(row[f"{name}_low"]), float(row[f"{name}_high"])))
        for place, row in enumerate(rows)
    ]


def class_answer(table: Sequence[Record]) -> str:
    rows = {str(row["condition"]): row for row in table}
    own, control = rows[KEPT], rows[CONTROL]
    judge = str(own["classifier"])
    warning = " Beware: it judges features of its own." if is_marked(judge) else ""
    return (
        f"{judge} names {interval(own, 'top1')} of the reconstructions as their photographs, "
        f"{interval(own, f'top{FEW}')} with that class among the first {FEW}; its probability is "
        f"{mean_in_words(own, 'probability')} instead of {mean_in_words(rows[PHOTOGRAPH], 'probability')}. "
        f"With another photograph's features {interval(control, 'top1')}, with the mean image "
        f"{interval(rows[MEAN], 'top1')} (n = {own['n']}; in brackets 95 % intervals).{warning}"
    )


def advice(judges: Collection[str]) -> str:
    """Where every classifier is the inverted network: how to have another one."""
    if not all(is_marked(judge) for judge in judges):
        return ""
    return "For a judge of its own, fetch the weights of another network: `preimage weights get alexnet`."
