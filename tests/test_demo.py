"""The demonstration: one page that needs nothing else, and says what it left out."""

from __future__ import annotations

import base64
import io
import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import weights_of
from preimage import demo, zoo
from preimage.errors import PreimageError
from preimage.representations import LBP


@pytest.fixture
def offline(exported_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny zoo in the place of what ships, and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("something tried to reach a network")

    monkeypatch.setattr(zoo, "FOLDER", exported_zoo)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Reader(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture
def page(offline: None, tmp_path: Path) -> str:
    demo.show(tmp_path / "demo")
    return (tmp_path / "demo" / "index.html").read_text()


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    addresses = [value or "" for _, attributes in Reader(page).tags for key, value in attributes.items()
                 if key in ("src", "href", "srcset", "action", "poster")]  # fmt: skip
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert "http" not in page
    assert not re.search(r"@import|url\(", page)


def test_every_picture_can_be_seen_and_be_read_aloud(page: str) -> None:
    pictures = [attributes for tag, attributes in Reader(page).tags if tag == "img"]
    assert len(pictures) == 4 * 3  # photographs and two representations
    assert len({attributes["alt"] for attributes in pictures}) == len(pictures)
    assert any(attributes["alt"] == "coffee, reconstructed from lbp" for attributes in pictures)
    for attributes in pictures:
        content = base64.b64decode((attributes["src"] or "").partition("base64,")[2])
        assert Image.open(io.BytesIO(content)).size == (64, 64)


def test_every_representation_stands_beside_its_baselines(page: str) -> None:
    for name in ("hog", "lbp"):
        row = zoo.card(name)["evaluation"]["rows"][0]
        assert f"{row['nre']:.3f} ± {row['nre_sem']:.3f}" in page
    for inverter in ("upconv", "mean-image", "ridge", "nearest", "other-image"):
        assert page.count(f"<td>{inverter}</td>") == 2


def test_it_can_be_read_on_a_phone(page: str) -> None:
    metas = [attributes for tag, attributes in Reader(page).tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas


def test_what_cannot_be_computed_here_is_left_out_with_its_reason(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PreimageError("LBP needs <something> that is not here")

    monkeypatch.setattr(LBP, "encode", refuse)
    told: list[str] = []
    shown = demo.show(tmp_path, tell=told.append)
    assert [one.name for one in shown] == ["hog"]
    assert told == ["lbp is left out: LBP needs <something> that is not here"]
    assert "LBP needs &lt;something&gt; that is not here" in (tmp_path / "index.html").read_text()


def test_a_mistyped_setting_is_no_reason_to_leave_everything_out(tmp_path: Path) -> None:
    with pytest.raises(PreimageError, match="Did you mean 'alexnet'"):
        demo.show(tmp_path, overrides=["alexnt:weights=x"])


def test_where_nothing_can_be_shown_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(PreimageError, match="nothing ships"):
        demo.show(tmp_path / "demo")


def test_weights_that_do_not_come_with_the_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "alexnet.conv5"
    settings = weights_of(name)
    if settings is None or name not in zoo.shipped():
        pytest.skip(f"{name} or its weights are not here")
    monkeypatch.setattr(zoo, "shipped", lambda: [name])
    (shown,) = demo.show(tmp_path, overrides=[f"alexnet:weights={settings['weights']}"])
    assert shown.name == name
