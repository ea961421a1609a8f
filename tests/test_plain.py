"""Plain values in words, and as JSON."""

from __future__ import annotations

import json
import math

import pytest

from preimage.plain import to_json
from preimage.words import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.00012, "0.12 ms"), (0.056, "56 ms"), (3.44, "3.4 s"), (12.4, "12 s"), (119, "119 s"), (121, "2 min"),
        (7199, "120 min"), (7200, "2.0 h"),
    ],
)  # fmt: skip
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_is_no_finite_number_is_null_in_json() -> None:
    assert json.loads(to_json({"psnr": math.inf, "sem": [math.nan, 1.5]})) == {"psnr": None, "sem": [None, 1.5]}
