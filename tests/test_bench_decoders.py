"""The comparison of decoders is kept, goes on where it stood, and is told as it came out."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from preimage.decoders import build_decoder, cost
from preimage.errors import PreimageError
from preimage.runs import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
bench_decoders = pytest.importorskip("bench_decoders")
rivals = pytest.importorskip("rivals")

HOG, VECTOR = (31, 32, 32), (64,)

COMPARED = [
    "hog:representation.image_size=64", "decoder.width=0.05", "training.batch_size=8", "training.precision=float32",
]  # fmt: skip


def options(crops: Path, **changed: Any) -> argparse.Namespace:
    wanted = {
        "images": [str(crops)], "val": [str(crops)], "representations": ["hog"], "sizes": ["shipped"],
        "minutes_per_decoder": 0.002, "set": COMPARED, "seed": 0, "threads": torch.get_num_threads(), "device": "cpu",
        "paced_by": None, "rounds": 1,
    }  # fmt: skip
    return argparse.Namespace(**wanted | changed)


@pytest.fixture(scope="module")
def compared(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which HOG's two decoders have been compared."""
    folder = tmp_path_factory.mktemp("bench")
    bench_decoders.Bench(options(crops), folder).run()
    return folder


def without(compared: Path, kept: Callable[[dict[str, Any]], bool], folder: Path) -> Path:
    """A copy of the folder in which only some of its records are kept."""
    shutil.copytree(compared, folder)
    lines = [line for line in (folder / "records.jsonl").read_text().splitlines() if kept(json.loads(line))]
    (folder / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_both_decoders_have_as_many_parameters_and_a_result(crops: Path, compared: Path) -> None:
    bench = bench_decoders.Bench(options(crops), compared)
    ours, papers = (
        [bench.find(kind, decoder=name) for kind in ("cost", "trained")] for name in ("multiscale", "paper-hog")
    )
    assert papers[0]["parameters"] == pytest.approx(ours[0]["parameters"], rel=0.1)
    assert ours[1]["n"] == papers[1]["n"] == 64
    difference = bench.find("paired", representation="hog")["difference"]
    assert difference == pytest.approx(ours[1]["nre"] - papers[1]["nre"], abs=1e-6)


def test_what_has_been_compared_is_not_compared_again(crops: Path, compared: Path) -> None:
    before = (compared / "records.jsonl").read_text()
    bench_decoders.Bench(options(crops), compared).run()
    assert (compared / "records.jsonl").read_text() == before


def test_a_training_that_was_cut_off_is_done_by_the_next_run(crops: Path, compared: Path, tmp_path: Path) -> None:
    cut_off = without(compared, lambda one: one["kind"] == "cost" or one.get("decoder") == "multiscale", tmp_path / "b")
    bench = bench_decoders.Bench(options(crops), cut_off)
    bench.run()
    assert bench.find("trained", decoder="paper-hog")
    assert bench.find("paired", representation="hog")


def test_decoders_trained_under_other_conditions_are_not_put_into_one_table(
    crops: Path, compared: Path, tmp_path: Path
) -> None:
    untrained = without(compared, lambda one: one["kind"] in ("cost", "conditions"), tmp_path / "b")
    with pytest.raises(PreimageError, match="seed=0, not 1"):
        bench_decoders.Bench(options(crops, seed=1), untrained).run()


def test_what_another_process_trains_is_left_to_it(crops: Path, compared: Path, tmp_path: Path) -> None:
    bench = bench_decoders.Bench(options(crops), without(compared, lambda one: one["kind"] == "cost", tmp_path / "b"))
    ours, _ = (bench.run_folder(one) for one in bench_decoders.candidates("hog", "shipped", COMPARED))
    (ours / "summary.json").unlink()
    with Run.open(ours).held():
        bench.run()
    assert [one["decoder"] for one in bench.records if one["kind"] == "trained"] == ["paper-hog"]
    assert not bench.find("paired")


def test_what_is_known_of_one_width_is_not_taken_for_another(crops: Path, compared: Path) -> None:
    bench = bench_decoders.Bench(options(crops), compared)
    same = bench_decoders.candidates("hog", "shipped", COMPARED)
    wider = bench_decoders.candidates("hog", "shipped", [*COMPARED, "decoder.width=0.1"])
    assert all(bench.cost_of(candidate) for candidate in same)
    assert not any(bench.cost_of(candidate) for candidate in wider)
    bench.options.threads += 1
    assert not any(bench.cost_of(candidate) for candidate in same)


def test_budgets_go_by_the_step_times_of_another_device(crops: Path, compared: Path, tmp_path: Path) -> None:
    folder = without(compared, lambda one: one["kind"] == "cost", tmp_path / "b")
    bench = bench_decoders.Bench(options(crops, paced_by="a fast one"), folder)
    bench.run()  # nothing is known of its step times
    ours, _ = bench_decoders.candidates("hog", "shipped", COMPARED)
    assert not bench.find("conditions")
    bench.keep(**bench.find("cost", decoder=ours.decoder) | {"device": "a fast one", "step_seconds": 0.01})
    assert bench.with_budget(ours).training.steps == 12  # 0.002 minutes


def test_a_table_says_whose_step_times_each_pair_went_by(compared: Path) -> None:
    lines = [json.loads(line) for line in (compared / "records.jsonl").read_text().splitlines()]
    fast = {"representation": "lbp", "device": "a fast one"}
    of_lbp = [one | fast for one in lines if one["kind"] == "cost"]
    conditions = next(one for one in lines if one["kind"] == "conditions")
    of_lbp.append({key: value for key, value in conditions.items() if key != "threads"} | fast | {"minutes": 7})
    page = bench_decoders.render([*lines, *of_lbp])
    assert "- 7 minutes of a fast one: lbp\n" in page
    assert re.search(r"- 0\.002 minutes of cpu, .*: hog\n", page)


def test_where_the_presets_decoder_is_the_papers_ours_has_as_many_parameters() -> None:
    papers = ["decoder.name=paper-map", "decoder.width=0.5"]
    ours, theirs = bench_decoders.candidates("efficientnet_lite0.stage5", "shipped", papers)
    assert (ours.decoder, theirs.decoder, theirs.width) == ("compact", "paper-map", 0.5)
    assert ours.width == pytest.approx(0.5, abs=0.15)


def test_the_page_says_who_won(crops: Path, compared: Path) -> None:
    records = bench_decoders.Bench(options(crops), compared).records
    for record in records:
        if record["kind"] == "paired":
            record |= {"difference": 0.1, "sem": 0.01}
    page = bench_decoders.render(records)
    assert "| `hog` | `paper-hog` | +0.1000 ± 0.0100 | 64 | paper-hog |" in page
    assert "0.002 minutes" in page


def test_a_longer_training_decides(crops: Path, compared: Path) -> None:
    records = bench_decoders.Bench(options(crops), compared).records
    longer = [record | {"size": "longer"} for record in records]
    for record in [*records, *longer]:
        if record["kind"] == "paired":
            record |= {"difference": 0.1 if record["size"] == "shipped" else -0.1, "sem": 0.01}
    assert "- paper-hog wins for hog." in bench_decoders.render(records)
    page = bench_decoders.render([*records, *longer])
    assert "- multiscale wins for hog." in page
    assert "- paper-hog wins" not in page
    assert page.count("+0.1000") == page.count("-0.1000") == 1


def test_without_trainings_the_page_has_costs_only(crops: Path, compared: Path) -> None:
    records = bench_decoders.Bench(options(crops), compared).records
    page = bench_decoders.render([record for record in records if record["kind"] == "cost"])
    assert "GFLOP" in page
    assert "NRE" not in page


def test_the_page_in_the_docs_is_what_its_records_say() -> None:
    file = Path(bench_decoders.__file__).with_name("decoders.jsonl")
    page = Path(bench_decoders.__file__).parents[1] / "docs" / "decoders.md"
    bench = bench_decoders.Bench(argparse.Namespace(), page.parent, file)
    assert bench_decoders.render(bench.records) == page.read_text()
    assert page.read_text().count("paper-vector") > 10


def test_what_was_not_trained_at_a_size_is_named(crops: Path, compared: Path) -> None:
    page = bench_decoders.render(bench_decoders.Bench(options(crops), compared).records)
    (untried,) = [line for line in page.splitlines() if line.startswith("Not compared by training yet: ")]
    assert "sift" in untried
    assert "hog" not in untried


@pytest.mark.parametrize(("name", "shape"), [("compact", HOG), ("paper-hog", HOG), ("paper-vector", VECTOR)])
def test_a_decoder_can_be_brought_to_the_size_of_another(name: str, shape: tuple[int, ...]) -> None:
    decoder = build_decoder(name, shape, 256, rivals.width_for(name, shape, 256, 2_000_000))
    assert cost(decoder, shape).parameters == pytest.approx(2_000_000, rel=0.1)


def test_a_decoder_gets_its_own_width_back() -> None:
    parameters = cost(build_decoder("paper-hog", HOG, 256, 1.5), HOG).parameters
    width = rivals.width_for("paper-hog", HOG, 256, parameters)
    assert cost(build_decoder("paper-hog", HOG, 256, width), HOG).parameters == parameters


def test_a_decoder_of_fewer_parameters_than_any_width_has_is_the_narrowest() -> None:
    assert rivals.width_for("paper-vector", VECTOR, 256, 1) == 0.001
