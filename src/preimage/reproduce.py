"""The paper's tables and figures, each by one command: what it reports beside what is measured here.

Dosovitskiy & Brox, *Inverting Visual Representations with Convolutional Networks*, CVPR 2016. Its values, and the
numbers of its tables and figures, are recalled, not read off; every page says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preimage import report, studies, zoo
from preimage.analyses import get_analysis
from preimage.errors import SettingsError, UnknownNameError
from preimage.evaluation import CONTROL, Evaluation
from preimage.findings import Finding, Plot, Record
from preimage.inverters import Autoencoder, MeanImage
from preimage.studies import Trial, file_name, label

DIFFERS = (
    "What differs from the paper: the networks that ship were trained on 7,467 photographs for about an hour, not on "
    "ImageNet's 1.2 million for days; their decoders are narrower; the photographs, and with them N, are others. The "
    "paper's values and numbering are recalled."
)
MISSING = "no trained inverter for it ships or was named by --run"

# NRE as recalled: by representation, then method.
RECALLED: dict[str, dict[str, float]] = {
    "hog": {"upconv": 0.24, "hoggles": 0.61, "gradient-descent": 0.63},
    "sift": {"upconv": 0.28},
    "lbp": {"upconv": 0.38},
    "caffenet.conv5": {"upconv": 0.35, "gradient-descent": 0.71},
    "caffenet.fc6": {"upconv": 0.51, "gradient-descent": 0.80},
    "caffenet.fc7": {"upconv": 0.56, "gradient-descent": 0.82},
    "caffenet.fc8": {"upconv": 0.58, "gradient-descent": 0.84},
}
HAND_MADE = ("hog", "sift", "lbp")
ALEXNET = tuple(f"caffenet.{layer}" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"))
SAME_LAYER = ("caffenet", "bvlc_alexnet", "alexnet")  # networks that can stand for the paper's, nearest first
LITE0 = tuple(f"efficientnet_lite0.{one}" for one in ("stage2", "stage3", "stage5", "head", "pool", "logits", "prob"))


@dataclass
class Study:
    """What a reproduction works on: photographs, a folder for its records, and inverters beside those that ship."""

    trial: Trial
    folder: Path
    runs: dict[str, str] = field(default_factory=dict)  # representation -> path of a run or file
    autoencoders: dict[str, str] = field(default_factory=dict)  # the same, of the encoder trained too
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

    def find(self, representation: str) -> str | None:
        """The inverter of a representation: a named run, else the one that ships."""
        return self.runs.get(representation) or (representation if representation in zoo.shipped() else None)

    def stand_in(self, representation: str) -> str | None:
        """The same layer of the network nearest to the paper's for which there is an inverter."""
        network, _, layer = representation.partition(".")
        names = [f"{other}.{layer}" for other in SAME_LAYER] if network in SAME_LAYER else [representation]
        return next((name for name in names if self.find(name)), None)

    def evaluated(self, representation: str) -> Evaluation:
        """Its inverter beside its baselines, computed once."""
        inverter = self.find(representation)
        assert inverter is not None
        return self.evaluate(inverter)

    def evaluate(self, inverter: str) -> Evaluation:
        if inverter not in self.evaluations:
            self.trial.on_progress(label(inverter), 0, 1)
            result = self.trial.evaluate(inverter, self.trial.applying(inverter))
            folder = self.folder / file_name(label(inverter))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "records.csv").write_text(result.records_csv())
            self.evaluations[inverter] = result
        return self.evaluations[inverter]

    def members(self, representation: str) -> list[str]:
        """The inverter of a representation and, where it is given, its autoencoder."""
        inverter, autoencoder = self.find(representation), self.autoencoder(representation)
        return [one for one in (inverter, autoencoder) if one is not None]

    def autoencoder(self, representation: str) -> str | None:
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
    wanted = list(dict.fromkeys(names)) or ["all"]
    wanted = list(ITEMS) if "all" in wanted else wanted
    for name in wanted:
        if name not in ITEMS:
            raise UnknownNameError("table or figure", name, {*ITEMS, "all"})
    sections = []
    for place, name in enumerate(wanted):
        study.trial.on_progress(name, place, len(wanted))
        sections.append(report.Section(f"{name}: {ITEMS[name].title}", ITEMS[name].make(study)))
    report.write_page("The paper's tables and figures, measured here", DIFFERS, sections, Path(file))
    return Path(file)


# --- tables -----------------------------------------------------------------------------------------------------------


def table(representations: Sequence[str]) -> Callable[[Study], list[report.Block]]:
    """The recalled error of every method on every representation beside the measured one."""

    def make(study: Study) -> list[report.Block]:
        rows = [row for representation in representations for row in rows_of(study, representation)]
        columns = ["representation", "method", "paper (recalled)", "here, NRE ± SEM", "n", "measured on"]
        return [report.Block("", [], columns, rows, note=DIFFERS)]

    return make


def rows_of(study: Study, representation: str) -> list[list[str]]:
    """The methods the paper has for a representation, then our controls."""
    paper = RECALLED.get(representation, {"upconv": None})
    stand_in = study.stand_in(representation)
    if stand_in is None:
        return [
            [representation, method, recalled(value), f"not available: {MISSING}", "", ""]
            for method, value in paper.items()
        ]
    measured = {row.inverter: row for row in study.evaluated(stand_in).rows}
    rows = []
    for method in [*paper, MeanImage.name, CONTROL]:
        row = measured.get(method)
        error = f"{row.nre:.3f} ± {row.nre_sem:.3f}" if row else "not available: add it by --baseline"
        rows.append([representation, method, recalled(paper.get(method)), error, str(row.n) if row else "", stand_in])
    return rows


def recalled(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


# --- figures ----------------------------------------------------------------------------------------------------------


def side_by_side(representations: Sequence[str], title: str) -> Callable[[Study], list[report.Block]]:
    """Reconstructions, and errors as a figure, of all representations there is an inverter for."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        if known:
            folder = study.folder / title
            studies.compare([one for name in known for one in study.members(name)], study.trial, folder)
            blocks.insert(0, report.finding_block(folder / "compare"))
        return blocks

    return make


def analysis(name: str, representations: Sequence[str]) -> Callable[[Study], list[report.Block]]:
    """An analysis of every representation there is an inverter for."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        members = [one for representation in known for one in study.members(representation)]
        found = studies.analyse_all([name], members, study.trial, study.folder)
        made = []
        for title, findings in found.items():
            for finding in findings:
                block = report.finding_block(study.folder / file_name(title) / finding.analysis)
                made.append(report.titled(block, f"{title}: {block.title}"))
        return made + blocks

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
        return layer_curves(study, "error-curves", "How does the error grow with depth?", tables) + blocks

    return make


def analysis_curves(name: str, representations: Sequence[str]) -> Callable[[Study], list[report.Block]]:
    """The error under every condition of an analysis against the layer, as a figure."""

    def make(study: Study) -> list[report.Block]:
        known, blocks = split(study, representations)
        question = f"{get_analysis(name).question} Layer by layer"
        curves: list[report.Block] = []
        for kind, words in ((study.find, ""), (study.autoencoder, "autoencoders")):
            tables: dict[str, list[Record]] = {}
            for representation in known:
                if (inverter := kind(representation)) is None:
                    continue
                folder = study.folder / file_name(label(inverter))
                (finding,) = studies.analyse([name], inverter, study.trial, folder)
                if finding.reason:
                    blocks.append(report.Block(f"{representation} {words}".strip(), reason=finding.reason))
                else:
                    tables[representation] = finding.table
            title = f"{question}, {words}" if words else question
            curves += layer_curves(study, f"{name}-curves{'-' if words else ''}{words}", title, tables)
        return curves + blocks

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
    layers = [layer.rpartition(".")[2] for layer in tables]
    plot = Plot(question, "layer", "NRE (lower is better)", series, "line", layers)
    records: list[Record] = [{"layer": layer, **row} for layer, table in tables.items() for row in table]
    finding = Finding(
        name, question, f"{len(tables)} layers, from {layers[0]} to {layers[-1]}.", records, records, [plot]
    )
    finding.save(study.folder)
    return [report.finding_block(study.folder / name)]


def split(study: Study, representations: Sequence[str]) -> tuple[list[str], list[report.Block]]:
    """Representations there is an inverter for (or a stand-in), and a block that names the others."""
    stand_ins = {name: study.stand_in(name) for name in representations}
    missing = [name for name, found in stand_ins.items() if found is None]
    blocks = [report.Block("", [f"Not available: {', '.join(missing)} ({MISSING})."])] if missing else []
    return [found for found in stand_ins.values() if found is not None], blocks


DEEP = (*ALEXNET, *LITE0)
ITEMS: dict[str, Item] = {
    "table1": Item("reconstruction error of hand-made representations", table(HAND_MADE)),
    "table2": Item("reconstruction error of AlexNet's layers", table(ALEXNET)),
    "fig3": Item("hand-made representations, colours from grey features", side_by_side(HAND_MADE, "fig3")),
    "fig6": Item("reconstructions layer by layer", side_by_side(DEEP, "fig6")),
    "fig7": Item("error against depth", error_curves(DEEP)),
    "fig8": Item("hue, class and reconstruction", analysis("hue", ("caffenet.fc8", "efficientnet_lite0.logits"))),
    "fig9": Item("binarised and dropped features", analysis("code", DEEP)),
    "fig10": Item("error of perturbed features against depth", analysis_curves("code", DEEP)),
    "fig11": Item("between two photographs", analysis("interpolation", DEEP)),
    "fig12": Item("random features", analysis("random-features", ("caffenet.fc6", "caffenet.fc7", "caffenet.fc8",
                  "efficientnet_lite0.pool", "efficientnet_lite0.logits"))),
    "brightness": Item("images ten and a hundred times as bright", analysis("brightness", (*HAND_MADE, *DEEP))),
    "dark-knowledge": Item("the scores of unlikely classes", analysis("dark-knowledge", ("caffenet.fc8",
                           "efficientnet_lite0.logits"))),
}  # fmt: skip
