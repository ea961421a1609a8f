"""Analyses saved, inverters compared, and the pages that tell it all."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from preimage import api, studies, zoo
from preimage.analyses.conditions import MEAN
from preimage.analyses.perturbation import TIMES
from preimage.api import sample_files
from preimage.errors import PreimageWarning, SettingsError, UnknownNameError
from preimage.files import file_name
from preimage.findings import Plot, joined_plot, read_finding
from preimage.inverters import MeanImage, load_inverters, save_inverters
from preimage.judging import applies
from preimage.kept import InRun, Kept
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG, get_representation
from preimage.reproduce import ITEMS, Study, reproduce
from preimage.studies import Trial, analyse, compare, labels, write_report

HOG64 = HOG(image_size=64)
LAYER = "efficientnet_lite0.stem"
SHIPPED_FILE = zoo.FOLDER / "hog.safetensors"


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial(sample_files(), limit=3)


class Page(HTMLParser):
    """Resources, pictures and words of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.resources: list[str] = []
        self.alts: list[str] = []
        self.words = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag in ("img", "script", "link", "iframe"):
            self.resources.append(str(facts.get("src") or facts.get("href")))
        if tag == "img":
            self.alts.append(str(facts.get("alt") or ""))

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_an_analysis_leaves_records_before_pictures(trial: Trial, tmp_path: Path) -> None:
    (finding,) = analyse(["brightness"], "hog", trial, tmp_path)
    with (tmp_path / "brightness" / "records.csv").open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 4 * 3 == len(finding.records)
    assert {record["condition"] for record in records} == {f"{TIMES}1", f"{TIMES}10", f"{TIMES}100", MEAN}
    assert (tmp_path / "brightness" / "plot-0.png").exists()


def test_hog_hardly_keeps_brightness(trial: Trial, tmp_path: Path) -> None:
    (finding,) = analyse(["brightness"], "hog", trial, tmp_path)
    plain, _, bright, _ = (float(row["nre"]) for row in finding.table)
    assert bright == pytest.approx(plain, abs=0.01)


def test_the_same_inverter_twice_compares_equal(trial: Trial, tmp_path: Path) -> None:
    finding = compare(["hog", SHIPPED_FILE], trial, tmp_path)
    first, second = finding.table
    assert first["nre"] == pytest.approx(second["nre"])
    assert float(first["other_image_nre"]) > 1.5 * float(first["nre"])
    assert set(finding.sheets[0].columns) == {"photograph", "hog", str(SHIPPED_FILE)}
    assert "is that of these photographs" not in finding.answer


def test_a_mean_image_can_be_compared_too(trial: Trial, tmp_path: Path) -> None:
    api.fit_inverter("mean-image", "hog", sample_files(), tmp_path / "mean.safetensors")
    _, mean = compare(["hog", tmp_path / "mean.safetensors"], trial, tmp_path).table
    assert mean["nre"] == mean["mean_image_nre"]


def test_a_mean_image_of_the_judged_photographs_is_said_to_be_one(trial: Trial, tmp_path: Path) -> None:
    api.fit_inverter("nearest", "hog", sample_files(), tmp_path / "nearest.safetensors")
    answer = compare([tmp_path / "nearest.safetensors", "hog"], trial, tmp_path).answer
    assert "The mean image beside nearest is that of these photographs" in answer


def test_a_report_is_one_page_that_loads_nothing(trial: Trial, tmp_path: Path) -> None:
    page = Page(write_report(["hog"], trial, tmp_path / "report.html", ["brightness", "dark-knowledge"]))
    assert page.resources
    assert all(source.startswith("data:image/") for source in page.resources)
    assert all(page.alts)
    for expected in ("What hog keeps", "mean-image", "other-image", "±", "licence", f"{TIMES}100"):
        assert expected in page.words
    assert "Does not apply: hog holds no class scores" in page.words
    assert read_finding(tmp_path / "report" / "hog" / "brightness")["table"]


def test_a_report_on_several_begins_side_by_side(trial: Trial, tmp_path: Path) -> None:
    page = Page(write_report(["hog", SHIPPED_FILE], trial, tmp_path / "two.html", []))
    assert "Side by side" in page.words
    assert "has the least error" in page.words


def test_a_report_is_html(trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"an \.html file"):
        write_report(["hog"], trial, tmp_path / "report.pdf")


def test_the_papers_table_stands_beside_ours(trial: Trial, tmp_path: Path) -> None:
    page = Page(reproduce(["table1"], Study(trial, tmp_path / "page"), tmp_path / "page.html"))
    text = re.sub(r"\s+", " ", page.words)
    assert "paper (recalled)" in text
    assert re.search(r"hog upconv 0\.24 0\.\d{3} ± 0\.\d{3} 3 hog", text)
    assert "hog hoggles 0.61 not available" in text


def test_what_cannot_be_measured_says_why(trial: Trial, tmp_path: Path) -> None:
    page = Page(reproduce(["table2"], Study(trial, tmp_path / "page"), tmp_path / "page.html"))
    assert page.words.count("not available: no trained inverter") >= 8 or "caffenet" in page.words


def test_a_run_stands_for_no_other_representation(trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hog inverts hog, not caffenet\.conv5"):
        Study(trial, tmp_path, {"caffenet.conv5": "hog"})
    with pytest.raises(SettingsError, match=r"an \.html file"):
        reproduce(["table1"], Study(trial, tmp_path), tmp_path / "page")


def test_an_unknown_figure_is_named(trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'table1'"):
        reproduce(["tabel1"], Study(trial, tmp_path), tmp_path / "page.html")
    assert {"table1", "fig8"} <= set(ITEMS)


def test_errors_are_drawn_against_depth(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "shipped", lambda: ["efficientnet_lite0.stage2", "efficientnet_lite0.pool"])
    study = Study(replace(trial, loaded={}), tmp_path / "page")  # nothing that ships no more
    page = Page(reproduce(["fig7"], study, tmp_path / "page.html"))
    assert "2 layers, from efficientnet_lite0.stage2 to efficientnet_lite0.pool" in page.words
    (plot,) = read_finding(tmp_path / "page" / "error-curves")["plots"]
    assert [point[0] for point in plot["series"]["mean-image"]] == [0.0, 1.0]


def test_a_slow_baseline_fills_its_cell_where_it_applies(trial: Trial, tmp_path: Path) -> None:
    quick = api.fit_inverter(
        "gradient-descent", "hog", sample_files(), tmp_path / "quick.safetensors", settings={"iterations": 2}
    )
    trial = replace(trial, baselines=[str(tmp_path / "quick.safetensors")])
    study = Study(trial, tmp_path / "page")
    text = re.sub(r"\s+", " ", Page(reproduce(["table1"], study, tmp_path / "page.html")).words)
    error = r"\d\.\d{3} ± \d\.\d{3}"
    assert re.search(rf"hog {quick.name} 0\.63 {error} [+-]{error} 3 hog", text)
    assert re.search(rf"errs less than gradient descent\. hog (shows|undecided) \+{error} 3", text)
    assert "hog hoggles 0.61 not available: add it by --baseline" in text


def test_records_of_inverters_called_the_same_do_not_overwrite_each_other(trial: Trial, tmp_path: Path) -> None:
    files = {}
    for name in ("hog", "lbp"):
        files[name] = str(tmp_path / name / "x.safetensors")
        api.fit_inverter("mean-image", name, sample_files(), files[name])
    reproduce(["table1"], Study(trial, tmp_path / "page", files), tmp_path / "page.html")
    folders = [records.parent for records in (tmp_path / "page").rglob("records.csv")]
    assert len({folder.name for folder in folders}) == len(folders) >= 2


def test_a_run_is_asked_about_what_it_held_out(crops: Path, tmp_path: Path) -> None:
    tiny = ["decoder.width=0.05", "training.steps=1", "representation.image_size=64", "photos.held_out=0.25"]
    run = api.train("hog", crops, tmp_path / "run", overrides=tiny, device="cpu").folder
    assert Trial([]).photos(run).ids == [
        record.id for record in api.evaluate(run).records if record.inverter == "upconv"
    ]


def test_inverters_of_different_sizes_are_compared_at_the_smallest(trial: Trial, tmp_path: Path) -> None:
    finding = compare(["hog", "efficientnet_lite0.stage5"], trial, tmp_path)
    assert "All at 224 pixels" in finding.answer
    assert finding.columns == {"nre_at_224": "NRE at 224 pixels ↓"}
    rows = {str(row["inverter"]): row for row in finding.table}
    own = rows["efficientnet_lite0.stage5"]
    assert own["nre_at_224"] == pytest.approx(float(own["nre"]), abs=1e-6)
    assert 0.01 > abs(float(rows["hog"]["nre_at_224"]) - float(rows["hog"]["nre"])) > 1e-5
    alone = compare(["hog"], trial, tmp_path)
    assert "nre_at" not in str(alone.table)
    assert alone.answer.startswith("NRE ")


def test_a_report_on_several_encoders_has_every_analysis_in_one_table(trial: Trial, tmp_path: Path) -> None:
    page = Page(write_report(["hog", "lbp"], trial, tmp_path / "both.html", ["brightness", "confidence"]))
    table = read_finding(tmp_path / "both" / "together" / "brightness")["table"]
    assert {row["inverter"] for row in table} == {"hog", "lbp"}
    assert not (tmp_path / "both" / "together" / "confidence").exists()  # neither has learnt it
    assert page.words.index("Side by side") < page.words.index("hog: ") < page.words.index("How it was made")


def test_a_path_written_twice_is_one() -> None:
    with pytest.raises(SettingsError, match="named twice"):
        labels(["./a/run", "./a/run/"])


def test_a_path_is_called_the_same_however_it_is_written() -> None:
    paths: list[str | Path] = ["./a/run", "./b/run"]
    assert list(labels(paths)) == list(labels([Path(path) for path in paths])) == ["a/run", "b/run"]


def test_what_a_run_was_trained_on_is_told_in_a_study(pair: dict[str, Path], few: Trial) -> None:
    run = Kept.of(pair["own"]).run
    assert run is not None
    with pytest.warns(PreimageWarning, match="were trained on"):
        replace(few, images=run.settings.photos.train).photos(pair["own"])


def test_photographs_of_a_trial_may_come_from_an_iterator(trial: Trial) -> None:
    once = replace(trial, images=(file for file in sample_files()))
    assert once.photos("hog").ids == once.photos("hog").ids


def test_a_baseline_that_must_be_fitted_first_is_refused_before_anything_else() -> None:
    with pytest.raises(SettingsError, match="preimage fit hoggles"):
        Trial(sample_files(), baselines=["hoggles"])


def test_a_run_whose_photographs_are_gone_is_evaluated_all_the_same(
    pair: dict[str, Path], few: Trial, tmp_path: Path
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(pair["own"], run)
    settings = (run / "settings.json").read_text()
    (run / "settings.json").write_text(re.sub(r'("train": \[\s*)"[^"]*"', r'\1"/nowhere/*.tar"', settings))
    with pytest.warns(PreimageWarning, match="is not there as it was"):
        result = few.evaluate(run)
    assert {"upconv", "mean-image", "nearest"} <= {row.inverter for row in result.rows}


# --- how inverters are loaded -----------------------------------------------------------------------------------------


def test_an_inverter_is_read_once_for_a_whole_report(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    load = zoo.load_shipped
    monkeypatch.setattr(zoo, "load_shipped", lambda name, **settings: read.append(name) or load(name, **settings))
    write_report(["hog"], replace(trial, loaded={}), tmp_path / "report.html", ["brightness"])
    assert read == ["hog"]


def test_weights_reach_the_networks_that_bring_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "load_shipped", lambda name, **settings: settings)
    trial = Trial([], overrides=["caffenet:weights=b.npz", "weights=a.npz", "hog:cell_size=4"])
    loaded = {name: trial.load(name) for name in ("hog", "alexnet.conv1", "caffenet.fc6", "efficientnet_lite0.pool")}
    assert loaded == {
        "hog": {"cell_size": 4},
        "alexnet.conv1": {"weights": "a.npz"},
        "caffenet.fc6": {"weights": "b.npz"},
        "efficientnet_lite0.pool": {},
    }


def test_a_file_of_weights_may_stand_in_quotes() -> None:
    assert Trial(["."], overrides=['caffenet:weights="a b.npz"']).weights == {"caffenet": "a b.npz"}


def test_whose_weights_are_meant_is_told_by_a_file_and_by_a_run(pair: dict[str, Path], tmp_path: Path) -> None:
    save_inverters([MeanImage(HOG64).fit(EncodedPhotos(HOG64, api.sample_photos(64)))], tmp_path / "file.safetensors")
    assert Kept.of(tmp_path / "file.safetensors").representation["name"] == "hog"
    assert Kept.of(pair["own"]).representation["name"] == LAYER


def test_a_card_belongs_to_the_file_it_was_written_with(pair: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    card = zoo.export(pair["own"], file)
    assert Kept.of(file).card["sha256"] == card["sha256"]
    save_inverters([MeanImage(HOG64).fit(EncodedPhotos(HOG64, api.sample_photos(64)))], file)
    assert Kept.of(file).card == {}


def test_a_baseline_of_other_features_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "mean.safetensors"
    save_inverters([MeanImage(HOG64).fit(EncodedPhotos(HOG64, api.sample_photos(64)))], file)
    assert applies(str(file), MeanImage(HOG64))
    assert not applies(str(file), MeanImage(HOG(image_size=128)))
    assert not applies(str(file), MeanImage(get_representation("lbp")))
    assert not applies("gradient-descent", MeanImage(get_representation("lbp")))


def test_a_run_called_as_a_comparison_is_called_by_its_path() -> None:
    assert list(studies.labels(["./runs/compare", "hog"])) == ["runs/compare", "hog"]


# --- an encoder beside its autoencoder --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny runs of one layer: the encoder as it is, and trained too."""
    folder = tmp_path_factory.mktemp("pair")
    overrides = [
        "decoder.width=0.03", "training.steps=2", "training.batch_size=2", "training.precision=float32",
        "augmentation.min_scale=1", "augmentation.variants=0",
    ]  # fmt: skip
    photos = sorted(crops.iterdir())[:8]
    for name, more in (("own", []), ("trained", ["autoencoder=true"])):
        api.train(LAYER, photos, folder / name, validation=sample_files(), overrides=overrides + more, device="cpu")
    return {name: folder / name for name in ("own", "trained")}


@pytest.fixture(scope="module")
def few(crops: Path) -> Trial:
    return Trial(crops, limit=4)


PAPERS = ["brightness", "hue", "code", "interpolation", "random-features"]


def test_an_encoder_and_its_autoencoder_are_shown_together(pair: dict[str, Path], few: Trial, tmp_path: Path) -> None:
    found = studies.analyse_all(PAPERS, list(pair.values()), few, tmp_path)
    assert list(found) == ["own", "trained", "own and trained"]
    together = found["own and trained"]
    assert [finding.analysis for finding in together] == PAPERS
    for finding in together:
        assert {row["inverter"] for row in finding.table} == {"own", "trained"}
        assert set(finding.plots[0].series) == {"own", "trained"}
        folder = tmp_path / file_name("own and trained") / finding.analysis
        assert (folder / read_finding(folder)["sheets"][0]["file"]).exists()


def test_inverters_of_other_encoders_are_not(pair: dict[str, Path], few: Trial) -> None:
    groups = studies.relatives({"own": pair["own"], "hog": "hog", "trained": pair["trained"]}, few)
    assert groups == [["own", "trained"], ["hog"]]


def test_a_report_has_a_section_on_both(pair: dict[str, Path], few: Trial, tmp_path: Path) -> None:
    page = Page(write_report(list(pair.values()), few, tmp_path / "both.html", ["brightness"]))
    assert "own and trained, of the same encoder" in page.words
    assert "trained too, as an autoencoder" in page.words


def test_the_papers_figures_show_the_autoencoder_too(
    pair: dict[str, Path], few: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "shipped", lambda: [])
    layer = "efficientnet_lite0.stage5"
    monkeypatch.setattr(InRun, "representation", {"name": layer})  # in truth the stem, for speed
    study = Study(replace(few, loaded={}), tmp_path / "page", {layer: str(pair["own"])}, {layer: str(pair["trained"])})
    page = Page(reproduce(["fig6", "fig7", "fig9", "fig10"], study, tmp_path / "page.html"))
    assert "own and trained: " in page.words
    curves = {name: read_finding(tmp_path / "page" / name)["plots"][0]["series"] for name in
              ("error-curves", "code-curves-inverter", "code-curves-autoencoder")}  # fmt: skip
    assert {"upconv", "autoencoder"} <= set(curves["error-curves"])
    assert set(curves["code-curves-inverter"]) == set(curves["code-curves-autoencoder"])
    assert re.search(r"Perturbations harm an autoencoder more\. \S+ (shows|does not show|undecided)", page.words)
    assert {row["inverter"] for row in read_finding(tmp_path / "page" / "fig6" / "compare")["table"]} >= set(pair)


def test_what_is_no_autoencoder_is_not_taken_for_one(
    pair: dict[str, Path], few: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InRun, "representation", {"name": "efficientnet_lite0.stage5"})
    study = Study(few, tmp_path, {}, {"efficientnet_lite0.stage5": str(pair["own"])})
    with pytest.raises(SettingsError, match="is no autoencoder"):
        study.autoencoder("efficientnet_lite0.stage5")


def test_an_autoencoders_file_keeps_no_regression_on_features_it_does_not_have(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    card = zoo.export(pair["trained"], tmp_path / "trained.safetensors")
    assert set(load_inverters(tmp_path / "trained.safetensors")) == {"autoencoder", "mean-image"}
    assert "ridge" in {row["inverter"] for row in card["evaluation"]["rows"]}
    zoo.export(pair["own"], tmp_path / "own.safetensors")
    assert set(load_inverters(tmp_path / "own.safetensors")) == {"upconv", "mean-image", "ridge"}


def test_plots_of_many_lines_are_not_joined() -> None:
    plot = Plot("", "", {"a": [], "b": []})
    assert joined_plot(["first", "second"], [plot, plot]) is None
    single = Plot("", "", {"a": [(0.0, 1.0, 0.1)]}, "bars", ["x"])
    assert joined_plot(["first", "second"], [single, replace(single, groups=["y"])]) is None
    both = joined_plot(["first", "second"], [single, single])
    assert both is not None
    assert set(both.series) == {"first", "second"}


def test_settings_that_are_lists_are_told_and_tables_are_not() -> None:
    assert studies.in_words({"name": "timm:x", "mean": [0.485, 0.456]}) == "name timm:x, mean 0.485 0.456"
    assert not studies.in_words({"rows": [{"nre": 0.5}]})


def test_a_folder_of_results_is_not_hidden_nor_anothers() -> None:
    assert file_name("efficientnet_lite0.stage5") == "efficientnet_lite0.stage5"
    assert file_name("café") == "café"
    names = [file_name(label) for label in ("hog", "./hog", "a b", "a_b", "a/b", "模 型", "..")]
    assert len(set(names)) == len(names)
    assert not any(name.startswith(".") or "/" in name for name in names)
