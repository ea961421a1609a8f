"""What does quality cost? One inversion by every method there is, on the same photographs and the same cores."""

from __future__ import annotations

import json
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import SHOWN, encoded
from preimage.errors import SettingsError
from preimage.evaluation import Contender
from preimage.findings import Analysis, Finding, Plot, Record, Sheet, errors_by, mean_in_words, points, summarise
from preimage.interfaces import Inverter, Representation
from preimage.inverters import GradientDescent, PairedDictionary, Ridge, make_inverter
from preimage.metrics import NRE_AXIS, distance, mean_pairwise_distance, paired_difference
from preimage.representations import REPRESENTATIONS, get_known
from preimage.words import duration

# What is slow or must be fitted first is measured only where it is given: how to give it.
TO_GIVE = {
    Ridge.name: "`preimage fit ridge -r {encoder} --images PHOTOS -o ridge.safetensors`, then --baseline "
    "./ridge.safetensors",
    GradientDescent.name: "--baseline gradient-descent",
    PairedDictionary.name: "`preimage fit hoggles --images PHOTOS -o hoggles.safetensors`, then --baseline "
    "./hoggles.safetensors",
}
OWN = "its training photographs"
CLOCKS = {"seconds": "seconds", "cpu_seconds": "seconds of processor time"}


@dataclass(frozen=True)
class TradeOff(Analysis):
    """Seconds for one image, features given, against NRE: the inverter and its `rivals` on the first `photographs`.

    One image at a time, the methods in turns, after a first image that is not counted; seconds are medians, by the
    clock and of processor time. On a CPU processor time counts, which other programs disturb less; on a GPU the
    clock's. Differences are taken photograph by photograph.
    """

    name: ClassVar[str] = "trade-off"
    question: ClassVar[str] = "What does a better reconstruction cost in time?"
    columns: ClassVar[Mapping[str, str]] = {
        "seconds": "seconds an image, median",
        "cpu_seconds": "processor seconds an image, median",
        "times_as_long": "times as long as the first",
    }
    photographs: int = 20
    rivals: Callable[[], Iterable[Contender]] = tuple

    def __post_init__(self) -> None:
        if self.photographs < 1:
            raise SettingsError(f"photographs is at least 1, got {self.photographs}")

    def against(self, rivals: Callable[[], Iterable[Contender]]) -> TradeOff:
        return replace(self, rivals=rivals)

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        rivals = list(self.rivals())
        contenders = titled([inverter, *(rival.inverter for rival in rivals)])
        ids, chosen = ids[: self.photographs], images[: self.photographs]
        records, pictures = in_turns(contenders, ids, chosen, mean_pairwise_distance(images))
        clock = "cpu_seconds" if images.device.type == "cpu" else "seconds"
        table = tabulated(records, list(contenders), clock)
        fitted_on = dict(zip(contenders, [OWN, *(rival.fitted_on for rival in rivals)], strict=True))
        for record in records:
            record["fitted_on"] = fitted_on[str(record["inverter"])]
        series = {str(row["inverter"]): points([row], "nre", clock) for row in table}
        x_label = f"{CLOCKS[clock]} for one image (logarithmic; lower is better)"
        plot = Plot(x_label, NRE_AXIS, series, log=True)
        shown = {"photograph": chosen[:SHOWN].cpu()}
        for row, (title, own) in zip(table, pictures.items(), strict=True):
            shown[f"{title}\n{duration(float(row[clock]))}"] = own[:SHOWN]
        words = [in_words(table, clock, images.device), company(fitted_on), not_measured(inverter, contenders.values())]
        answer = " ".join(filter(None, words))
        sheet = Sheet(shown, list(ids[:SHOWN]))
        return Finding(self.name, self.question, answer, table, records, [plot], [sheet])


def company(fitted_on: Mapping[str, str]) -> str:
    """Who was fitted on what, as a sentence."""
    groups: dict[str, list[str]] = {}
    for title, words in fitted_on.items():
        groups.setdefault(words, []).append(title)
    said = [f"{words} ({', '.join(titles)})" for words, titles in groups.items()]
    return f"Fitted on: {'; '.join(said)}."


def not_measured(inverter: Inverter, measured: Iterable[Inverter]) -> str:
    """Which usual methods are missing, and why or how to add them."""
    known = {one.name for one in measured}
    missing = [f"{name} ({why_not(name, inverter.representation)})" for name in TO_GIVE if name not in known]
    return f"Not measured: {'; '.join(missing)}." if missing else ""


def why_not(name: str, representation: Representation) -> str:
    """Why a method was not measured: it cannot invert these features, or nobody gave it."""
    try:
        make_inverter(name, representation)
    except SettingsError as error:
        return str(error).partition(". ")[0]
    return f"add it by {TO_GIVE[name].format(encoder=as_options(representation))}"


def as_options(representation: Representation) -> str:
    """A representation as commands take it behind -r, with the settings that are not the usual ones."""
    settings = representation.settings
    if representation.name in REPRESENTATIONS and "weights" not in settings:
        usual = get_known(representation.name).settings
        settings = {key: value for key, value in settings.items() if value != usual[key]}
    options = []
    for key, value in settings.items():
        options += ["--set", f"{key}={json.dumps(value) if isinstance(value, bool | list | tuple) else value}"]
    return shlex.join([representation.name, *options])


def titled(inverters: Iterable[Inverter]) -> dict[str, Inverter]:
    """Inverters by name; of two of the same name the second says what it is, or its place."""
    found: dict[str, Inverter] = {}
    for inverter in inverters:
        title = inverter.name
        if title in found:
            title = f"{title}, {inverter.remark}" if inverter.remark else title
        found[title if title not in found else f"{title}, {len(found) + 1}"] = inverter
    return found


def in_turns(
    inverters: Mapping[str, Inverter], ids: Sequence[str], images: Tensor, pairwise: float
) -> tuple[list[Record], dict[str, Tensor]]:
    """Every photograph inverted by everyone, alone: records of time and error, and reconstructions on the CPU.

    `pairwise` is the distance that errors are relative to.
    """
    records: list[Record] = []
    pictures: dict[str, list[Tensor]] = {title: [] for title in inverters}
    for inverter in inverters.values():
        clocked(inverter, encoded(inverter.representation, images[:1]))  # warms up
    for one, image in zip(ids, torch.split(images, 1), strict=True):
        for title, inverter in inverters.items():
            picture, seconds, cpu_seconds = clocked(inverter, encoded(inverter.representation, image))
            error = float(distance(image.cpu(), picture)) / pairwise
            records.append({"id": one, "inverter": title, "nre": error, "seconds": seconds, "cpu_seconds": cpu_seconds})
            pictures[title].append(picture)
    return records, {title: torch.cat(own) for title, own in pictures.items()}


def clocked(inverter: Inverter, features: Tensor) -> tuple[Tensor, float, float]:
    """A reconstruction on the CPU, the seconds it took by the clock, and those of processor time."""
    features.sum().item()  # on a GPU: waits until they are computed
    began, cpu_began = time.perf_counter(), time.process_time()
    picture = inverter.invert(features).cpu()  # what has arrived on the CPU has been computed
    return picture, time.perf_counter() - began, time.process_time() - cpu_began


def tabulated(records: Sequence[Record], titles: Sequence[str], clock: str) -> list[Record]:
    """A row for each inverter: NRE, the difference from the first one's on the same photographs, median seconds.

    `times_as_long` goes by `clock`.
    """
    rows = summarise(records, ["inverter"], ["nre"])
    errors = errors_by("inverter", records)
    for row in rows:
        title = str(row["inverter"])
        row["difference"], row["difference_sem"], _ = paired_difference(errors[title], errors[titles[0]])
        for kind in CLOCKS:
            row[kind] = statistics.median(float(record[kind]) for record in records if record["inverter"] == title)
        row["times_as_long"] = float(row[clock]) / float(rows[0][clock])
    return rows


def in_words(table: Sequence[Record], clock: str, device: torch.device) -> str:
    first, *others = table
    if not first["n"]:
        return "One photograph has no NRE, which is relative to the distance between two: give more."
    where = f"{device.type}, torch threads: {torch.get_num_threads()}"
    words = [
        f"{first['inverter']} takes {duration(float(first[clock]))} an image at NRE {mean_in_words(first, 'nre', 3)}"
    ]
    words += [
        f"{row['inverter']} {duration(float(row[clock]))} ({row['times_as_long']:.2g} times as long), NRE "
        f"{mean_in_words(row, 'difference', 3, sign='+')} against it"
        for row in others
    ]
    how = f"n = {first['n']}, the same photographs for all; {CLOCKS[clock]}, one at a time on {where}"
    return f"{'; '.join(words)} ({how})."
