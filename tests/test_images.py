"""Every kind of picture file becomes the same upright RGB; every kind of source gives the same photographs."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from preimage import images
from preimage.errors import ImageError, SettingsError
from preimage.images import (
    Augmentation,
    Photos,
    TrainingStream,
    decode,
    find_photos,
    resize,
    to_pixels,
    to_tensor,
)


@pytest.fixture(scope="module")
def picture(samples: Photos) -> Image.Image:
    """A photograph that is neither square nor symmetric."""
    return Image.fromarray(samples.pixels(1)[:160])


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def greatest_difference(decoded: Image.Image, original: Image.Image) -> int:
    assert decoded.mode == "RGB"
    assert decoded.size == original.size
    return int(np.abs(np.asarray(decoded).astype(int) - np.asarray(original.convert("RGB")).astype(int)).max())


def test_a_rotated_phone_photo_comes_out_upright(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the file turned by 90 degrees clockwise
    content = encoded(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert greatest_difference(decode(content, "phone.png"), picture) == 0


def test_cmyk_keeps_its_colours(picture: Image.Image) -> None:
    content = encoded(picture.convert("CMYK"), "JPEG", quality=98)
    assert greatest_difference(decode(content, "print.jpg"), picture) < 40
    colours = np.asarray(decode(content, "print.jpg")).mean(axis=(0, 1)) - np.asarray(picture).mean(axis=(0, 1))
    assert np.abs(colours).max() < 2


def test_a_palette_is_looked_up(picture: Image.Image) -> None:
    palette = picture.quantize(64)
    assert greatest_difference(decode(encoded(palette, "PNG"), "palette.png"), palette) == 0


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert np.asarray(decode(encoded(clear, "PNG"), "clear.png")).min() == 255
    key = Image.new("P", (4, 4), 0)
    key.putpalette([10, 20, 30] * 256)
    assert np.asarray(decode(encoded(key, "PNG", transparency=0), "key.png")).min() == 255


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    decoded = np.asarray(decode(encoded(Image.fromarray(ramp), "PNG"), "ramp.png"))
    np.testing.assert_array_equal(decoded[..., 0].ravel(), np.arange(256))
    dark = Image.fromarray(np.full((4, 4), 200, np.uint16))
    assert np.asarray(decode(encoded(dark, "PNG"), "dark.png")).max() == 1


def test_grey_becomes_three_equal_channels(picture: Image.Image) -> None:
    decoded = np.asarray(decode(encoded(picture.convert("L"), "PNG"), "grey.png"))
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_floating_point_pixels_are_refused() -> None:
    content = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        decode(content, "depth.tif")


def test_a_decompression_bomb_is_refused() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(ImageError, match="bomb"):
        decode(bomb, "bomb.png")


def test_a_truncated_file_is_named(picture: Image.Image) -> None:
    content = encoded(picture, "JPEG")
    with pytest.raises(ImageError, match=r"half\.jpg is damaged"):
        decode(content[: len(content) // 2], "half.jpg")
    with pytest.raises(ImageError, match=r"notes\.jpg is not a picture"):
        decode(b"dear diary", "notes.jpg")


def test_reading_a_jpeg_at_reduced_size_shows_the_same(samples: Photos) -> None:
    large = Image.fromarray(samples.pixels(0)).resize((2048, 2048), Image.Resampling.BICUBIC)
    content = encoded(large, "JPEG", quality=95)
    whole, reduced = resize(decode(content, "a"), 128), resize(decode(content, "a", at_least=128), 128)
    assert decode(content, "a", at_least=128).width == 256
    assert np.abs(whole.astype(int) - reduced.astype(int)).mean() < 2


def test_crop_takes_the_centre_and_whole_takes_everything() -> None:
    stripes = Image.new("RGB", (300, 100), "red")
    stripes.paste("blue", (100, 0, 200, 100))
    assert (resize(stripes, 100, "crop")[:, 5:-5] == (0, 0, 255)).all()
    assert (resize(stripes, 90, "whole")[:, :25] == (255, 0, 0)).all()


def test_pixels_and_tensors_are_each_others_inverse(samples: Photos) -> None:
    pixels = samples.pixels(0)[None]
    assert (to_pixels(to_tensor(pixels)) == pixels).all()


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, picture: Image.Image) -> Path:
    (tmp_path / "inner").mkdir()
    picture.save(tmp_path / "b.png")
    picture.save(tmp_path / "inner" / "a.JPG", "JPEG")
    (tmp_path / "notes.txt").write_text("dear diary")
    (tmp_path / ".hidden.png").write_text("")
    return tmp_path


def shard_of(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as shard:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_pictures_of_every_kind_are_an_image_error_and_silence_nothing(picture: Image.Image) -> None:
    filters = list(warnings.filters)
    generator = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        content = encoded(picture.resize((32, 20)), kind)
        for _ in range(40):
            torn = bytearray(content)
            for place in generator.integers(0, len(torn), 8):
                torn[place] = generator.integers(256)
            with contextlib.suppress(ImageError):
                assert decode(bytes(torn), "torn").mode == "RGB"
    assert warnings.filters == filters


def test_hidden_folders_and_files_named_twice(folder: Path) -> None:
    (folder / ".thumbs").mkdir()
    shutil.copy(folder / "b.png", folder / ".thumbs" / "t.png")
    assert [photo.id for photo in find_photos(folder).photos] == ["b.png", "inner/a.JPG"]
    assert [photo.id for photo in find_photos([folder / "b.png", folder / "b.png"]).photos] == ["b.png"]
    assert len(find_photos([folder, folder / "inner"]).photos) == 2


def test_folders_behind_links_are_searched_once(folder: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    (links / "own").mkdir(parents=True)
    for name in ("again", "linked"):
        (links / name).symlink_to(folder)
    (links / "own" / "round").symlink_to(links)
    assert [photo.id for photo in find_photos(links).photos] == ["again/b.png", "again/inner/a.JPG"]
    assert len(find_photos([links, folder, links / "linked" / "b.png"]).photos) == 2


def test_a_name_with_its_source_is_not_anothers_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("x/a", "a", "c"):
        (tmp_path / "ids" / place).mkdir(parents=True)
        shutil.copy(folder / "b.png", tmp_path / "ids" / place)
    monkeypatch.chdir(tmp_path / "ids")
    ids = [photo.id for photo in find_photos(["x", "a", "c"]).photos]
    assert len(set(ids)) == len(ids) == 3


def test_a_folder_is_searched_and_text_is_passed_over(folder: Path) -> None:
    found = find_photos(folder)
    assert [photo.id for photo in found.photos] == ["b.png", "inner/a.JPG"]
    assert found.passed_over == [str(folder / "notes.txt")]


def test_shards_pair_photographs_with_their_labels(tmp_path: Path, picture: Image.Image) -> None:
    content = encoded(picture, "PNG")
    shard_of(tmp_path / "s-0.tar", {"x.png": content, "x.cls": b"7", "y.png": content, "y.json": b"{}"})
    shard_of(
        tmp_path / "s-1.tar", {"z.cls": b"12\n", "z.png": content, "IMG.2020.png": content, "IMG.2020.cls": b"dog"}
    )
    photos = Photos.open(tmp_path / "s-*.tar", 64)
    assert photos.ids == ["x", "y", "z", "IMG.2020"]
    assert photos.labels == [7, None, 12, None]
    assert (photos.pixels(2) == resize(picture, 64)).all()


def test_masks_in_a_shard_are_no_photographs(tmp_path: Path, picture: Image.Image) -> None:
    content = encoded(picture, "PNG")
    members = {"a.1/0.png": content, "a.1/0.seg.png": content, "a.1/0.cls": b"3", "IMG.2020.png": content}
    found = find_photos(shard_of(tmp_path / "s.tar", members))
    assert [(photo.id, photo.label) for photo in found.photos] == [("a.1/0", 3), ("IMG.2020", None)]
    assert found.passed_over == [f"{tmp_path / 's.tar'}:a.1/0.seg.png"]


def test_the_same_id_in_two_shards_stays_apart(tmp_path: Path, picture: Image.Image) -> None:
    for name in ("a.tar", "b.tar"):
        shard_of(tmp_path / name, {"x.png": encoded(picture, "PNG")})
    assert len(set(Photos.open(tmp_path, 64).ids)) == 2


def test_two_pictures_with_one_key_in_a_shard_are_refused(tmp_path: Path, picture: Image.Image) -> None:
    content = encoded(picture, "PNG")
    shard = shard_of(tmp_path / "s.tar", {"0.jpg": content, "0.png": content, "1.jpg": content, "1.png": content})
    with pytest.raises(ImageError, match=r"two pictures called 0: 0\.jpg and 0\.png \(2 such"):
        find_photos(shard)
    with tarfile.open(shard_of(tmp_path / "t.tar", {"0.png": b"torn"}), "a") as appended:
        picture.save(tmp_path / "0.png")
        appended.add(tmp_path / "0.png", "0.png")  # of two members of one name, the last counts
    assert (Photos.open(tmp_path / "t.tar", 64).pixels(0) == resize(picture, 64)).all()


def test_compressed_and_damaged_shards_are_named(tmp_path: Path) -> None:
    shard_of(tmp_path / "s.tar.gz", {"x.png": b""}, "w:gz")
    with pytest.raises(ImageError, match="unpack it"):
        find_photos(tmp_path / "s.tar.gz")
    (tmp_path / "t.tar").write_bytes(b"not a shard" * 100)
    with pytest.raises(ImageError, match=r"t\.tar is not an uncompressed tar shard"):
        find_photos(tmp_path / "t.tar")


@pytest.mark.parametrize("place", [2, 3])
def test_a_shard_damaged_in_the_middle_is_named(place: int, tmp_path: Path, picture: Image.Image) -> None:
    """What a tar reader takes for the end of the archive."""
    file = shard_of(tmp_path / "s.tar", {f"{number}.png": encoded(picture, "PNG") for number in range(4)})
    with tarfile.open(file) as shard:
        header = shard.getmembers()[place].offset
    content = bytearray(file.read_bytes())
    content[header + 100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ImageError, match=f"damaged: what begins at byte {header} is no member"):
        find_photos(file)


def table_of(contents: list[bytes | None]) -> Any:
    """A table of the `datasets` library, its labels 3, 5, 7, ..."""
    datasets = pytest.importorskip("datasets")
    cells = [content and {"bytes": content, "path": None} for content in contents]
    table = datasets.Dataset.from_dict({"image": cells, "label": [3 + 2 * row for row in range(len(cells))]})
    return table.cast_column("image", datasets.Image())


def test_parquet_goes_through_the_same_decoder(tmp_path: Path, picture: Image.Image) -> None:
    table_of([encoded(picture, "PNG")] * 2).to_parquet(tmp_path / "photos.parquet")
    photos = Photos.open(tmp_path / "photos.parquet", 64)
    assert photos.labels == [3, 5]
    assert (photos.pixels(1) == resize(picture, 64)).all()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ImageError, match="cannot be read as parquet"):
        find_photos(tmp_path / "broken.parquet")


def test_tables_of_one_name_stay_apart_and_one_given_twice_counts_once(
    tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of([encoded(picture, "PNG")] * 2)

    def ids(*sources: Path | str) -> list[str]:
        return [photo.id for photo in find_photos(sources).photos]

    files = [tmp_path / name / "train.parquet" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        table.to_parquet(file)
    assert ids(*files) == [f"{file}:000000{row}" for file in files for row in range(2)]
    assert ids(files[0], files[0]) == ["train.parquet:0000000", "train.parquet:0000001"]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: table)
    assert ids("hub:a/x", "hub:b/x") == [f"hub:{name}/x:000000{row}" for name in "ab" for row in range(2)]


def test_a_row_without_a_picture_is_left_out_and_told(tmp_path: Path, picture: Image.Image) -> None:
    table_of([encoded(picture, "PNG"), None]).to_parquet(tmp_path / "photos.parquet")
    photos = Photos.open(tmp_path / "photos.parquet", 64).load()
    assert len(photos) == 1
    assert photos.left_out == {"photos.parquet:0000001": "photos.parquet:0000001 holds no picture"}


def test_other_pictures_of_a_row_are_left_alone(tmp_path: Path, picture: Image.Image) -> None:
    datasets = pytest.importorskip("datasets")
    masks = [{"bytes": b"no mask", "path": None}] * 2
    table = table_of([encoded(picture, "PNG")] * 2).add_column("mask", masks)
    table.cast_column("mask", datasets.Image()).to_parquet(tmp_path / "photos.parquet")
    assert len(Photos.open(tmp_path / "photos.parquet", 64).load()) == 2


def test_shards_are_known_by_any_spelling_and_a_folder_that_is_closed_is_told(
    tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_of(tmp_path / "S.TAR", {"x.png": encoded(picture, "PNG")})
    assert [photo.id for photo in find_photos(tmp_path).photos] == ["x"]

    def closed(_: object) -> Any:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("os.scandir", closed)
    with pytest.raises(ImageError, match=r"cannot look into .*: Permission denied"):
        find_photos(tmp_path)


def test_a_picture_of_another_kind_does_not_end_a_search(folder: Path) -> None:
    (folder / "phone.heic").write_bytes(b"ftypheic")
    photos = Photos.open(str(folder / "*.[ph]*"), 64).load()
    assert "HEIC is not supported" in photos.left_out["phone.heic"]
    with pytest.raises(ImageError, match="HEIC is not supported"):
        Photos.open(folder / "phone.heic", 64).load()


def test_a_name_that_is_no_text_can_be_trained_on(tmp_path: Path, picture: Image.Image) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")).write_bytes(encoded(picture, "PNG"))
    stream = TrainingStream(Photos.open(tmp_path, 64), batch_size=1, seed=0)
    assert next(stream.batches(0)).shape == (1, 3, 64, 64)


def test_missing_sources_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no file or folder"):
        find_photos(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="nothing matches"):
        find_photos(tmp_path / "*.tar")
    with pytest.raises(ImageError, match="no photographs in"):
        find_photos(tmp_path)


def test_a_damaged_photo_is_left_out_and_told(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    photos = Photos.open(folder, 64).load()
    assert photos.ids == ["b.png", "inner/a.JPG"]
    assert photos.left_out[str(folder / "notes.txt")] == "not a picture"
    assert "is not a picture" in photos.left_out["broken.jpg"] or "damaged" in photos.left_out["broken.jpg"]
    assert Photos.open(folder / "*.[jp]*g", 64).load().ids == ["b.png"]
    assert Photos.open([folder / "b.png", folder / "broken.jpg"], 64).load().ids == ["b.png"]  # as a shell's glob does
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        Photos.open(folder / "broken.jpg", 64).load()


def test_the_first_are_the_first_that_can_be_read(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "c.png").write_bytes(b"nor this")
    everything = Photos.open(folder, 64).load()
    for limit in range(1, len(everything) + 2):
        few = Photos.open(folder, 64).load(limit)
        assert few.ids == everything.ids[:limit]
        assert torch.equal(few.images(range(len(few))), everything.images(range(len(few))))
    assert "a.png" in Photos.open(folder, 64).load(1).left_out


def test_photos_too_many_for_memory_are_read_when_needed(folder: Path) -> None:
    kept, reread = Photos.open(folder, 64).load(), Photos.open(folder, 64).load(memory_limit=10)
    shutil.rmtree(folder / "inner")
    assert kept.pixels(1).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="cannot read"):
        reread.pixels(1)
    assert len(reread.load(memory_limit=10)) == len(reread)  # it is known that they can be read
    assert len(reread.first(1).load()) == 1  # and one has room


def test_what_was_freed_on_a_gpu_is_room_for_photographs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, free = Photos.open(folder, 64).load(), [0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[-1], 1 << 20))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(4 * photos.pixels(0).nbytes))
    assert photos.on_gpu(torch.device("cpu")) is not None


def test_a_subset_shares_the_pixels_in_memory_and_knows_what_was_left_out(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"torn")
    photos = Photos.open(folder, 64).load()
    part = photos.subset([1, 0]).subset([1])
    assert part.ids == ["b.png"]
    assert np.shares_memory(part.pixels(0), photos.pixels(0))
    assert np.shares_memory(part.load().pixels(0), photos.pixels(0))
    assert torch.equal(part.images([0]), next(photos.batches())[1][:1])
    assert part.left_out == photos.left_out
    assert len(part.left_out) == 2


def test_what_was_left_out_is_warned_of_once() -> None:
    left_out = {f"{number}.jpg": "torn" for number in range(7)}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            images.warn_left_out(left_out)
        images.warn_left_out({})
    assert len(told) == 1
    assert str(told[0].message).startswith("left out 0.jpg: torn; 1.jpg: torn")
    assert "and 2 more" in str(told[0].message)


def test_the_first_photographs_are_those_that_there_are(folder: Path) -> None:
    photos = Photos.open(folder, 64)
    assert [photos.first(count).ids for count in (1, 2, 9, None)] == [photos.ids[:1], *[photos.ids] * 3]


def test_memory_is_what_a_container_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("missing", "unlimited", "limit")]
    monkeypatch.setattr("preimage.images.photos.CONTAINER_LIMITS", files)
    files[1].write_text("max\n")
    machine = images.total_memory()
    files[2].write_text("1048576\n")
    assert images.total_memory() == 1048576 < machine


# --- what a training step sees ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(crops: Path) -> Photos:
    return Photos.open(crops, 32).load()


def test_every_epoch_sees_every_photo_once_in_another_order(many: Photos) -> None:
    stream = TrainingStream(many, batch_size=10, seed=1)
    seen = [member for step in range(32) for member in stream.members(step)][: 3 * len(many)]
    epochs = [[index for epoch, index in seen if epoch == number] for number in range(3)]
    assert all(sorted(epoch) == list(range(len(many))) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_step_is_the_same_however_it_is_computed(many: Photos) -> None:
    stream = TrainingStream(many, batch_size=8, seed=1)
    from_start = stream.batches(0, num_workers=1)
    batches = [next(from_start) for _ in range(12)]
    resumed = stream.batches(9, num_workers=4, ahead=1)
    assert torch.equal(next(resumed), batches[9])


def test_ranks_share_a_global_batch(many: Photos) -> None:
    whole = TrainingStream(many, batch_size=8, seed=1)
    parts = [TrainingStream(many, 8, 1, rank=rank, num_ranks=2) for rank in range(2)]
    assert whole.members(5) == parts[0].members(5) + parts[1].members(5)
    with pytest.raises(SettingsError, match="shared evenly"):
        TrainingStream(many, 9, 1, num_ranks=2)


def test_augmentation_changes_pictures_but_keeps_their_size(many: Photos) -> None:
    picture = many.pixels(0)
    for seed in range(5):
        changed = Augmentation().view(32, np.random.default_rng(seed)).of(picture)
        assert changed.shape == picture.shape
        assert (changed != picture).any()
    unchanged = Augmentation(flip=False, min_scale=1).view(32, np.random.default_rng(0)).of(picture)
    assert (unchanged == picture).all()


@pytest.mark.parametrize("augmentation", [Augmentation(min_scale=0.5), Augmentation(flip=False, min_scale=1)])
def test_a_device_sees_the_same_views_as_pillow(samples: Photos, augmentation: Augmentation) -> None:
    stream = TrainingStream(samples, batch_size=8, seed=1, augmentation=augmentation)
    indices, views = stream.views(3)
    expected = next(stream.batches(3))
    pixels = torch.from_numpy(np.stack([samples.pixels(index) for index in indices]))
    off = (images.views_of(pixels, views) - expected).abs() * 255
    assert off.max() < 1.01  # of 255 levels
    assert (off > 0.5).float().mean() < 1e-3
