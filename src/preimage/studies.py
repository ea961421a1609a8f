"""What is asked of trained inverters together: analyses, comparisons, and the page that tells it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from preimage import report
from preimage.analyses import ANALYSES, get_analysis
from preimage.analyses.conditions import resized
from preimage.api import evaluate
from preimage.config import parse_override, split_override
from preimage.defaults import LIMIT
from preimage.errors import ImageError, SettingsError
from preimage.evaluation import CONTROL, Contender, Evaluation, draw_sheet, evaluate_contenders, inverted
from preimage.files import file_name, replace_text
from preimage.findings import Finding, Plot, Record, Sheet, errors_by, joined, points, summarise
from preimage.images import Fit, Photos, Sources, check_places, source_list, sources_in_words, warn_left_out
from preimage.interfaces import Inverter, ignore
from preimage.inverters import GradientDescent, MeanImage, main_of
from preimage.judging import Basis, Judged, applies, judged, kept_baselines, slow_baselines
from preimage.kept import Kept, is_path
from preimage.metrics import NRE_AXIS, distance, mean_and_sem, mean_pairwise_distance, paired_difference
from preimage.networks import NETWORKS
from preimage.pages import check_page
from preimage.pairs import EncodedPhotos
from preimage.words import plus_minus

SHOWN = 8  # photographs on a sheet
TOGETHER = "together"  # the folder of what was found for all
SIDE = 256  # pixels of pictures that stand beside those of another size
BESIDE = {"other_image_nre": CONTROL, "mean_image_nre": MeanImage.name}  # errors that stand beside an inverter's own

Step = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class Trial:
    """What inverters are tried on: the first `limit` photographs, squared as their runs did unless `fit` says how.

    `overrides` are settings of their representations, of all or of one name or network: `weights=FILE`,
    `caffenet:weights=FILE`. `baselines` are slow inverters that take part where they apply, by name or from files that
    `fit_inverter` wrote. Each inverter is read once.
    """

    images: Sources
    limit: int | None = LIMIT
    fit: Fit | None = None
    device: str = "cpu"
    on_progress: Step = ignore
    overrides: Sequence[str] = ()
    baselines: Sequence[str] = ()
    loaded: dict[str | Path | Inverter, dict[str, Inverter]] = field(default_factory=dict, repr=False, compare=False)
    looked_at: dict[str | Path | Inverter, Judged] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", source_list(self.images))
        check_places(self.images)
        for name in self.baselines:
            if not is_path(name) and name != GradientDescent.name:
                raise SettingsError(
                    f"a baseline is {GradientDescent.name} or a file that `preimage fit` wrote, got {name!r}: "
                    f"`preimage fit {name} --images PHOTOS -o {name}.safetensors`, then --baseline ./{name}.safetensors"
                )

    @property
    def weights(self) -> dict[str, str]:
        """Files of weights by network, for analyses that ask a network of their own: `caffenet:weights=FILE`."""
        found = {}
        for override in self.overrides:
            whom, rest = split_override(override)
            section, key, value = parse_override(rest)
            if whom in NETWORKS and key == "weights" and section in ("", "representation"):
                found[whom] = value
        return found

    def load(self, name: str | Path | Inverter) -> dict[str, Inverter]:
        """An inverter, then the baselines kept with it, by name."""
        if name not in self.loaded:
            self.loaded[name] = Kept.of(name).load_with(self.overrides)
        return self.loaded[name]

    def inverter(self, name: str | Path | Inverter) -> Inverter:
        return main_of(self.load(name))

    def opened(self, name: str | Path | Inverter) -> Judged:
        """All photographs at an inverter's size: those that `evaluate` takes."""
        if name not in self.looked_at:
            representation, images = self.inverter(name).representation, source_list(self.images)
            self.looked_at[name] = judged(Kept.of(name), representation, images, fit=self.fit, trained_on=True)
        return self.looked_at[name]

    def photos(self, name: str | Path | Inverter) -> Photos:
        """The first photographs at an inverter's size, in memory."""
        photos = self.opened(name).load(self.limit)
        warn_left_out(photos.left_out)
        return photos

    def rivals(self, name: str | Path | Inverter, photos: Photos) -> list[Contender]:
        """Other inverters of the same features: those kept with it, what can be fitted on photographs, `baselines`."""
        kept = self.load(name)
        pairs = EncodedPhotos(self.inverter(name).representation, photos, device=self.device)
        usual = kept_baselines(kept, "its training photographs", pairs)
        return usual + slow_baselines(self.applying(name), Basis(pairs, "the photographs", unseen=False), len(photos))

    def applying(self, name: str | Path | Inverter) -> list[str]:
        """The slow baselines that can invert what an inverter does."""
        return [baseline for baseline in self.baselines if applies(baseline, self.inverter(name))]

    def evaluate(self, name: str | Path) -> Evaluation:
        """An inverter beside its usual baselines, the slow ones that apply, and its control."""
        result = evaluate(
            name,
            self.images,
            fit=self.fit,
            device=self.device,
            limit=self.limit,
            loaded=self.load(name),
            baselines=self.applying(name),
        )
        warn_left_out(result.left_out)
        return result


def analyse(names: Iterable[str], inverter: str | Path | Inverter, trial: Trial, folder: str | Path) -> list[Finding]:
    """Ask the named analyses of an inverter; each finding is saved under `folder`."""
    analyses = [get_analysis(name) for name in names]
    asked, photos = trial.inverter(inverter), trial.photos(inverter)
    ids, images = next(photos.batches(len(photos)))
    findings = []
    for place, analysis in enumerate(analyses):
        trial.on_progress(analysis.name, place, len(analyses))
        analysis = analysis.with_weights(trial.weights).against(lambda: trial.rivals(inverter, photos))
        finding = analysis(asked, ids, images.to(trial.device))
        finding.save(Path(folder))
        findings.append(finding)
    return findings


def analyse_all(
    names: Sequence[str], inverters: Sequence[str | Path], trial: Trial, folder: str | Path
) -> dict[str, list[Finding]]:
    """Ask the named analyses of several inverters, each into a folder of its own; findings by what they are called.

    Those of the same encoder - as it is, and trained on as an autoencoder - are also shown together. The sheets, which
    are large, are only in the folders.
    """
    folder, called = Path(folder), labels(inverters)
    every: dict[str, list[Finding]] = {}
    for group in relatives(called, trial):
        found = {title: analyse(names, called[title], trial, folder / file_name(title)) for title in group}
        if several := side_by_side(found):
            together = " and ".join(group)
            found[together] = several
            for finding in several:
                finding.save(folder / file_name(together))
        every |= {title: [replace(one, sheets=[]) for one in findings] for title, findings in found.items()}
    return every


def relatives(called: Mapping[str, str | Path], trial: Trial) -> list[list[str]]:
    """Inverters, by what they are called, in groups of the same encoder."""
    groups: dict[str, list[str]] = {}
    for title, name in called.items():
        groups.setdefault(trial.inverter(name).origin.fingerprint, []).append(title)
    return list(groups.values())


def side_by_side(found: Mapping[str, list[Finding]]) -> list[Finding]:
    """What every analysis found for several inverters, by what they are called, each in one table.

    What applies to fewer than two is left out.
    """
    by_analysis = (dict(zip(found, findings, strict=True)) for findings in zip(*found.values(), strict=True))
    return [
        joined(findings) for findings in by_analysis if sum(not finding.reason for finding in findings.values()) > 1
    ]


class Compared(NamedTuple):
    """One inverter of a comparison: its records, what else stands in its row, and some pictures for the sheet."""

    records: list[Record]
    facts: Record
    photographs: Tensor
    pictures: Tensor
    ids: list[str]
    flattered: bool  # whether the mean image beside it is that of the judged photographs


def compare(inverters: Sequence[str | Path], trial: Trial, folder: str | Path) -> Finding:
    """Inverters side by side on photographs that all of them take, each at its own size; saved in `folder`/compare.

    Where sizes differ, errors are also taken at the smallest, to which everything is scaled: who is closest is told by
    these, as small pictures are easier.
    """
    called = labels(inverters)
    opened = {title: trial.opened(name) for title, name in called.items()}
    shared = set.intersection(*(set(judged.photos.ids) for judged in opened.values()))
    if len(shared) < 2:
        raise ImageError(f"{', '.join(called)} share {len(shared)} photographs here, expected 2 or more: name others")
    sizes = {judged.photos.image_size for judged in opened.values()}
    smallest = min(sizes) if len(sizes) > 1 else None
    parts: dict[str, Compared] = {}
    for index, (title, name) in enumerate(called.items()):
        trial.on_progress(title, index, len(called))
        chosen = [row for row, photo_id in enumerate(opened[title].photos.ids) if photo_id in shared]
        photos = opened[title]._replace(photos=opened[title].photos.subset(chosen)).load(trial.limit)
        warn_left_out(photos.left_out)
        parts[title] = compared(title, trial.load(name), photos, smallest, trial.device)
    records = [record for part in parts.values() for record in part.records]
    told_by, measures = "nre", ["nre", "psnr", "ssim", *BESIDE]
    if smallest is not None:
        told_by = f"nre_at_{smallest}"
        measures.insert(1, told_by)
    table = [row | parts[str(row["inverter"])].facts for row in summarise(records, ["inverter"], measures)]
    answer = closest(errors_by("inverter", records, told_by))
    if smallest is not None:
        answer += f" All at {smallest} pixels, the smallest size, to which the others were scaled."
    if flattered := [title for title, part in parts.items() if part.flattered]:
        answer += (
            f" The mean image beside {', '.join(flattered)} is that of these photographs, so it errs less than others."
        )
    titles = {"its own features": "nre", "features of another photograph": "other_image_nre",
              "mean image": "mean_image_nre"}  # fmt: skip
    series = {words: points(table, key) for words, key in titles.items()}
    first = next(iter(parts.values()))
    shown = {"photograph": first.photographs} | {title: part.pictures for title, part in parts.items()}
    finding = Finding(
        "compare",
        "How much do they keep, side by side?",
        answer,
        table,
        records,
        [Plot("inverter", NRE_AXIS, series, "bars", list(parts))],
        [Sheet(shown, first.ids)],
        columns={} if smallest is None else {told_by: f"NRE at {smallest} pixels ↓"},
    )
    finding.save(Path(folder))
    return finding


def compared(title: str, kept: Mapping[str, Inverter], photos: Photos, smallest: int | None, device: str) -> Compared:
    """An inverter beside its mean image and its control; errors also where all is scaled to the `smallest` size."""
    inverter = main_of(kept)
    mean = kept.get(MeanImage.name) or MeanImage(inverter.representation).fit(
        EncodedPhotos(inverter.representation, photos)
    )
    contenders = [Contender(own, "") for own in dict.fromkeys([inverter, mean])]  # which may be the same
    result = evaluate_contenders(contenders, photos, "", device=device)
    errors = result.errors()
    scaled = errors[inverter.name]
    if smallest not in (None, photos.image_size):
        scaled = errors_at(smallest, inverter, photos, device)
    records: list[Record] = []
    for own in result.records:
        if own.inverter == inverter.name:
            record: Record = {"id": own.id, "inverter": title, "nre": own.nre, "psnr": own.psnr, "ssim": own.ssim}
            at_smallest: Record = {} if smallest is None else {f"nre_at_{smallest}": scaled[own.id]}
            beside: Record = {key: errors[other][own.id] for key, other in BESIDE.items()}
            records.append(record | at_smallest | beside)
    done = inverted(inverter, *next(photos.first(SHOWN).batches(SHOWN)), device)
    return Compared(
        records,
        {"pixels": result.image_size, "N": round(result.pairwise_distance, 1)},
        resized(done.photographs, SIDE),
        resized(done.reconstructions, SIDE),
        done.ids,
        flattered=MeanImage.name not in kept,
    )


def errors_at(size: int, inverter: Inverter, photos: Photos, device: str) -> dict[str, float]:
    """NRE by photograph where photographs and reconstructions are scaled to so many pixels."""
    pictures = [
        (ids, resized(images, size), resized(inverted(inverter, ids, images, device).reconstructions, size))
        for ids, images in photos.batches()
    ]
    pairwise = mean_pairwise_distance(torch.cat([photographs for _, photographs, _ in pictures]))
    return {
        photo_id: float(error) / pairwise
        for ids, photographs, reconstructions in pictures
        for photo_id, error in zip(ids, distance(photographs, reconstructions), strict=True)
    }


def closest(errors: Mapping[str, Mapping[str, float]]) -> str:
    """Whose errors (by photograph) are least, and by how much less than each other's, in words."""
    best = min(errors, key=lambda title: mean_and_sem(list(errors[title].values()))[0])
    mean, sem = mean_and_sem(list(errors[best].values()))
    if len(errors) == 1:
        return f"NRE {plus_minus(mean, sem)} (n = {len(errors[best])})."
    others = []
    for title, own in errors.items():
        if title != best:
            difference, difference_sem, _ = paired_difference(own, errors[best])
            unsure = ", too close to tell" if difference <= 2 * difference_sem else ""
            others.append(f"{title} {plus_minus(difference, difference_sem, sign='+')}{unsure}")
    words = f"{best} has the least error: NRE {plus_minus(mean, sem)} (n = {len(errors[best])})"
    return f"{words}; against it, photograph by photograph: {'; '.join(others)}."


def write_report(
    inverters: Sequence[str | Path], trial: Trial, file: str | Path, analyses: Iterable[str] | None = None
) -> Path:
    """One page on shipped or trained inverters: how they were made, how good they are, every analysis.

    Inverters of the same encoder, such as an autoencoder's, are shown side by side in every analysis too.

    The numbers behind it, as CSV and JSON, and every figure are kept in the folder of the same name beside it.
    """
    file = Path(file)
    check_page(file)
    folder = file.with_suffix("")
    names = list(analyses if analyses is not None else ANALYSES)
    called = labels(inverters)
    sections = []
    if len(inverters) > 1:
        compare(inverters, trial, folder)
        sections.append(report.Section("Side by side", [report.finding_block(folder / "compare")]))
    blocks = {
        title: [made_block(name), *evaluation_blocks(name, trial, folder / file_name(title))]
        for title, name in called.items()
    }
    findings = analyse_all(names, inverters, trial, folder)
    if len(findings) == len(called) > 1:  # of different encoders
        for finding in side_by_side(findings):
            finding.save(folder / TOGETHER)
            sections[0].blocks.append(report.finding_block(folder / TOGETHER / finding.analysis))
    for title, own in blocks.items():
        own += [report.finding_block(folder / file_name(title) / finding.analysis) for finding in findings.pop(title)]
        sections.append(report.Section(title, own))
    for title, together in findings.items():
        shown = [report.finding_block(folder / file_name(title) / finding.analysis) for finding in together]
        sections.append(report.Section(f"{title}, of the same encoder", shown))
    photographs = sources_in_words(source_list(trial.images)) or "those that the run was validated on"
    made = f"Made by Preimage {version('preimage')}, torch {torch.__version__}. Photographs: {photographs}."
    report.write_page(f"What {', '.join(called)} keep{'s' if len(inverters) == 1 else ''}", made, sections, file)
    return file


def evaluation_blocks(name: str | Path, trial: Trial, folder: Path) -> list[report.Block]:
    """The table of an inverter and its baselines, and a sheet; records and pictures are kept in `folder`."""
    label = Kept.of(name).label
    trial.on_progress(f"{label}: evaluation", 0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    result = trial.evaluate(name)
    replace_text(folder / "records.csv", result.records_csv())
    draw_sheet(trial.inverter(name), trial.photos(name).first(SHOWN), folder / "sheet.png", trial.device)
    seen = f"photographs, what {label} sees of them where that can be drawn, reconstructions, differences"
    return [
        report.evaluation_block(result),
        report.Block("What it looks like", figures=[report.picture(folder / "sheet.png", f"Rows of {seen}")]),
    ]


def made_block(name: str | Path) -> report.Block:
    """How an inverter was made, from its card or its run folder."""
    facts = Kept.of(name).card or {"file": Path(name).name, "bytes": Path(name).stat().st_size}
    rows = [(key.replace("_", " "), text) for key, value in facts.items() if (text := in_words(value))]
    return report.facts_block("How it was made", rows)


def in_words(value: Any) -> str:
    """A plain value as a reader takes it; lists and tables of results are left to their own blocks."""
    if isinstance(value, dict):
        if any(
            isinstance(one, dict) or (isinstance(one, list) and one and not in_words(one)) for one in value.values()
        ):
            return ""
        return ", ".join(f"{key.replace('_', ' ')} {in_words(one)}" for key, one in value.items() if one is not None)
    if isinstance(value, list):
        return "" if any(isinstance(one, list | dict) for one in value) else " ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def labels(names: Sequence[str | Path]) -> dict[str, str | Path]:
    """Inverters by what they are called; those that would be called the same, by their whole names."""
    told = [whole(name) for name in names]
    if twice := [name for index, name in enumerate(told) if name in told[:index]]:
        raise SettingsError(f"{twice[0]} is named twice: name every inverter once")
    short = [Kept.of(name).label for name in names]
    taken = {own for own in short if short.count(own) > 1} | {"compare", TOGETHER}  # where comparisons are kept
    return {whole(name) if own in taken else own: name for own, name in zip(short, names, strict=True)}


def whole(name: str | Path) -> str:
    """A name as it is, a path however it was written."""
    return str(Path(name)) if is_path(name) else str(name)
