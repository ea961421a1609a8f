"""Is it still the same photograph, and is what it shows still named? As others than the inverted features see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage.analyses.perturbation import BATCH, SHOWN
from preimage.analyses.retention import (
    CONTROL,
    KEPT,
    MEAN,
    anothers,
    conditions,
    percent,
    plus_minus,
    reconstructed,
    records_of,
)
from preimage.errors import SettingsError, UnknownNameError, WeightsError
from preimage.findings import Analysis, Finding, Plot, Point, Record, Sheet, summarise
from preimage.interfaces import Inverter, Representation
from preimage.metrics import wilson
from preimage.networks import NETWORKS, load_network, on_device
from preimage.networks.weights import fingerprint
from preimage.representations import REPRESENTATIONS, get_representation

PIXELS = "pixels"
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
        for space in self.spaces:
            photographs, pictures = (vectors(space, one) for one in (images, own))
            title = f"{space} (inverted itself)" if is_own(space, inverter.representation) else space
            for condition, found in ((KEPT, pictures), (CONTROL, anothers(pictures))):
                rank = ranks(torch.cdist(found, photographs))
                values = {"rank": rank, "top1": rank <= 1, f"top{FEW}": rank <= FEW}
                values = {name: value.double() for name, value in values.items()}
                records += [{"space": title, **one} for one in records_of(ids, condition, values)]
        table = with_intervals(summarise(records, ["space", "condition"], ["top1", f"top{FEW}", "rank"]))
        spaces = list(dict.fromkeys(str(row["space"]) for row in table))
        plot = Plot(
            self.question,
            "distance in",
            f"share found (chance {1 / len(ids):.2g} and {min(1, FEW / len(ids)):.2g})",
            {
                f"{words}{'' if condition == KEPT else f', {CONTROL}'}": [
                    (float(spaces.index(str(row["space"]))), float(row[value]), float(row[f"{value}_sem"]))
                    for row in table
                    if row["condition"] == condition
                ]
                for condition in (KEPT, CONTROL)
                for value, words in (("top1", "first"), (f"top{FEW}", f"among {FEW}"))
            },
            "bars",
            spaces,
        )
        return Finding(self.name, self.question, identity_answer(table), table, records, [plot])


def vectors(space: str, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) -> what distances are taken between (N, D), float64."""
    if space == PIXELS:
        return images.flatten(1).double()
    representation = get_representation(space)
    size = representation.image_size
    parts = [representation.encode(resized(part, size)).flatten(1) for part in torch.split(images, BATCH)]
    return torch.cat(parts).double()


def resized(images: Tensor, size: int) -> Tensor:
    """Images (N, 3, H, W) -> (N, 3, size, size) in [0, 1]; smoothed where they shrink."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


def ranks(distances: Tensor) -> Tensor:
    """Distances (N, N) from pictures to photographs -> the place (N,) of each picture's own, 1 the nearest.

    Photographs at the very same distance share their mean place: a picture that resembles all alike finds none.
    """
    own = distances.diagonal()[:, None]
    nearer, as_near = (distances < own).sum(dim=1), (distances == own).sum(dim=1)
    return nearer + (as_near + 1) / 2


def is_own(space: str, representation: Representation) -> bool:
    """Whether a space is the inverted representation, or belongs to the same network."""
    if space in NETWORKS or space.partition(".")[0] in NETWORKS:
        return same_network(space.partition(".")[0], None, representation)
    return space == representation.name


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
    """Whether a classifier still says of the reconstruction what it says of the photograph; no labels are needed.

    `classifier` is a network by name, `weights` its files where it brings none.
    """

    name: ClassVar[str] = "class"
    question: ClassVar[str] = "Does a classifier still name what the photograph shows?"
    classifier: str = "efficientnet_lite0"
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.classifier not in NETWORKS:
            raise UnknownNameError("classifier", self.classifier, NETWORKS)

    def unavailable(self, inverter: Inverter) -> str:  # noqa: ARG002 (it depends on the classifier alone)
        try:
            network = load_network(self.classifier, self.weights)
        except WeightsError as error:
            return str(error)
        return "" if hasattr(network, "prob") else f"{self.weights} holds no whole classifier: its last layers miss"

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        network = load_network(self.classifier, self.weights)
        compared = conditions(inverter, images)
        wanted = self.probabilities(network, images, images.device)
        named = wanted.argmax(dim=1)
        records: list[Record] = []
        places: dict[str, Tensor] = {}
        for condition, pictures in {"photograph": images.cpu(), **compared}.items():
            own = wanted if condition == "photograph" else self.probabilities(network, pictures, images.device)
            place = (own > own.gather(1, named[:, None])).sum(dim=1)  # how many classes come before
            places[condition] = place
            values = {"top1": place < 1, f"top{FEW}": place < FEW, "probability": own.gather(1, named[:, None])[:, 0]}
            records += records_of(ids, condition, {name: value.double() for name, value in values.items()})
        judge = f"{self.classifier}{' (inverted itself)' if self.judges_itself(inverter) else ''}"
        records = [{"classifier": judge, **record} for record in records]
        values_shown = ["top1", f"top{FEW}", "probability"]
        table = with_intervals(summarise(records, ["classifier", "condition"], values_shown))
        for row in table:
            row.pop("chance")  # of 1,000 classes that are not equally frequent: the control says it better
        shown = {"photograph": images[:SHOWN].cpu(), "reconstruction": compared[KEPT][:SHOWN]}
        captions = [f"{one}\nclass {named[i]}, now in place {places[KEPT][i] + 1}" for i, one in enumerate(ids[:SHOWN])]
        return Finding(
            self.name,
            self.question,
            class_answer(table),
            table,
            records,
            [class_plot(self.question, table)],
            [Sheet(self.question, shown, captions)],
        )

    def probabilities(self, network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
        """Images (N, 3, H, W) -> class probabilities (N, classes) on the CPU, computed on a device.

        The whole picture is scaled to the input's size.
        """
        preprocessing = NETWORKS[self.classifier].preprocessing
        network = on_device(network, device)  # which may be the inverter's own, and elsewhere
        with torch.inference_mode():
            parts = [
                network(preprocessing(resized(part.to(device), preprocessing.image_size))).cpu()
                for part in torch.split(images, BATCH)
            ]
        return torch.cat(parts)

    def judges_itself(self, inverter: Inverter) -> bool:
        return same_network(self.classifier, self.weights, inverter.representation)


def same_network(network: str, weights: str | None, representation: Representation) -> bool:
    """Whether a representation is a layer of a network: by name, or by having the very same weights."""
    if representation.name.partition(".")[0] == network:
        return True
    module = getattr(representation.uncached, "module", None)
    return isinstance(module, nn.Module) and fingerprint(module) == fingerprint(load_network(network, weights))


def class_plot(title: str, table: Sequence[Record]) -> Plot:
    words: Mapping[str, str] = {"top1": "named first", f"top{FEW}": f"among {FEW}", "probability": "probability"}
    series: dict[str, list[Point]] = {
        label: [(float(place), float(row[value]), float(row[f"{value}_sem"])) for place, row in enumerate(table)]
        for value, label in words.items()
    }
    groups = [str(row["condition"]) for row in table]
    return Plot(title, "", f"class of the photograph by\n{table[0]['classifier']}, share", series, "bars", groups)


def class_answer(table: Sequence[Record]) -> str:
    rows = {str(row["condition"]): row for row in table}
    own, control = rows[KEPT], rows[CONTROL]
    judge = str(own["classifier"])
    warning = " Beware: it judges features of its own." if "(inverted itself)" in judge else ""
    return (
        f"{judge} names {interval(own, 'top1')} of the reconstructions as their photographs, "
        f"{interval(own, f'top{FEW}')} with that class among the first {FEW}; its probability is "
        f"{plus_minus(own, 'probability')} instead of {plus_minus(rows['photograph'], 'probability')}. "
        f"With another photograph's features {interval(control, 'top1')}, with the mean image "
        f"{interval(rows[MEAN], 'top1')} (n = {own['n']}; in brackets 95 % intervals).{warning}"
    )
