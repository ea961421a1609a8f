"""Features that someone else computed: whose they are, and what is told when that is unsure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import preimage
from command import preimage as command
from preimage import studies
from preimage.errors import FeatureError, ImageError, PreimageError, PreimageWarning, SettingsError
from preimage.evaluation import Contender, evaluate_contenders
from preimage.images import Photos
from preimage.inverters import (
    Confidence,
    MeanImage,
    Nearest,
    Ridge,
    UpConv,
    beginning_with,
    read_inverters,
    save_inverters,
)
from preimage.metrics import distance
from preimage.pairs import EncodedPhotos, save_features, saved_pairs
from preimage.representations import SavedFeatures, get_representation
from preimage.representations import saved as saved_module
from preimage.representations.matching import match
from preimage.representations.tables import open_table
from preimage.runs import Run, load_inverter
from preimage.training import TrainingSettings

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def photos(crops: Path) -> Photos:
    return Photos.open(crops, 32).load()


@pytest.fixture(scope="module")
def images(photos: Photos) -> Tensor:
    return next(photos.batches(len(photos)))[1]


@pytest.fixture(scope="module")
def thumbnails(images: Tensor) -> Array:
    """A representation nobody needs to know: 4 x 4 thumbnails (64, 48)."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1).numpy()


def looked_up(saved: SavedFeatures, photos: Photos) -> Array:
    batches = EncodedPhotos(saved, saved.match(photos))
    return torch.cat([batch.features for batch in batches]).numpy()


def write_npz(file: Path, features: Array, ids: list[str]) -> Path:
    np.savez(file.with_suffix(".npz"), features=features, ids=np.array(ids))
    return file.with_suffix(".npz")


def write_compressed(file: Path, features: Array, ids: list[str]) -> Path:
    np.savez_compressed(file.with_suffix(".npz"), embeddings=features, path=np.array(ids))
    return file.with_suffix(".npz")


def write_safetensors(file: Path, features: Array, ids: list[str]) -> Path:
    own = {"features": torch.from_numpy(features.copy())}
    save_file(own, file.with_suffix(".safetensors"), metadata={"ids": json.dumps(ids)})
    return file.with_suffix(".safetensors")


def write_torch(file: Path, features: Array, ids: list[str]) -> Path:
    torch.save({"embeddings": torch.from_numpy(features.copy()), "ids": ids}, file.with_suffix(".pt"))
    return file.with_suffix(".pt")


def write_parquet(file: Path, features: Array, ids: list[str]) -> Path:
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"id": ids, "caption": ["a thing"] * len(ids), "embedding": list(features)})
    pyarrow.parquet.write_table(table, file.with_suffix(".parquet"), row_group_size=10)
    return file.with_suffix(".parquet")


def write_npy_with_list(file: Path, features: Array, ids: list[str]) -> Path:
    np.save(file.with_suffix(".npy"), features)
    file.with_suffix(".npy.ids.txt").write_text("\n".join(ids) + "\n")
    return file.with_suffix(".npy")


def write_npy_with_json(file: Path, features: Array, ids: list[str]) -> Path:
    np.save(file.with_suffix(".npy"), features)
    file.with_suffix(".npy.json").write_text(json.dumps({"ids": ids, "fingerprint": "0123"}))
    return file.with_suffix(".npy")


WRITERS = [
    write_npz, write_compressed, write_safetensors, write_torch, write_parquet, write_npy_with_list,
    write_npy_with_json,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
def test_rows_in_any_order_find_their_photographs(
    write: Callable[[Path, Array, list[str]], Path], photos: Photos, thumbnails: Array, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(len(photos))
    file = write(tmp_path / "features", thumbnails[order], [photos.ids[index] for index in order])
    saved = SavedFeatures(file, 32)
    assert saved.feature_shape == (48,)
    np.testing.assert_allclose(looked_up(saved, photos), thumbnails, atol=1e-6)
    assert "ids in features" in saved.matched_by


def write_texts(suffix: str, file: Path, features: Array, columns: dict[str, list[str]]) -> None:
    if suffix == ".npz":
        np.savez(file, features=features, **{name: np.array(own) for name, own in columns.items()})
    elif suffix == ".pt":
        torch.save({"features": torch.from_numpy(features), **columns}, file)
    else:
        pytest.importorskip("pyarrow", reason="needs the extra 'data'")
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"embedding": features.tolist(), **columns}), file)


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".parquet"])
def test_a_column_of_another_name_is_taken_for_ids_if_it_names_the_photographs(
    suffix: str, photos: Photos, thumbnails: Array, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(len(photos))
    file = tmp_path / f"f{suffix}"
    names = [f"somewhere/{photos.ids[index]}" for index in order]
    captions = [f"picture {index}" for index in order]
    columns = {"caption": captions, "where_it_lies": names, "kind": ["a"] * len(names)}
    write_texts(suffix, file, thumbnails[order], columns)
    saved = SavedFeatures(file, 32)
    np.testing.assert_allclose(looked_up(saved, photos), thumbnails, atol=1e-6)
    assert f"ids in f{suffix}, where_it_lies" in saved.matched_by
    write_texts(suffix, file, thumbnails, {"caption": captions})
    saved = SavedFeatures(file, 32)
    np.testing.assert_allclose(looked_up(saved, photos), thumbnails, atol=1e-6)
    assert "no ids were found" in saved.matched_by


@pytest.mark.parametrize(
    "texts", [["dog", *"abcdefghijk"], [str(row) for row in range(12)]], ids=["a caption", "counts"]
)
def test_texts_that_name_photographs_by_accident_are_no_ids(texts: list[str], tmp_path: Path) -> None:
    names = ["dog.jpg", *(f"{number:04d}.jpg" for number in range(1, 12))]
    np.savez(tmp_path / "f.npz", features=np.eye(12), texts=np.array(texts))
    found = match(open_table(tmp_path / "f.npz"), names)
    assert "no ids were found" in found.how
    assert len(found.rows) == 12


def test_texts_in_a_dictionary_are_texts_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    import pyarrow
    import pyarrow.parquet

    names = pyarrow.array(["b.jpg", "a.jpg"]).dictionary_encode()
    table = pyarrow.table({"embedding": [[0.0], [1.0]], "where": names, "gaps": [None, "a.jpg"]})
    pyarrow.parquet.write_table(table, tmp_path / "f.parquet")
    assert open_table(tmp_path / "f.parquet").texts == {"where": ["b.jpg", "a.jpg"]}


def test_without_ids_the_order_of_the_file_names_counts_and_is_told(
    photos: Photos, thumbnails: Array, tmp_path: Path
) -> None:
    np.save(tmp_path / "features.npy", thumbnails)
    saved = SavedFeatures(tmp_path / "features.npy", 32)
    np.testing.assert_array_equal(looked_up(saved, photos), thumbnails)
    assert "sorted file names: row 0 is 0-00.png" in saved.matched_by


@pytest.mark.parametrize(
    ("ids", "how"),
    [
        (["cats/1.jpg", "dogs/1.jpg"], "as they are"),
        (["cats/1", "dogs/1"], "without suffix"),
        (["/data/all/cats/1.jpg", "/data/all/dogs/1.jpg"], "the last 2 parts"),
        (["C:\\data\\cats\\1.png", "C:\\data\\dogs\\1.png"], "the last 2 parts of the paths, without suffix"),
        (["cats/1.npy", "dogs/1.npy"], "up to the last dot"),
    ],
)
def test_ids_may_say_more_or_less_than_the_photographs_names(ids: list[str], how: str, tmp_path: Path) -> None:
    table = open_table(write_npz(tmp_path / "f", np.eye(2, dtype=np.float32), ids))
    found = match(table, ["dogs/1.jpg", "cats/1.jpg"])
    assert found.rows == {"dogs/1.jpg": 1, "cats/1.jpg": 0}
    assert how in found.how


def test_a_dot_within_a_name_is_no_suffix(tmp_path: Path) -> None:
    table = open_table(write_npz(tmp_path / "f", np.eye(2, dtype=np.float32), ["a", "a.1"]))
    assert match(table, ["a.jpg", "a.1.jpg"]).rows == {"a.jpg": 0, "a.1.jpg": 1}


def test_a_list_of_ids_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "f.npy.ids.txt").write_text("a.jpg\nb.jpg\n", encoding="utf-8-sig")
    assert match(open_table(tmp_path / "f.npy"), ["a.jpg", "b.jpg"]).rows == {"a.jpg": 0, "b.jpg": 1}


def test_numbers_as_ids_match_file_names_with_leading_zeros(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.eye(2), image_id=np.array([139, 7]))
    assert match(open_table(tmp_path / "f.npz"), ["000007.jpg", "000139.jpg"]).rows == {
        "000007.jpg": 1,
        "000139.jpg": 0,
    }


def test_what_belongs_to_nothing_is_listed(photos: Photos, thumbnails: Array, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "f", thumbnails[:10], [*photos.ids[:8], "gone-1.png", "gone-2.png"])
    known = SavedFeatures(file, 32).match(photos)
    assert known.ids == photos.ids[:8]
    assert known.left_out[photos.ids[8]] == "no features"
    assert known.left_out["gone-2.png in f.npz"] == "no photograph"
    assert len(known.left_out) == len(photos) - 8 + 2


@pytest.mark.parametrize(
    ("ids", "photo_ids", "words"),
    [
        (["a", "b"], ["a.jpg", "a.png", "b.jpg"], "one feature for 2 photographs: a.jpg, a.png"),
        (["x/a.jpg", "y/a.jpg"], ["a.jpg", "b.jpg"], "2 rows for one photograph: x/a.jpg, y/a.jpg"),
        (["a", "a"], ["a.jpg", "b.jpg"], "ids occur more than once in f.npz: a .the first in rows 0 and 1"),
        (["x", "y"], ["a.jpg", "b.jpg"], "no id in f.npz names a photograph: the ids are x, y, the photographs a.jpg"),
    ],
)
def test_unsure_matches_are_refused(ids: list[str], photo_ids: list[str], words: str, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "f", np.eye(2, dtype=np.float32), ids)
    with pytest.raises(FeatureError, match=words):
        match(open_table(file), photo_ids)


def test_other_counts_without_ids_are_refused_with_a_way_on(photos: Photos, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails[:9])
    with pytest.raises(FeatureError, match=r"9 rows, but there are 64 photographs.*f\.npy\.ids\.txt"):
        SavedFeatures(tmp_path / "f.npy", 32).match(photos)


def test_a_wrong_number_of_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"f\.npz holds 3 ids, but .* 2 rows"):
        open_table(write_npz(tmp_path / "f", np.eye(2, dtype=np.float32), ["a", "b", "c"]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_rows_that_are_not_finite_are_named(bad: float, photos: Photos, thumbnails: Array, tmp_path: Path) -> None:
    features = thumbnails.astype(np.float64)
    features[5, 3] = bad
    np.save(tmp_path / "f.npy", features)
    with pytest.raises(FeatureError, match=rf"1 of 64 rows.*row 5 \({photos.ids[5]}\).*Mend them, or take"):
        SavedFeatures(tmp_path / "f.npy", 32).match(photos)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5), r"expected a row of features for each photograph"),
        (np.zeros((0, 5)), "is empty"),
        (np.zeros((3, 4), dtype=complex), "expected real numbers"),
        (np.array([["a"], ["b"]]), "expected real numbers"),
        (np.zeros((2, 7, 7, 64)), r"looks like \(h, w, C\)"),
    ],
)
def test_arrays_that_are_no_features_are_refused(array: npt.NDArray[np.generic], words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", array)
    with pytest.raises(FeatureError, match=words):
        open_table(tmp_path / "f.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt", ".parquet"])
def test_damaged_files_are_refused(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"f{suffix}").write_bytes(b"not what it says")
    with pytest.raises(FeatureError, match="cannot be read as"):
        open_table(tmp_path / f"f{suffix}")


def test_an_archive_with_a_wrong_byte_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    np.savez_compressed(file, features=np.random.default_rng(0).random((8, 4)))
    whole, features = file.read_bytes(), open_table(file).read(range(8))
    refused = 0
    for place in range(30, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            np.testing.assert_array_equal(open_table(file).read(range(8)), features)  # some bytes do no harm
        except FeatureError:
            refused += 1
    assert refused > len(range(30, len(whole), 7)) // 2


def test_ids_that_are_no_text_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.eye(3))
    (tmp_path / "f.ids.txt").write_bytes("ä\nö\nü".encode("latin-1"))
    with pytest.raises(FeatureError, match=r"f\.ids\.txt is no UTF-8 text"):
        open_table(tmp_path / "f.npy")


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("1,2")
    with pytest.raises(FeatureError, match="there is no file of features"):
        open_table(tmp_path / "g.npy")
    with pytest.raises(FeatureError, match=r"\.npy, \.npz, \.safetensors, \.pt, \.pth, \.parquet, not \.csv"):
        open_table(tmp_path / "f.csv")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.array([[1], ["a", 2]], dtype=object), allow_pickle=True)
    with pytest.raises(FeatureError, match=r"cannot be read as \.npy"):
        open_table(tmp_path / "f.npy")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_a_tensor_alone_is_read_without_its_gradient(zipped: bool, tmp_path: Path) -> None:
    tensor = torch.eye(3, dtype=torch.bfloat16, requires_grad=True)
    torch.save(tensor, tmp_path / "f.pth", _use_new_zipfile_serialization=zipped)
    table = open_table(tmp_path / "f.pth")
    assert table.ids is None
    np.testing.assert_array_equal(table.read([2, 0]), np.eye(3)[[2, 0]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"features": np.eye(3)}, r"which is code\. Save tensors: torch\.save"),
        ([torch.zeros(2, 3)], "holds list, expected a tensor"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}, "a 2 x 3, b 2 x 3: which are the features"),
        (torch.zeros(2, 3, dtype=torch.complex64), "complex64.*, expected dense real numbers"),
    ],
)
def test_torch_files_that_are_no_features_are_refused(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(FeatureError, match=words):
        open_table(tmp_path / "f.pt")


def test_tokens_are_read_as_maps_of_their_places(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).random((2, 17, 3), np.float32)  # one before 4 x 4 places
    np.save(tmp_path / "f.npy", tokens)
    table = open_table(tmp_path / "f.npy")
    assert table.feature_shape == (3, 4, 4)
    np.testing.assert_array_equal(table.read([1])[0, :, 2, 3], tokens[1, 1 + 2 * 4 + 3])


def test_rows_that_are_all_alike_are_refused(photos: Photos, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((len(photos), 8)))
    with pytest.raises(FeatureError, match=f"all {len(photos)} rows .* are alike"):
        SavedFeatures(tmp_path / "f.npy", 32).match(photos)


def test_an_archive_of_several_arrays_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", left=np.eye(3), right=np.eye(3))
    with pytest.raises(FeatureError, match="left 3 x 3, right 3 x 3: which are the features"):
        open_table(tmp_path / "f.npz")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float16, ">f8"])
def test_numbers_of_any_kind_become_float32(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.eye(3).astype(dtype))
    read = open_table(tmp_path / "f.npy").read([2, 0])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, np.eye(3)[[2, 0]])


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, 5), (5,)), ((2, 8, 4, 4), (8, 4, 4)), ((2, 6, 7), (42,)), ((2, 3, 2, 2, 2), (24,))]
)
def test_vectors_and_maps_stay_and_all_else_becomes_a_vector(
    shape: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path
) -> None:
    np.save(tmp_path / "f.npy", np.zeros(shape))
    table = open_table(tmp_path / "f.npy")
    assert table.feature_shape == expected
    assert table.read([1]).shape == (1, *expected)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_large_file_is_mapped_and_only_the_rows_asked_for_are_read(suffix: str, tmp_path: Path) -> None:
    """100,000 x 1,000 numbers that lie on no disk: a sparse file of 400 MB."""
    import tracemalloc

    array = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float32, (100_000, 1_000))
    array[99_999] = 7
    array.flush()
    if suffix == ".npz":
        array = np.arange(8_000_000, dtype=np.float32).reshape(8_000, 1_000)
        np.savez(tmp_path / "f.npz", features=array)
    tracemalloc.start()
    table = open_table(tmp_path / f"f{suffix}")
    last = table.read([len(table) - 1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(table.source, np.memmap)
    np.testing.assert_array_equal(last[0], array[-1])
    assert peak < 2_000_000


def test_there_is_no_encoder_and_the_error_says_what_to_give(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.eye(3))
    with pytest.raises(FeatureError, match="no encoder, so photographs alone are not enough"):
        SavedFeatures(tmp_path / "f.npy").encode(torch.rand(1, 3, 128, 128))


def test_it_is_made_again_from_its_settings_without_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.eye(3))
    saved = SavedFeatures(tmp_path / "f.npy")
    (tmp_path / "f.npy").unlink()
    again = get_representation(saved.name, **saved.settings)
    assert again.fingerprint == saved.fingerprint
    assert again.feature_shape == (3,)


def test_a_file_that_has_changed_is_noticed(photos: Photos, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    before = SavedFeatures(tmp_path / "f.npy", 32)
    np.save(tmp_path / "f.npy", thumbnails + 1)
    assert SavedFeatures(tmp_path / "f.npy", 32).fingerprint != before.fingerprint
    with pytest.raises(FeatureError, match="has changed"):
        SavedFeatures(tmp_path / "f.npy", 32, before.shape, before.sha256).match(photos)


def test_every_inverter_learns_from_saved_pairs(crops: Path, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    pairs = saved_pairs(tmp_path / "f.npy", crops, 32)
    saved = pairs.representation
    network = UpConv(saved, width=0.1).fit(pairs, TrainingSettings(steps=60, batch_size=16, warmup_steps=5))
    fitted = [network, *(kind(saved).fit(pairs) for kind in (Ridge, Nearest, MeanImage))]
    rows = evaluate_contenders([Contender(each, "all") for each in fitted], pairs.photos, "all").rows
    errors = {row.inverter: row.nre for row in rows}
    assert errors["nearest"] < 0.01
    assert errors["ridge"] < errors["mean-image"]
    assert errors["upconv"] < errors["mean-image"]
    sure = Confidence(network, width=0.05).fit(pairs, TrainingSettings(steps=2))
    assert sure.predict(next(iter(pairs)).features).min() > 0


@pytest.fixture(scope="module")
def run(crops: Path, thumbnails: Array, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on saved pairs."""
    folder = tmp_path_factory.mktemp("saved")
    file = write_npz(folder / "f", thumbnails, photos.ids)
    overrides = ["representation.image_size=32", "training.steps=40", "training.batch_size=8", "decoder.width=0.05"]
    preimage.api.train(None, crops, folder / "run", features=file, overrides=overrides, device="cpu")
    return folder / "run"


def test_a_run_of_saved_pairs_keeps_all_that_is_needed(run: Path) -> None:
    assert json.loads((run / "provenance.json").read_text())["matched_by"] == "ids in f.npz (as they are)"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["photos"], summary["n"]) == (58, 6)
    inverter = load_inverter(run)
    assert inverter.invert(torch.zeros(2, 48)).shape == (2, 3, 32, 32)


def test_a_run_is_evaluated_on_what_it_held_out_and_on_other_saved_pairs(
    run: Path, crops: Path, thumbnails: Array, tmp_path: Path
) -> None:
    own = preimage.api.evaluate(run)
    assert own.n == 6
    assert {row.inverter for row in own.rows} >= {"upconv", "mean-image", "nearest", "ridge", "other-image"}
    again = preimage.api.evaluate(run, crops, features=run.parent / "f.npz")
    assert again.n == 6  # what it was trained on does not count
    assert again.rows == own.rows
    folder = tmp_path / "others"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (80 * index, 100, 10)).save(folder / f"{index}.png")
    np.save(tmp_path / "others.npy", thumbnails[:3])
    assert preimage.api.evaluate(run, folder, features=tmp_path / "others.npy").n == 3
    np.save(tmp_path / "others.npy", thumbnails[:3, :7])
    with pytest.raises(FeatureError, match="features of 7, but those to learn from are of 48"):
        preimage.api.evaluate(run, folder, features=tmp_path / "others.npy")
    assert preimage.api.evaluate(run, images_in_words="what it held out").images == "what it held out"
    with pytest.raises(SettingsError, match="are those of its training"):
        preimage.api.evaluate(run, baselines=["gradient-descent"])


def test_a_run_whose_photographs_are_gone_is_evaluated_on_other_pairs(
    crops: Path, thumbnails: Array, tmp_path: Path
) -> None:
    moved = shutil.copytree(crops, tmp_path / "photos")
    np.save(tmp_path / "f.npy", thumbnails)
    train_one_step(tmp_path / "f.npy", moved, tmp_path / "run")
    shutil.rmtree(moved)
    np.save(tmp_path / "g.npy", thumbnails)
    with pytest.warns(PreimageWarning, match="is not there as it was"):
        found = preimage.api.evaluate(tmp_path / "run", crops, features=tmp_path / "g.npy")
    assert found.n == 64


def test_rows_without_ids_belong_to_one_set_of_photographs(crops: Path, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    others = tmp_path / "others"
    others.mkdir()
    for index in range(64):
        Image.new("RGB", (32, 32), (index, 100, 10)).save(others / f"other-{index}.png")
    saved = SavedFeatures(tmp_path / "f.npy", 32)
    assert len(saved.match(Photos.open(crops, 32))) == len(saved.match(Photos.open(crops, 32))) == 64
    with pytest.raises(FeatureError, match=r"belong, in their order, to other photographs already: .*f\.npy\.ids\.txt"):
        saved.match(Photos.open(others, 32))


def test_photographs_are_made_square_as_they_were_for_encoding(crops: Path, tmp_path: Path) -> None:
    hog = preimage.get_representation("hog", image_size=64)
    save_features(EncodedPhotos(hog, Photos.open(crops, 64, "whole")), tmp_path / "f.npy")
    with pytest.raises(FeatureError, match=r"encoded from photographs with --fit whole.*read with --fit crop"):
        saved_pairs(tmp_path / "f.npy", crops, 64)
    assert len(saved_pairs(tmp_path / "f.npy", crops, 64, "whole")) == 64


def test_a_run_is_compared_and_reported_on_what_it_was_not_trained_on(run: Path, crops: Path, tmp_path: Path) -> None:
    held_out = {record.id for record in preimage.api.evaluate(run).records}
    with pytest.warns(PreimageWarning, match="was trained on it"):
        compared = studies.compare([run, "hog"], studies.Trial(crops), tmp_path)
    assert {record["id"] for record in compared.records if record["inverter"] == "hog"} == held_out
    assert studies.compare([run], studies.Trial([]), tmp_path).table[0]["n"] == 6
    page = studies.write_report([run], studies.Trial([]), tmp_path / "page.html", ["code"]).read_text()
    assert "those that the run was validated on" in page
    assert "evaluate, compare, report and audit judge them" in page  # what can be done instead of an analysis
    with pytest.raises(SettingsError, match="by --images"):
        studies.compare([run, "hog"], studies.Trial([]), tmp_path)


def test_pictures_cannot_be_changed_where_features_are_saved(crops: Path, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    with pytest.raises(PreimageError, match=r"leave augmentation\.flip=false"):
        preimage.api.train(
            None, crops, tmp_path / "run", features=tmp_path / "f.npy", overrides=["augmentation.flip=true"]
        )
    assert not (tmp_path / "run").exists()


def test_a_row_belongs_to_one_photograph_only(crops: Path, thumbnails: Array, tmp_path: Path) -> None:
    """Another photograph of the same name, to validate on, would be given the features of the first."""
    np.save(tmp_path / "f.npy", thumbnails)
    others = tmp_path / "others"
    others.mkdir()
    for index, file in enumerate(sorted(crops.iterdir())):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(others / file.name)
    with pytest.raises(PreimageError, match="is a photograph to train on and another one for validation"):
        preimage.api.train(
            None, crops, tmp_path / "run", features=tmp_path / "f.npy", validation=others,
            overrides=["representation.image_size=32"],
        )  # fmt: skip


def test_runs_that_share_no_photograph_are_not_compared(
    crops: Path, thumbnails: Array, photos: Photos, tmp_path: Path
) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    for seed in range(2):
        train_one_step(tmp_path / "f.npy", crops, tmp_path / f"run-{seed}", f"seed={seed}")
    held_out = [{one.id for one in preimage.api.evaluate(tmp_path / f"run-{seed}").records} for seed in range(2)]
    assert len(held_out[0] & held_out[1]) < 2
    with pytest.raises(ImageError, match=r"share \d photographs here, expected 2 or more"):
        studies.compare([tmp_path / "run-0", tmp_path / "run-1"], studies.Trial(crops), tmp_path)


def test_rows_that_are_not_finite_stop_the_inverter_before_it_draws(
    run: Path, thumbnails: Array, tmp_path: Path
) -> None:
    thumbnails = np.tile(thumbnails, (1, 1))
    thumbnails[35, 3] = np.nan
    np.save(tmp_path / "g.npy", thumbnails)
    told = command("invert", "--features", tmp_path / "g.npy", "--run", run, "-o", tmp_path / "out", check=2).stderr
    assert "row 35 (g-0035)" in " ".join(told.split())
    assert not (tmp_path / "out").exists()
    mistaken = ["invert", "--features", tmp_path / "g.npy", "--run", run, "--size", "native"]
    assert "leave them out where --features are given" in " ".join(command(*mistaken, check=2).stderr.split())


def test_an_exported_run_takes_saved_pairs_too(run: Path, crops: Path, tmp_path: Path) -> None:
    from preimage import zoo

    zoo.export(run, tmp_path / "mine.safetensors")
    assert str(run.parent).encode() not in (tmp_path / "mine.safetensors").read_bytes()
    mine = preimage.load_inverter(tmp_path / "mine.safetensors")
    before = mine.representation
    result = preimage.api.evaluate(mine, crops, features=run.parent / "f.npz", limit=4)
    assert result.n == 4
    assert mine.representation is before
    with pytest.raises(PreimageError, match="give saved pairs"):
        preimage.api.evaluate(tmp_path / "mine.safetensors", crops)


def test_the_commands_train_invert_and_explain_mistakes(
    crops: Path, thumbnails: Array, photos: Photos, tmp_path: Path
) -> None:
    file = write_npz(tmp_path / "f", thumbnails, photos.ids)
    result = command(
        "train", "--features", file, "--images", crops, "--run", tmp_path / "run", "--steps", 4, "--device", "cpu",
        "--set", "representation.image_size=32", "--set", "decoder.width=0.05",
    )  # fmt: skip
    assert "features matched to photographs by ids in f.npz" in result.stderr
    command("invert", "--features", file, "--run", tmp_path / "run", "-o", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "0-00.run.png").size == (32, 32)
    mistaken = ["train", "--features", tmp_path / "g.npy", "--images", crops, "--run", tmp_path / "r"]
    assert "there is no file of features" in command(*mistaken, check=2).stderr
    assert "name either a preset" in command("train", "hog", *mistaken[1:], check=2).stderr


@pytest.mark.parametrize(("offset", "factor"), [(0, 1e7), (0, 1e-9), (3e3, 1)])
def test_baselines_learn_from_numbers_of_any_size(
    crops: Path, thumbnails: Array, photos: Photos, tmp_path: Path, offset: float, factor: float
) -> None:
    np.save(tmp_path / "f.npy", (offset + factor * thumbnails).astype(np.float32))
    pairs = saved_pairs(tmp_path / "f.npy", crops, 32)
    features = torch.cat([batch.features for batch in pairs])
    nearest, ridge, mean = (kind(pairs.representation).fit(pairs) for kind in (Nearest, Ridge, MeanImage))
    assert nearest.nearest(features).tolist() == list(range(len(photos)))
    again = Nearest(pairs.representation).restore(nearest.state())
    assert again.nearest(features).tolist() == list(range(len(photos)))
    file = tmp_path / "ridge.safetensors"
    save_inverters([ridge], file, torch.float16)
    images = torch.cat([batch.images for batch in pairs])
    halved = Ridge(pairs.representation).restore(beginning_with("ridge.", read_inverters(file)[1]))
    assert distance(images, halved.invert(features)).mean() < 0.5 * distance(images, mean.invert(features)).mean()


def test_the_nearest_neighbour_is_found_behind_blank_photographs(
    crops: Path, thumbnails: Array, photos: Photos, tmp_path: Path
) -> None:
    features = 1e6 * thumbnails
    features[:40] = 0
    np.save(tmp_path / "f.npy", features)
    nearest = Nearest(saved_pairs(tmp_path / "f.npy", crops, 32).representation)
    nearest.fit(saved_pairs(tmp_path / "f.npy", crops, 32))
    assert nearest.nearest(torch.from_numpy(features[40:])).tolist() == list(range(40, len(photos)))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([[1.0, 2.0], [3.0]], "have 1 to 2 numbers"),
        ([[1.0, 2.0], None], "missing"),
        ([["a"], ["b"]], "other than numbers"),
        ([1.0, 2.0], "no column of lists"),
    ],
)
def test_parquet_columns_that_are_no_features_are_refused(column: list[object], words: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"embedding": column}), tmp_path / "f.parquet")
    with pytest.raises(FeatureError, match=words):
        open_table(tmp_path / "f.parquet")


def test_tensors_in_parquet_are_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    import pyarrow
    import pyarrow.parquet

    numbers = np.arange(24, dtype=np.float32).reshape(4, 6)
    column = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(numbers)
    pyarrow.parquet.write_table(pyarrow.table({"embedding": column}), tmp_path / "f.parquet")
    np.testing.assert_array_equal(open_table(tmp_path / "f.parquet").read(range(4)), numbers)


def test_maps_in_parquet_become_vectors(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    import pyarrow
    import pyarrow.parquet

    maps = np.arange(24).reshape(2, 3, 4)
    pyarrow.parquet.write_table(pyarrow.table({"features": maps.tolist()}), tmp_path / "f.parquet")
    np.testing.assert_array_equal(open_table(tmp_path / "f.parquet").read([1, 0]), maps.reshape(2, 12)[::-1])


def train_one_step(file: Path, crops: Path, run: Path, *more: str) -> None:
    overrides = ["representation.image_size=32", "training.steps=1", "training.batch_size=8", "decoder.width=0.05"]
    preimage.api.train(
        None, crops, run, features=file, overrides=[*overrides, *more], device="cpu", should_stop=lambda: True
    )


def test_saved_features_are_kept_on_disk_only_once(crops: Path, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    train_one_step(tmp_path / "f.npy", crops, tmp_path / "run", "augmentation.variants=2")
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_training_opens_its_features_once(
    crops: Path, thumbnails: Array, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_compressed(tmp_path / "f", thumbnails, photos.ids)
    calls = []
    for name in ("open_table", "file_hash"):
        real = getattr(saved_module, name)
        monkeypatch.setattr(saved_module, name, lambda *given, n=name, r=real: (calls.append(n), r(*given))[1])
    train_one_step(file, crops, tmp_path / "run")
    assert sorted(calls) == ["file_hash", "open_table"]


def test_a_run_of_saved_pairs_can_be_stopped_and_resumed(crops: Path, thumbnails: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", thumbnails)
    overrides = ["representation.image_size=32", "training.steps=6", "training.batch_size=8", "decoder.width=0.05"]
    preimage.api.train(
        None, crops, tmp_path / "run", features=tmp_path / "f.npy", overrides=overrides, device="cpu",
        should_stop=lambda: True,
    )  # fmt: skip
    assert Run.open(tmp_path / "run").step == 1
    np.save(tmp_path / "others.npy", 2 * thumbnails)
    (tmp_path / "f.npy").rename(tmp_path / "moved.npy")
    with pytest.raises(FeatureError, match="has changed"):
        preimage.api.resume(tmp_path / "run", features=tmp_path / "others.npy", device="cpu")
    assert preimage.api.resume(tmp_path / "run", features=tmp_path / "moved.npy", device="cpu").step == 6
    assert preimage.api.evaluate(tmp_path / "run").n == 6
