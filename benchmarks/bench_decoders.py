"""Our decoder against the paper's: same photographs, seed, augmentation and compute; one table.

    python benchmarks/bench_decoders.py                                       # parameters, FLOPs and speed
    python benchmarks/bench_decoders.py --images 'photos/train-*.tar' --val photos/val.tar \\
        --minutes-per-decoder 30 --runs runs/decoders --markdown docs/decoders.md

Without --images nothing is trained. `--sizes shipped` is the size of the preset: the paper's decoder gets the width at
which it has as many parameters; `full` is width 1 for both. `longer` is the size of the preset again, in a table of its
own: for pairs that a short training does not decide.

*Equal compute* is equal time of training steps. The seconds of a step (forward, backward, Adam, average) are measured
for both decoders in turns, on noise; minutes over seconds is the number of steps, over which the learning rate ends at
zero. (Equal FLOPs would reward the decoder whose FLOPs are slow ones.) With one thread it is processor time, which
other programs hardly lengthen; with several, and on a GPU, it is the clock's. `--paced-by` takes the step times of
another device, so that trainings begun there can be finished here; decoders of one table may go by different devices,
those of one representation by the same. Features, photographs and validation cost
both decoders the same and are not counted; with `--set augmentation.variants=2` features are computed once and kept on
disk, for all that train on them.

Everything is kept in --runs: `records.jsonl` has a line for each cost, training and comparison as they come, and a run
folder for each training. The same command goes on where it stood; given to several processes, they share the trainings
(after costs have been measured by one alone, without --images). `--records` names another file for the lines; those of
docs/decoders.md are in benchmarks/decoders.jsonl, so that it can be added to. `--table-only` measures nothing more.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from preimage import runs, training, zoo
from preimage.config import Settings, load_preset, preset_names
from preimage.decoders import cost, output_size
from preimage.errors import BusyError, PreimageError, WeightsError
from preimage.evaluation import CONTROL, FLOOR
from preimage.files import read_json
from preimage.inverters import MeanImage, UpConv
from preimage.metrics import mean_and_sem
from preimage.runs import Run
from preimage.words import plus_minus
from rivals import Candidate, candidates, noise, stepper
from timing import clock_of, in_turns

QUICK = ["hog", "lbp", "efficientnet_lite0.stage5", "efficientnet_lite0.pool"]  # where nothing is trained
PAGE = Path(__file__).with_name("decoders.md.jinja")

TABLES = ("shipped", "longer", "full")  # by size; "longer" is "shipped" once more
RECORDS = "records.jsonl"
KEY = ("representation", "size", "decoder", "width")  # of the records of one decoder

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=[], help="training photographs")
    parser.add_argument("--val", nargs="+", default=[], help="photographs the decoders are compared on")
    parser.add_argument("--representations", nargs="+", help="by default all with weights at hand; without --images 4")
    parser.add_argument("--sizes", nargs="+", choices=TABLES, default=["shipped"])
    parser.add_argument("--minutes-per-decoder", type=float, default=30, help="processor time of training steps")
    parser.add_argument("--set", nargs="+", default=[], help="settings, as `preimage zoo train --set` takes them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--paced-by", help="the device whose step times budgets go by, as records name it")
    parser.add_argument("--rounds", type=int, default=5, help="steps and inversions measured; 0: count only")
    parser.add_argument("--runs", type=Path, help="where everything is kept; by default nowhere")
    parser.add_argument("--records", type=Path, help="where lines are kept; by default records.jsonl in --runs")
    parser.add_argument("--table-only", action="store_true", help="the table of what is kept; nothing is measured")
    parser.add_argument("--markdown", type=Path, help="write the table as a page")
    options = parser.parse_args()
    if bool(options.images) != bool(options.val):
        parser.error("--images and --val belong together: decoders are compared on photographs they have not seen")
    if options.rounds < 0 or options.minutes_per_decoder <= 0:
        parser.error("--rounds is not negative, and --minutes-per-decoder is positive")
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options, Path(options.runs or temporary), options.records)
        try:
            if options.table_only and not bench.records:
                parser.error(f"--table-only needs records: name --records, or --runs with {RECORDS}")
            if not options.table_only:
                bench.run()
            page = render(bench.records)
        except PreimageError as error:
            sys.exit(str(error))
        if options.markdown:
            options.markdown.write_text(page)
        else:
            print(page)


class Bench:
    """What has been measured, in `records.jsonl`, and how to measure the rest."""

    def __init__(self, options: argparse.Namespace, folder: Path, records: Path | None = None) -> None:
        self.options = options
        self.folder = folder
        self.file = records or folder / RECORDS
        self.stopping = False

    @property
    def records(self) -> list[Record]:
        """All that is kept by now, other processes' too; raises `PreimageError` for a line that is not whole."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise PreimageError(f"{self.file} holds half a line, {error.doc!r}: remove it, and run again") from error

    def keep(self, kind: str, **facts: Any) -> Record:
        record = {"kind": kind, **facts}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record

    def find(self, kind: str, **facts: Any) -> Record | None:
        return find(self.records, kind, **facts)

    @property
    def pace(self) -> Record:
        """The device whose step times budgets go by; a processor's depend on its threads too."""
        device = self.options.paced_by or runs.device_name(torch.device(self.options.device))
        return {"device": device, **({"threads": self.options.threads} if device.startswith("cpu") else {})}

    def cost_of(self, candidate: Candidate) -> Record | None:
        """What is known of a candidate's cost where the pace is set."""
        return self.find("cost", **key_of(candidate), **self.pace)

    def run(self) -> None:
        """All that is missing. Ctrl-C and SIGTERM end it after the step, with a checkpoint."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        names = self.options.representations or (list(zoo.PLANNED) if self.options.images else QUICK)
        for size, name in itertools.product(self.options.sizes, names):
            try:
                contestants = candidates(name, size, self.options.set)
            except WeightsError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            self.compare(contestants)
            if self.stopping:
                break

    def stop(self, *_: object) -> None:
        self.stopping = True

    def compare(self, contestants: list[Candidate]) -> None:
        """Ours and the paper's for one representation at one size."""
        known = [self.cost_of(candidate) for candidate in contestants]
        if self.options.paced_by and not all(known):
            print(f"{contestants[0].representation} is left out: no step times of {self.options.paced_by}", flush=True)
            return
        if not all(known) or (self.options.rounds and not all(cost["step_seconds"] for cost in known if cost)):
            self.measure(contestants)
        if not self.options.images:
            return
        for candidate in contestants:
            if not self.stopping and not self.find("trained", **key_of(candidate)):
                self.train(candidate)
        key = key_of_pair([key_of(candidate) for candidate in contestants])
        trained = all(self.find("trained", **key_of(candidate)) for candidate in contestants)
        if trained and not self.find("paired", **key):
            ours, theirs = (errors(self.run_folder(candidate)) for candidate in contestants)
            difference, sem = mean_and_sem([ours[photo] - theirs[photo] for photo in ours])
            self.keep("paired", **key, difference=difference, sem=sem, n=len(ours))

    def settings(self, candidate: Candidate) -> Settings:
        options = self.options
        return candidate.settings(options.images, options.val, options.set, options.seed)

    def measure(self, contestants: list[Candidate]) -> None:
        """Cost and speed of decoders, in turns."""
        accelerator = training.make_accelerator(self.options.device)
        clock = clock_of(accelerator.device)
        steps, inversions, facts = {}, {}, {}
        for candidate in contestants:
            settings = self.settings(candidate)
            inverter = runs.make_inverter(settings, settings.encoder)
            batch = noise(settings, inverter, accelerator.device)
            facts[candidate.decoder] = facts_of(settings, inverter, accelerator.device)
            steps[candidate.decoder] = stepper(settings, inverter, batch, accelerator)
            inversions[candidate.decoder] = partial(invert, inverter.use(inverter.network), batch[0])
        rounds = self.options.rounds
        step_times = in_turns(steps, rounds, clock) if rounds else {name: [] for name in steps}
        inversion_times = in_turns(inversions, rounds, clock) if rounds else {name: [] for name in inversions}
        for candidate in contestants:
            name = candidate.decoder
            self.keep(
                "cost", **key_of(candidate), **facts[name], rounds=rounds,
                step_seconds=statistics.median(step_times[name] or [0]) / training.steps_at_once(accelerator.device),
                inversion_seconds=statistics.median(inversion_times[name] or [0]),
            )  # fmt: skip

    def train(self, candidate: Candidate) -> None:
        """Train a decoder with its share of processor time, or go on with it; keep what came out."""
        self.check_conditions(candidate.size)
        folder = self.run_folder(candidate)
        begun = (folder / "settings.json").exists()
        if not (folder / "summary.json").exists():
            settings = self.with_budget(candidate)
            print(
                f"{candidate.representation}, {candidate.size}: {candidate.decoder}, {settings.training.steps} steps",
                flush=True,
            )
            go = partial(runs.resume, folder) if begun else partial(runs.train, settings, folder)
            try:
                go(device=self.options.device, should_stop=lambda: self.stopping)
            except BusyError:
                return  # another process has it
        run = Run.open(folder)
        if run.summary_file.exists():
            result = summary_of(run)
            print(f"  NRE {plus_minus(result['nre'], result['nre_sem'])} (n = {result['n']})", flush=True)
            self.keep("trained", **key_of(candidate), **result)

    def with_budget(self, candidate: Candidate) -> Settings:
        """The candidate's settings with as many steps as the processor time is enough for."""
        measured = self.cost_of(candidate)
        if measured is None or not measured["step_seconds"]:
            raise PreimageError("equal compute needs to know how long a step takes: give --rounds 5")
        steps = max(1, int(60 * self.options.minutes_per_decoder / measured["step_seconds"]))
        settings = self.settings(candidate)
        limited = replace(
            settings.training, steps=steps, epochs=None, minutes=None, evaluate_every=steps,
            warmup_steps=min(settings.training.warmup_steps, steps // 10), checkpoint_every=max(50, steps // 2),
        )  # fmt: skip
        return replace(settings, training=limited)

    def check_conditions(self, size: str) -> None:
        """All decoders of a table that go by the step times of one device are trained under the same ones."""
        wanted = self.conditions()
        kept = self.find("conditions", size=size, **self.pace) or self.keep("conditions", size=size, **wanted)
        for name, value in wanted.items():
            if kept.get(name) != value:
                raise PreimageError(
                    f"{self.file} has the size {size} with {name}={kept.get(name)}, not {value}: go on so, or "
                    "name other --runs"
                )

    def conditions(self) -> Record:
        """What decoders of a table must have in common to be compared."""
        options = self.options
        return {
            "images": [Path(place).name for place in options.images],
            "val": [Path(place).name for place in options.val],
            "minutes": options.minutes_per_decoder, "seed": options.seed,
            "set": [re.sub(r"(?<=[=,])[^=,]*/", "", override) for override in options.set],
            **self.pace,
        }  # fmt: skip

    def run_folder(self, candidate: Candidate) -> Path:
        name = f"{candidate.representation}-{candidate.decoder}-{candidate.width:g}"
        return self.folder / candidate.size / name


def key_of(candidate: Candidate) -> Record:
    """What a candidate's records are found by."""
    return asdict(candidate)


def key_of_pair(pair: Sequence[Record]) -> Record:
    """What the comparison of two decoders is found by."""
    first, second = pair
    return {
        "representation": first["representation"], "size": first["size"],
        "decoders": [first["decoder"], second["decoder"]], "widths": [first["width"], second["width"]],
    }  # fmt: skip


def facts_of(settings: Settings, inverter: UpConv, device: torch.device) -> Record:
    """What is known of a decoder before anything is measured."""
    numbers = cost(inverter.network, inverter.input_shape)
    return {
        "feature_shape": list(inverter.input_shape), "image_size": inverter.representation.image_size,
        "output_size": list(output_size(inverter.network, inverter.input_shape)),
        "parameters": numbers.parameters, "flops": numbers.flops, "batch_size": settings.training.batch_size,
        "precision": training.resolve_precision(settings.training.precision, device),
        "threads": torch.get_num_threads(), "device": runs.device_name(device),
    }  # fmt: skip


def invert(inverter: UpConv, features: Tensor) -> Tensor:
    return inverter.invert(features).cpu()  # what is on its way to the CPU has been computed


def summary_of(run: Run) -> Record:
    """Of a finished run: its steps and photographs, and the rows of its evaluation."""
    summary = read_json(run.summary_file)
    rows = {row["inverter"]: row for row in summary["rows"]}
    own, floor = rows[UpConv.name], rows.get(FLOOR)
    return {
        "steps": run.step, "photos": summary["photos"], "n": own["n"], "nre": own["nre"], "nre_sem": own["nre_sem"],
        "floor": floor["nre"] if floor else 0.0, "mean_image": rows[MeanImage.name]["nre"],
        "mean_image_sem": rows[MeanImage.name]["nre_sem"], "other_image": rows[CONTROL]["nre"],
        "device": run.provenance["device"],
    }  # fmt: skip


def errors(folder: Path) -> dict[str, float]:
    """NRE by photograph of a finished run's inverter."""
    with Run.open(folder).records_file.open() as file:
        return {row["id"]: float(row["nre"]) for row in csv.DictReader(file) if row["inverter"] == UpConv.name}


# --- the page ---------------------------------------------------------------------------------------------------------


def find(records: list[Record], kind: str, **facts: Any) -> Record | None:
    """The last record of a kind with these facts."""
    wanted = {"kind": kind, **facts}.items()
    return next(
        (record for record in reversed(records) if all(record.get(key) == value for key, value in wanted)), None
    )


def render(records: list[Record]) -> str:
    """The table as Markdown, and what follows from it."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    measured = [record for record in records if record["kind"] == "cost"]
    order = zoo.in_order({record["representation"] for record in measured})
    latest = {
        (order.index(record["representation"]), record["size"], is_papers(record["decoder"])): record
        for record in measured
    }
    costs = [latest[which] for which in sorted(latest)]
    pairs = [list(pair) for _, pair in itertools.groupby(costs, lambda one: (one["representation"], one["size"]))]
    paired = [find(records, "paired", **key_of_pair(pair)) for pair in pairs]
    verdicts = [verdict(pair, found) for pair, found in zip(pairs, paired, strict=True) if found]
    return environment.from_string(PAGE.read_text()).render(
        sizes=[size_of(records, costs, verdicts, size) for size in TABLES],
        minutes=sorted({record["minutes"] for record in records if record["kind"] == "conditions"}),
        defaults=defaults(),
        won=grouped((one["winner"], one["representation"]) for one in decided(verdicts)),
    )


def decided(verdicts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The verdicts at the size of the presets: that of the longer training, where there is one."""
    found = {(one["representation"], one["size"]): one for one in verdicts}
    return [found.get((name, "longer"), one) for (name, size), one in found.items() if size == "shipped"]


def size_of(
    records: list[Record], costs: Sequence[Record], verdicts: Sequence[Mapping[str, Any]], size: str
) -> Mapping[str, Any]:
    """All that a page says of decoders of one size: how they were measured and trained, and their rows."""
    own = [one for one in costs if one["size"] == size]
    timed = [one for one in own if one["step_seconds"]]
    trained = [record for record in records if record["kind"] == "trained" and record["size"] == size]
    compared = [one for one in verdicts if one["size"] == size]
    paces = [record for record in records if record["kind"] == "conditions" and record["size"] == size]
    return {
        "name": size,
        "rows": [row(records, one) for one in own],
        "machines": sorted({f"{one['device']}, {one['precision']}, threads: {one['threads']}" for one in timed}),
        "batches": sorted({one["batch_size"] for one in timed}),
        "one_thread": all(one["device"].startswith("cpu") and one["threads"] == 1 for one in timed),
        "photos": sorted({record["photos"] for record in trained}),
        "trainers": sorted({record["device"] for record in trained}),
        "conditions": [(pace, paced_by(pace, own)) for pace in paces] if trained else [],
        "verdicts": compared,
        "untried": [
            name for name in zoo.PLANNED if size != "longer" and name not in {one["representation"] for one in compared}
        ],
    }


def paced_by(conditions: Record, costs: Sequence[Record]) -> list[str]:
    """The representations whose decoders were given the time of one device."""
    pace = {key: conditions[key] for key in ("device", "threads") if key in conditions}
    return list(dict.fromkeys(one["representation"] for one in costs if pace == {key: one[key] for key in pace}))


def row(records: list[Record], measured: Record) -> list[str]:
    """One decoder's cells."""
    key = {name: measured[name] for name in KEY}
    result = find(records, "trained", **key)
    batch = measured["batch_size"]
    cells = [
        f"`{measured['representation']}`", f"`{measured['decoder']}`", " x ".join(map(str, measured["output_size"])),
        f"{measured['width']:g}", f"{measured['parameters'] / 1e6:.2f} M", f"{measured['flops'] / 1e9:.3g}",
        *(f"{batch / measured[one]:.1f}" if measured[one] else "" for one in ("step_seconds", "inversion_seconds")),
    ]  # fmt: skip
    if result is None:
        return [*cells, "", "", "", "", ""]
    return [
        *cells, f"{result['steps']:,}", plus_minus(result["nre"], result["nre_sem"]), str(result["n"]),
        f"{result['floor']:.3f}", plus_minus(result["mean_image"], result["mean_image_sem"]),
    ]  # fmt: skip


def verdict(pair: Sequence[Record], paired: Record) -> Mapping[str, Any]:
    """Which decoder wins, photograph by photograph: NRE of ours less the paper's."""
    ours, rival = (one["decoder"] for one in pair)
    difference, sem = paired["difference"], paired["sem"]
    winner = "neither" if abs(difference) <= 2 * sem else ours if difference < 0 else rival
    return {
        "representation": paired["representation"], "size": paired["size"], "n": paired["n"], "rival": rival,
        "difference": f"{difference:+.4f} ± {sem:.4f}", "winner": winner,
    }  # fmt: skip


def is_papers(decoder: str) -> bool:
    return decoder.startswith("paper-")


def defaults() -> dict[str, list[str]]:
    """The decoders of the presets, and for which representations."""
    return grouped((load_preset(name)["decoder"]["name"], name) for name in preset_names())


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The second words of pairs, by the first."""
    found: dict[str, list[str]] = {}
    for key, word in pairs:
        found.setdefault(key, []).append(word)
    return found


if __name__ == "__main__":
    main()
