"""The paper's tables and figures, each by one command: what it reports beside what is measured here.

Its numbers, its findings, and the numbering of its tables and figures are recalled (`preimage.paper`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from preimage import paper, report, studies, zoo
from preimage.analyses import get_analysis
from preimage.analyses.conditions import MEAN
from preimage.errors import SettingsError, UnknownNameError, WeightsError
from preimage.evaluation import CONTROL, Evaluation, measured, paired
from preimage.files import file_name, replace_text
from preimage.findings import Finding, Plot, Record, errors_by
from preimage.inverters import Autoencoder, MeanImage, UpConv
from preimage.kept import Kept
from preimage.metrics import NRE_AXIS
from preimage.pages import check_page
from preimage.paper import Claim
from preimage.studies import Trial, labels
from preimage.words import plus_minus, span

MISSING = "no trained inverter for it ships or was named by --run"
HAND_MADE = ("hog", "sift", "lbp")
ALEXNET = tuple(f"caffenet.{layer}" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"))
LITE0 = tuple(f"efficientnet_lite0.{one}" for one in ("stage2", "stage3", "stage5", "head", "pool", "logits", "prob"))

# All that an inverter can be given for: the layers of any network that can stand for the paper's are.
KNOWN = (*HAND_MADE, *(f"{other}.{name.partition('.')[2]}" for other in paper.NETWORKS for name in ALEXNET), *LITE0)


@dataclass
class Study:
    """What a reproduction works on: photographs, a folder for its records, and inverters beside those that ship."""

    trial: Trial
    folder: Path
    runs: Mapping[str, str | Path] = field(default_factory=dict)  # representation -> a run or a file
    autoencoders: Mapping[str, str | Path] = field(default_factory=dict)  # the same, of the encoder trained too
    evaluations: dict[str | Path, Evaluation] = field(default_factory=dict)
    analyses: dict[tuple[str | Path, ...], dict[str, list[Finding]]] = field(default_factory=dict)
    without_weights: dict[str, str] = field(default_factory=dict)  # representation -> what its network misses

    def __post_init__(self) -> None:
        for name in (*self.runs, *self.autoencoders):
            if name not in KNOWN:
                raise UnknownNameError("representation of these tables and figures", name, KNOWN)
        for name, path in (*self.runs.items(), *self.autoencoders.items()):
            if (other := Kept.of(path).representation["name"]) != name:
                raise SettingsError(f"{path} inverts {other}, not {name}")

    def find(self, representation: str) -> str | Path | None:
        """The inverter of a representation: a named run, else the one that ships."""
        return self.runs.get(representation) or (representation if representation in zoo.shipped() else None)

    def stand_in(self, representation: str) -> str | None:
        """The same layer of the network nearest to the paper's for which there is an inverter."""
        network, _, layer = representation.partition(".")
        kin = network in paper.NETWORKS
        names = [f"{other}.{layer}" for other in paper.NETWORKS] if kin else [representation]
        return next((name for name in names if self.can_use(name)), None)

    def can_use(self, representation: str) -> bool:
        """Whether there is an inverter, and the weights it needs; the reason is kept where one ships without them."""
        if representation in self.runs or representation not in zoo.shipped():
            return representation in self.runs
        try:
            self.trial.load(representation)
        except WeightsError as error:
            self.without_weights[representation] = str(error)
            return False
        return True

    def missing(self, representation: str) -> str:
        """Why there is no number for a representation."""
        layer = representation.rpartition(".")[2]
        kin = [own for name, own in self.without_weights.items() if name.rpartition(".")[2] == layer]
        return kin[0] if kin else MISSING

    def evaluated(self, representation: str) -> Evaluation:
        """Its inverter beside its baselines, computed once."""
        inverter = self.find(representation)
        assert inverter is not None
        return self.evaluate(inverter)

    def evaluate(self, inverter: str | Path) -> Evaluation:
        if inverter not in self.evaluations:
            self.trial.on_progress(Kept.of(inverter).label, 0, 1)
            result = self.trial.evaluate(inverter)
            replace_text(self.folder_of(inverter) / "records.csv", result.records_csv())
            self.evaluations[inverter] = result
        return self.evaluations[inverter]

    def errors(self, representation: str) -> paper.Errors:
        """Errors of its inverter, which counts as `upconv`, and of its baselines: by method, then photograph."""
        result = self.evaluated(representation)
        found = result.errors()
        return found | {UpConv.name: found[result.rows[0].inverter]}

    def folder_of(self, inverter: str | Path) -> Path:
        """Where its records are: of two that would be called the same, the folders have their whole names."""
        every: list[str | Path] = [*zoo.shipped(), *self.runs.values(), *self.autoencoders.values()]
        titles = {name: title for title, name in labels(list(dict.fromkeys(every))).items()}
        return self.folder / file_name(titles[inverter])

    def members(self, representations: Iterable[str]) -> dict[str, str | Path]:
        """The inverters of representations and, where they are given, their autoencoders, by what they are called."""
        found: list[str | Path] = []
        for name in representations:
            found += filter(None, [self.find(name), self.autoencoder(name)])
        return labels(found)

    def analysed(self, analysis: str, members: Mapping[str, str | Path]) -> dict[str, list[Finding]]:
        """`studies.analyse_all` of one analysis, done once: several figures may show it."""
        key = (analysis, *members.values())
        if key not in self.analyses:
            self.analyses[key] = studies.analyse_all([analysis], list(members.values()), self.trial, self.folder)
        return self.analyses[key]

    def autoencoder(self, representation: str) -> str | Path | None:
        """The autoencoder of a representation; raises `SettingsError` where what was named is none."""
        path = self.autoencoders.get(representation)
        if path is not None and not isinstance(self.trial.inverter(path), Autoencoder):
            raise SettingsError(
                f"{path} is no autoencoder: train one by `preimage train {representation} --set autoencoder=true`"
            )
        return path


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper."""

    title: str
    make: Callable[[Study], list[report.Block]]


def reproduce(names: Iterable[str], study: Study, file: str | Path) -> Path:
    """Write a page with the named tables and figures ("all" for every one); records go into the study's folder."""
    check_page(Path(file))
    wanted = list(dict.fromkeys(names)) or ["all"]
    wanted = list(ITEMS) if "all" in wanted else wanted
    for name in wanted:
        if name not in ITEMS:
            raise UnknownNameError("table or figure", name, {*ITEMS, "all"})
    sections = []
    for place, name in enumerate(wanted):
        study.trial.on_progress(name, place, len(wanted))
        sections.append(report.Section(f"{name}: {ITEMS[name].title}", ITEMS[name].make(study)))
    report.write_page("The paper's tables and figures, measured here", what_differs(study), sections, Path(file))
    return Path(file)


def what_differs(study: Study) -> str:
    """Between the paper and what is measured here: data, time, width, photographs."""
    cards = [card for inverter in study.trial.loaded if (card := Kept.of(inverter).card)]
    here = "how they were trained is not known"
    if cards:
        photographs = span(card["photos"]["n"] for card in cards)
        hours = span((sum(map(zoo.seconds_of, zoo.trainings(card))) / 3600 for card in cards), ".1f")
        widths = span((card["decoder"]["width"] for card in cards), ".2g")
        here = (
            f"on {photographs} photographs, for {hours} hours, with {widths} times the channels of a full-sized decoder"
        )
    return (
        "The paper's values, findings and numbering are recalled. What differs: its networks were trained on about "
        f"{paper.PHOTOGRAPHS:,} photographs for days; those measured here {here}. The photographs, and with them N, "
        "are others."
    )


def findings_of_the_paper(claims: Iterable[Claim], errors: paper.Errors, where: str) -> list[list[str]]:
    """A row for each claim: does it show here?"""
    return [[claim.words, where, *paper.verdict(claim, errors)] for claim in claims]


def claims_on_methods(representation: str) -> list[Claim]:
    """What the paper found of the methods that it has a number for; and of the control."""
    return [claim for claim in paper.OF_METHODS if claim.worse in (*paper.recalled(representation), CONTROL)]


def verdicts(rows: list[list[str]]) -> list[report.Block]:
    """What the paper found and whether it shows, as a block of its own; none without rows."""
    columns = ["the paper (recalled)", "measured on", "here it", "difference in NRE ± SEM", "n"]
    note = (
        "Differences are taken photograph by photograph; within two standard errors it is undecided. Hardly and little "
        f"are up to {paper.HARDLY} of NRE."
    )
    return [report.Block("Do the paper's findings show here?", [], columns, rows, note=note)] if rows else []


# --- tables -----------------------------------------------------------------------------------------------------------


def table(representations: Sequence[str], ordered: Sequence[Claim] = ()) -> Callable[[Study], list[report.Block]]:
    """The recalled error of every method on every representation beside the measured one.

    `ordered` are claims about the representations among each other.
    """

    def make(study: Study) -> list[report.Block]:
        rows = [row for representation in representations for row in rows_of(study, representation)]
        columns = [
            "representation",
            "method",
            "paper (recalled)",
            "here, NRE ± SEM",
            "less upconv's",
            "n",
            "measured on",
        ]
        known = [name for one in representations if (name := study.stand_in(one))]
        note = "Differences are taken on the same photographs."
        return [report.Block("", [], columns, rows, note=note), *verdicts(claims_shown(study, known, ordered))]

    return make


def claims_shown(study: Study, known: Sequence[str], ordered: Sequence[Claim]) -> list[list[str]]:
    """What the paper says of methods on each representation, and of the representations among each other."""
    errors = {name: study.errors(name) for name in known}
    rows = [row for name in known for row in findings_of_the_paper(claims_on_methods(name), errors[name], name)]
    return rows + findings_of_the_paper(ordered, {name: own[UpConv.name] for name, own in errors.items()}, "all")


def rows_of(study: Study, representation: str) -> list[list[str]]:
    """The methods the paper has for a representation, then our controls."""
    known: Mapping[str, float | None] = paper.recalled(representation) or {UpConv.name: None}
    stand_in = study.stand_in(representation)
    if stand_in is None:
        return [
            [representation, method, two_places(value), f"not available: {study.missing(representation)}", "", "", ""]
            for method, value in known.items()
        ]
    result = study.evaluated(stand_in)
    main = result.rows[0]
    found = {row.inverter: row for row in result.rows} | {UpConv.name: main}
    rows = []
    for method in [*known, MeanImage.name, CONTROL]:
        error, less, n = "not available: add it by --baseline", "", ""
        if row := found.get(method):
            error, n = measured(row, "nre"), str(row.n)
        if row and row is not main:
            difference, sem, _ = paired(result, method, main.inverter)
            less = plus_minus(difference, sem, sign="+")
        rows.append([representation, method, two_places(known.get(method)), error, less, n, stand_in])
    return rows


def two_places(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


# --- figures ----------------------------------------------------------------------------------------------------------


def side_by_side(representations: Sequence[str], title: str) -> Callable[[Study], list[report.Block]]:
    """Reconstructions, and errors as a figure, of all representations there is an inverter for."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        if known:
            folder = study.folder / title
            studies.compare(list(study.members(known).values()), study.trial, folder)
            blocks.insert(0, report.finding_block(folder / "compare"))
        return blocks

    return make


def analysis(
    name: str, representations: Sequence[str], claims: Sequence[Claim] = ()
) -> Callable[[Study], list[report.Block]]:
    """An analysis of every representation there is an inverter for."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        members = study.members(known)
        made, claimed = [], []
        for title, findings in study.analysed(name, members).items():
            for finding in findings:
                block = report.finding_block(study.folder / file_name(title) / finding.analysis)
                made.append(replace(block, title=f"{title}: {block.title}"))
                if title in members and not finding.reason:
                    claimed += findings_of_the_paper(claims, conditions(finding), title)
        return made + verdicts(claimed) + blocks

    return make


def error_curves(representations: Sequence[str]) -> Callable[[Study], list[report.Block]]:
    """The error of every method against the layer, as a figure."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        tables: dict[str, list[Record]] = {}
        for name in known:
            rows = list(study.evaluated(name).rows)
            if (autoencoder := study.autoencoder(name)) is not None:
                rows.insert(1, study.evaluate(autoencoder).rows[0])
            tables[name] = [
                {"condition": row.inverter, "nre": row.nre, "nre_sem": row.nre_sem, "n": row.n} for row in rows
            ]
            tables[name] += [
                {"condition": f"{method}, the paper's (recalled)", "nre": value, "nre_sem": math.nan, "n": ""}
                for method, value in paper.recalled(name).items()
            ]
        curves = layer_curves(study, "error-curves", "How does the error grow with depth?", tables)
        return curves + verdicts(claims_shown(study, known, deeper_is_worse(known))) + blocks

    return make


def deeper_is_worse(representations: Sequence[str]) -> list[Claim]:
    """The error grows from the first to the last of each network's layers."""
    layers: dict[str, list[str]] = {}
    for name in representations:
        layers.setdefault(name.partition(".")[0], []).append(name)
    return [
        Claim(f"The error grows with depth: {own[-1]} against {own[0]}.", own[-1], own[0])
        for own in layers.values()
        if len(own) > 1
    ]


def conditions(finding: Finding) -> paper.Errors:
    """Errors by condition, then photograph."""
    return errors_by("condition", finding.records)


def harm(finding: Finding) -> dict[str, float]:
    """How much the error of each photograph grows under a condition other than the first, on average over them."""
    first, *others = (errors for condition, errors in conditions(finding).items() if condition != MEAN)
    return {one: sum(own[one] - first[one] for own in others) / len(others) for one in first}


def analysis_curves(
    name: str, representations: Sequence[str], claims: Sequence[Claim] = ()
) -> Callable[[Study], list[report.Block]]:
    """The error under every condition of an analysis against the layer, as a figure."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        members = study.members(known)
        titles = {inverter: title for title, inverter in members.items()}
        question = f"{get_analysis(name).question} Layer by layer"
        curves: list[report.Block] = []
        claimed: list[list[str]] = []
        harmed: dict[str, dict[str, dict[str, float]]] = {}
        for kind, words in ((study.find, "inverter"), (study.autoencoder, "autoencoder")):
            tables: dict[str, list[Record]] = {}
            for representation in known:
                if (inverter := kind(representation)) is None:
                    continue
                (finding,) = study.analysed(name, members)[titles[inverter]]
                if finding.reason:
                    blocks.append(report.Block(f"{representation}, {words}", reason=finding.reason))
                    continue
                tables[representation] = finding.table
                claimed += findings_of_the_paper(claims, conditions(finding), f"{representation}, {words}")
                harmed.setdefault(representation, {})[words] = harm(finding)
            curves += layer_curves(study, f"{name}-curves-{words}", f"{question}, {words}s", tables)
        for representation, both in harmed.items():
            claimed += findings_of_the_paper([paper.SENSITIVE], both, representation)
        return curves + verdicts(claimed) + blocks

    return make


def layer_curves(study: Study, name: str, question: str, tables: Mapping[str, list[Record]]) -> list[report.Block]:
    """One line for each condition, over the layers that have it; saved like any finding."""
    if not tables:
        return []
    conditions = dict.fromkeys(str(row["condition"]) for table in tables.values() for row in table)
    found = {(layer, str(row["condition"])): row for layer, table in tables.items() for row in table}
    series = {
        condition: [
            (float(place), float(row["nre"]), float(row["nre_sem"]))
            for place, layer in enumerate(tables)
            if (row := found.get((layer, condition)))
        ]
        for condition in conditions
    }
    layers = list(tables)
    plot = Plot("layer", NRE_AXIS, series, "line", layers)
    records: list[Record] = [{"layer": layer, **row} for layer, table in tables.items() for row in table]
    finding = Finding(
        name, question, f"{len(tables)} layers, from {layers[0]} to {layers[-1]}.", records, records, [plot]
    )
    finding.save(study.folder)
    return [report.finding_block(study.folder / name)]


def split(study: Study, representations: Sequence[str]) -> tuple[list[str], list[report.Block]]:
    """Representations there is an inverter for (or a stand-in), and a block that names the others."""
    stand_ins = {name: study.stand_in(name) for name in representations}
    missing: dict[str, list[str]] = {}
    for name, found in stand_ins.items():
        if found is None:
            missing.setdefault(study.missing(name), []).append(name)
    words = [f"Not available: {', '.join(names)} ({reason})." for reason, names in missing.items()]
    blocks = [report.Block("", words)] if words else []
    return [found for found in stand_ins.values() if found is not None], blocks


DEEP = (*ALEXNET, *LITE0)
ITEMS: dict[str, Item] = {
    "table1": Item("reconstruction error of hand-made representations", table(HAND_MADE, paper.OF_HAND_MADE)),
    "table2": Item("reconstruction error of AlexNet's layers", table(ALEXNET)),
    "fig3": Item("hand-made representations, colours from grey features", side_by_side(HAND_MADE, "fig3")),
    "fig6": Item("reconstructions layer by layer", side_by_side(DEEP, "fig6")),
    "fig7": Item("error against depth", error_curves(DEEP)),
    "fig8": Item("hue, class and reconstruction", analysis("hue", ("caffenet.fc8", "efficientnet_lite0.logits"))),
    "fig9": Item("binarised and dropped features", analysis("code", DEEP, paper.OF_CODE)),
    "fig10": Item("error of perturbed features against depth", analysis_curves("code", DEEP, paper.OF_CODE)),
    "fig11": Item("between two photographs", analysis("interpolation", DEEP)),
    "fig12": Item("random features", analysis("random-features", ("caffenet.fc6", "caffenet.fc7", "caffenet.fc8",
                  "efficientnet_lite0.pool", "efficientnet_lite0.logits"))),
    "brightness": Item("images ten and a hundred times as bright", analysis("brightness", (*HAND_MADE, *DEEP),
                       paper.OF_BRIGHTNESS)),
    "dark-knowledge": Item("the scores of unlikely classes", analysis("dark-knowledge",
                           ("caffenet.fc8", "efficientnet_lite0.logits"), paper.OF_DARK_KNOWLEDGE)),
}  # fmt: skip
