"""Weights from published files: every format, damaged ones, and fetching them from a server on this machine."""

from __future__ import annotations

import argparse
import hashlib
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from preimage.errors import UnknownNameError, WeightsError
from preimage.networks import alexnet, efficientnet_lite, load_network, weights
from preimage.networks.caffemodel import net_message
from preimage.networks.weights import PUBLISHED, fetch, read_weights
from preimage.representations import get_representation

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, whole or from an offset; breaks off in the middle where the path says so."""

    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        part = CONTENT[first:]
        self.wfile.write(part[:1_500_000] if "broken" in self.path and not wanted else part)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Server.asked.clear()
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def publish(monkeypatch: pytest.MonkeyPatch, url: str, digest: str) -> None:
    monkeypatch.setitem(PUBLISHED, "alexnet", replace(PUBLISHED["alexnet"], url=url, digest=digest))


def test_fetching_verifies_and_fetches_once(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, f"{server}/a.pth", hashlib.sha256(CONTENT).hexdigest()[:8])
    seen: list[tuple[int, int]] = []
    assert fetch("alexnet", lambda done, total: seen.append((done, total))).read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    fetch("alexnet")
    assert len(Server.asked) == 1
    PUBLISHED["alexnet"].file.write_bytes(CONTENT[:-1])  # damaged since
    assert fetch("alexnet").read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_where_it_stopped(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(monkeypatch, f"{server}/broken.pth", hashlib.sha256(CONTENT).hexdigest())
    with pytest.raises(WeightsError, match="run the command again"):
        fetch("alexnet")
    assert (tmp_path / "broken.pth.part").stat().st_size == 1_500_000
    assert fetch("alexnet").read_bytes() == CONTENT
    assert Server.asked == [None, "bytes=1500000-"]


def test_a_file_with_another_hash_is_thrown_away(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    publish(monkeypatch, f"{server}/a.pth", "0000")
    with pytest.raises(WeightsError, match="expected 0000"):
        fetch("alexnet")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnknownNameError, match="Did you mean 'alexnet'"):
        fetch("alexnett")


def test_without_weights_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=r"preimage weights get caffenet.*233 MB.*weights=FILE"):
        load_network("caffenet")


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def convolutions() -> dict[str, Tensor]:
    """Random weights conv1.weight ... conv5.bias of the Caffe form."""
    torch.manual_seed(0)
    state = alexnet.AlexNet("bvlc", convolutions_only=True).state_dict()
    return {name.replace(".conv.", "."): value for name, value in state.items()}


def caffemodel(values: dict[str, Tensor], old: bool) -> bytes:
    net = net_message()()
    for layer in dict.fromkeys(name.partition(".")[0] for name in values):
        entry = (net.layers if old else net.layer).add(name=layer)
        for kind in ("weight", "bias"):
            value = values[f"{layer}.{kind}"]
            blob = entry.blobs.add(data=value.flatten().tolist())
            if old:
                shape = [1] * (4 - value.ndim) + list(value.shape)
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(value.shape)
    return bytes(net.SerializeToString())


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pth", "new.caffemodel", "old.caffemodel"])
def test_every_format_gives_the_same_network(kind: str, convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"weights.{kind}"
    if kind == "npz":
        np.savez(file, **{name: value.numpy() for name, value in convolutions.items()})
    elif kind == "safetensors":
        save_file(convolutions, file)
    elif kind == "pth":
        torch.save(convolutions, file)
    else:
        file.write_bytes(caffemodel(convolutions, old=kind.startswith("old")))
    network = alexnet.load("bvlc", [file])
    assert list(dict(network.named_children())) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, convolutions[name.replace(".conv.", ".")])


def test_torchvisions_names_are_understood(tmp_path: Path) -> None:
    expected = alexnet.AlexNet("torchvision", convolutions_only=True).state_dict()
    places = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
    renamed = {f"features.{places[name[:5]]}.{name[11:]}": value for name, value in expected.items()}
    torch.save(renamed, tmp_path / "alexnet.pth")
    loaded = alexnet.load("torchvision", [tmp_path / "alexnet.pth"]).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


def test_quantised_arrays_are_decoded(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "q.npz",
        **{
            "a.index4": np.array([[0x21, 0x43]], np.uint8), "a.codebook": np.arange(16, dtype=np.float16)[None] * 10,
            "b.pq_index": np.array([[1, 0], [0, 1]], np.uint8),
            "b.pq_codebook": np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.float32),
            "_meta": np.array("words"),
        },
    )  # fmt: skip
    decoded = read_weights(tmp_path / "q.npz")
    assert decoded["a.weight"].tolist() == [[10, 20, 30, 40]]
    assert decoded["b.weight"].tolist() == [[3, 4, 5, 6], [1, 2, 7, 8]]
    assert set(decoded) == {"a.weight", "b.weight"}


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth", "caffemodel"])
def test_damaged_files_are_named(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"torn.{suffix}"
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match=rf"torn\.{suffix}"):
        read_weights(file)


def zip_of_words(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "dear diary")


def array_alone(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


def broken_header(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'(\n")


def cut(file: Path) -> None:
    np.savez(file, a=np.zeros(1000, np.float32))
    file.write_bytes(file.read_bytes()[:2000])


def flipped(file: Path) -> None:
    np.savez(file, a=np.zeros(1000, np.float32))
    content = bytearray(file.read_bytes())
    content[2000] ^= 255
    file.write_bytes(content)


def arrays(**values: Any) -> Callable[[Path], None]:
    return lambda file: np.savez(file, **{name.replace("_OF_", "."): value for name, value in values.items()})


def saved(content: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(content, file)


def strange_shape(file: Path) -> None:
    net = net_message()()
    blob = net.layer.add(name="conv1").blobs.add(data=[0.0] * 4)
    blob.shape.dim.extend([-2, -2])
    file.write_bytes(net.SerializeToString())


CODES, BOOK = np.full((2, 3), 255, np.uint8), np.zeros((2, 4), np.float32)
DAMAGED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "cut": ("npz", cut, "cannot be read as .npz: File is not a zip file. Fetch it again"),
    "a flipped bit": ("npz", flipped, "cannot be read as .npz: Bad CRC"),
    "a broken header": ("npz", broken_header, "cannot be read as .npz"),
    "an array alone": ("npz", array_alone, r"cannot be read as .npz.*np\.savez\(FILE"),
    "a zip of words": ("npz", zip_of_words, "expected arrays of real numbers, got readme.txt as something else"),
    "words": ("npz", arrays(a=np.array("hi")), "expected arrays of real numbers, got a as <U2"),
    "complex numbers": ("npz", arrays(a=np.zeros(2, complex)), "expected arrays of real numbers, got a as complex128"),
    "indices alone": ("npz", arrays(a_OF_index4=CODES), r"damaged.*a\.index4 holds no indices into a codebook of a"),
    "wild indices": ("npz", arrays(a_OF_index4=CODES, a_OF_codebook=BOOK), "holds no indices into a codebook"),
    "no indices": ("npz", arrays(a_OF_index4=BOOK, a_OF_codebook=BOOK), "holds no indices into a codebook"),
    "wild groups": ("npz", arrays(a_OF_pq_index=CODES, a_OF_pq_codebook=BOOK), "holds no indices into a codebook"),
    "a bare tensor": (
        "pth",
        saved(torch.zeros(3)),
        "expected tensors by name, got a tensor of 3, float",
    ),
    "a list": ("pth", saved([torch.zeros(3)]), r"got list; save it by torch\.save\(module\.state_dict"),
    "nothing": ("pth", saved(None), "got NoneType"),
    "numbers for names": ("pth", saved({0: torch.zeros(3)}), "no state dict of tensors: it holds 0"),
    "lists for tensors": ("pth", saved({"a": [1, 2]}), "no state dict of tensors: it holds a"),
    "sparse tensors": ("pth", saved({"a": torch.eye(3).to_sparse()}), "expected dense real numbers, got a as a tensor"),
    "no values": ("pth", saved({"a": torch.zeros(3, device="meta")}), "expected dense real numbers.*meta"),
    "complex tensors": ("pth", saved({"a": torch.zeros(3, dtype=torch.complex64)}), "expected dense real numbers"),
    "a negative shape": ("caffemodel", strange_shape, r"damaged: conv1 has 4 values for a shape of \(-2, -2\)"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_holds_no_weights_is_told(case: str, tmp_path: Path) -> None:
    suffix, write, words = DAMAGED[case]
    file = tmp_path / f"strange.{suffix}"
    write(file)
    with pytest.raises(WeightsError, match=words) as raised:
        read_weights(file)
    assert str(file) in str(raised.value)


B0 = ["_blocks.0._se_reduce.weight", "_blocks.99._bn0.weight", "_blocks.x._bn0.weight", "_blocks.0._se.a.weight"]


@pytest.mark.parametrize("name", [*B0, "_blocks.weight"])
def test_names_that_are_not_lite0_s_are_told(name: str, tmp_path: Path) -> None:
    own = torch.load(efficientnet_lite.installed(), weights_only=True)
    torch.save({name: torch.zeros(3), **own}, tmp_path / "b0.pth")
    with pytest.raises(WeightsError, match=rf"another architecture: {re.escape(name)} is not part of Effic"):
        load_network("efficientnet_lite0", str(tmp_path / "b0.pth"))


def test_weights_of_the_softmax_are_left_out(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**convolutions, "prob.weight": torch.zeros(1)}, tmp_path / "more.pth")
    assert alexnet.load("bvlc", [tmp_path / "more.pth"])


def test_a_checkpoint_of_a_network_is_opened(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in convolutions.items()}, "epoch": 3}, tmp_path / "c.pth")
    assert read_weights(tmp_path / "c.pth").keys() == convolutions.keys()


def test_a_file_that_has_changed_is_read_again(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    torch.save(convolutions, file)
    before = get_representation("bvlc_alexnet.conv1", weights=str(file)).fingerprint
    assert get_representation("bvlc_alexnet.conv1", weights=str(file)).fingerprint == before
    torch.save({name: 2 * value for name, value in convolutions.items()}, file)
    assert get_representation("bvlc_alexnet.conv1", weights=str(file)).fingerprint != before


def test_names_in_npz_may_begin_with_an_underscore(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", _conv=np.ones(3), _meta=np.array("about them"))
    assert list(read_weights(tmp_path / "w.npz")) == ["_conv"]


def test_a_list_of_files_is_told_where_it_is_none() -> None:
    file = str(efficientnet_lite.installed())
    with pytest.raises(WeightsError, match=r"is read from one file, got 2: .*\.pth, .*\.pth"):
        load_network("efficientnet_lite0", f"{file},{file}")
    with pytest.raises(WeightsError, match="expected weights files with commas between them"):
        load_network("efficientnet_lite0", f"{file},")


def test_other_files_are_refused(tmp_path: Path, convolutions: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_weights(tmp_path / "nothing.pth")
    (tmp_path / "notes.txt").write_text("dear diary")
    with pytest.raises(WeightsError, match="weights are read from"):
        read_weights(tmp_path / "notes.txt")
    save_file(convolutions, tmp_path / "bvlc.safetensors")
    with pytest.raises(WeightsError, match=r"another architecture: conv1\.conv\.weight has shape"):
        alexnet.load("torchvision", [tmp_path / "bvlc.safetensors"])
    save_file({"fc9.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="holds no AlexNet"):
        alexnet.load("bvlc", [tmp_path / "other.safetensors"])


def test_the_arguments_of_a_script_are_no_code(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.eye(2)}, "args": argparse.Namespace(rate=1)}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")["weight"].equal(torch.eye(2))
