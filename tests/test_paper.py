"""Whether a finding of the paper shows, from errors whose answer is known."""

from __future__ import annotations

from preimage import paper
from preimage.paper import HARDLY, Claim, verdict

WORSE = Claim("Dropping hurts more than binarising.", "dropped", "binarised")
LITTLE = Claim("Dropping hurts little.", "dropped", "binarised", hardly=True)


def errors(*differences: float) -> dict[str, dict[str, float]]:
    """Photographs as different as can be, and what dropping adds to the error of each."""
    base = {f"{place}.jpg": 0.2 * place for place in range(len(differences))}
    return {
        "binarised": base,
        "dropped": {name: base[name] + more for name, more in zip(base, differences, strict=True)},
    }


def test_differences_are_taken_photograph_by_photograph() -> None:
    assert verdict(WORSE, errors(0.02, 0.03, 0.02, 0.03)) == ("shows", "+0.025 ± 0.003", "4")


def test_what_does_not_show_is_said() -> None:
    assert verdict(WORSE, errors(-0.02, -0.03, -0.02, -0.03))[0] == "does not show"
    assert verdict(LITTLE, errors(*[HARDLY + each for each in (0.02, 0.03, 0.02, 0.03)]))[0] == "does not show"
    assert verdict(LITTLE, errors(0.02, 0.03, 0.02, 0.03))[0] == "shows"


def test_what_lies_within_the_error_is_undecided() -> None:
    assert verdict(WORSE, errors(0.02, -0.02, 0.03, -0.02))[0] == "undecided"
    assert verdict(WORSE, errors(0.02))[0] == "undecided"


def test_only_photographs_that_both_have_count() -> None:
    fewer = errors(0.02, 0.03, 0.02, 0.03)
    del fewer["dropped"]["0.jpg"]
    assert verdict(WORSE, fewer)[2] == "3"


def test_what_was_not_measured_is_named() -> None:
    assert verdict(WORSE, {"binarised": {}}) == ("not measured: dropped", "", "")


def test_recalled_values_are_those_of_the_same_layer_of_kin() -> None:
    assert paper.recalled("alexnet.fc6") == paper.recalled("caffenet.fc6") == paper.NRE["caffenet.fc6"]
    assert paper.recalled("hog")["hoggles"] == 0.61
    assert paper.recalled("efficientnet_lite0.pool") == {}
