"""Weights from published files: every format, damaged ones, and fetching them from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from preimage.errors import UnknownNameError, WeightsError
from preimage.networks import alexnet, load_network, weights
from preimage.networks.caffemodel import net_message
from preimage.networks.weights import PUBLISHED, fetch, read_weights

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
