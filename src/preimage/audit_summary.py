"""What the numbers of an audit mean, for someone who knows none of the words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preimage.inverters import MeanImage
from preimage.metrics import COLOURLESS
from preimage.representations.matching import WITHOUT_IDS
from preimage.words import plus_minus

Content = Mapping[str, Any]  # of an audit
Row = Mapping[str, Any]  # of one attacker

FEW_TESTS = 50  # photographs: by fewer only much can be shown
ALPHA = 0.01  # features give something away where the best attacker's luck is less probable
UNORDERED = (
    "The rows were taken in the order of the photographs' names, as the file has no ids: if they are in another order, "
    "nothing can be found in them. Write a name a line to FILE.ids.txt to be sure."
)
LIMITS = (
    "Limits: an error that stays high does not prove safety. More pairs, a larger network, a longer training or "
    "knowledge of the encoder may rebuild more; a face or a number plate may be recognised where the whole photograph "
    "is not; and similar features already tell that two photographs are similar, without any of this."
)


def summary(content: Content) -> list[str]:
    """A sentence or a few for each question that could be asked; the limits last."""
    rows = {row["attacker"]: row for row in content["rows"]}
    own, mean = rows[content["best"]], rows[MeanImage.name]
    words = [verdict(content, own, mean)]
    if content["above_chance_p"] < ALPHA:
        words += [identity(content), colour(own, mean)]
    elif WITHOUT_IDS in content["matched_by"]:
        words.append(UNORDERED)
    if content["classes"]["available"]:
        words.append(classes(content["classes"]))
    words.append(control(content["shuffled"]))
    closest = min(content["defences"], key=lambda row: float(row["nre"]), default=own)
    if closest["nre"] < own["nre"]:
        words.append(
            f"Defences: behind one of them ({closest['words']}) {closest['attacker']} comes closer (NRE "
            f"{plus_minus(closest['nre'], closest['nre_sem'])}) than any attacker with the features as they are. A "
            "defence adds nothing to features, so attackers do not find everything in them: take the least error as "
            "what they give away."
        )
    return [*words, LIMITS]


def verdict(content: Content, own: Row, mean: Row) -> str:
    """Whether anything is given away, and how much closer than the average picture the best attacker comes."""
    pairs, p = f"{content['n_train']:,} example pairs", content["above_chance_p"]
    if p >= ALPHA:
        few = content["n_test"] < FEW_TESTS
        only = f", but {content['n_test']} test photographs can only show much: test on more" if few else ""
        return (
            f"With {pairs}, none of the attackers tried here can be shown to tell one photograph's features from "
            f"another's (p = {p:.3g}, not below {ALPHA}{only}). That is not proof that nothing can be rebuilt."
        )
    closer = 1 - own["nre"] / mean["nre"]
    if closer <= 0:
        return (
            f"These features give something of the photographs away (p = {p:.2g}), but with {pairs} no attacker tried "
            f"here comes closer to a photograph than the average picture does (NRE {own['nre']:.3f} against "
            f"{mean['nre']:.3f})."
        )
    return (
        f"These features give something of the photographs away. With {pairs}, the best attacker tried here "
        f"({own['attacker']}) rebuilds photographs it has never seen {percent(closer)} closer than the average picture "
        f"does (NRE {plus_minus(own['nre'], own['nre_sem'])} against {plus_minus(mean['nre'], mean['nre_sem'])})."
    )


def identity(content: Content) -> str:
    """How often the right photograph is found, by the attacker that is best at it."""
    named, k = max(content["rows"], key=lambda row: float(row["top1"])), content["n_test"]
    return (
        f"Identity: shown what {named['attacker']} rebuilt, one finds the right photograph among {k} in "
        f"{percent(named['top1'])} of cases (95 % interval {percent(named['top1_low'])} to "
        f"{percent(named['top1_high'])}; by chance {percent(1 / k)}). If {percent(named['false_match_rate'])} of "
        f"wrong photographs are accepted, {percent(named['true_match_rate'])} of the right ones are recognised."
    )


def colour(own: Row, mean: Row) -> str:
    """How much closer colours come than those of the average picture."""
    if mean["colour_error"] < COLOURLESS:
        return "Colour: the photographs have none by which they differ."
    closer = 1 - own["colour_error"] / mean["colour_error"]
    how = "closer" if closer >= 0 else "farther off"
    return f"Colour: {own['attacker']}'s colours are {percent(abs(closer))} {how} than those of the average picture."


def classes(measured: Mapping[str, Any]) -> str:
    """How often a probe reads the class off reconstructions."""
    found = measured["reconstructions"]
    return (
        f"Class: a linear probe reads the class off the reconstructions in {percent(found['accuracy'])} of cases "
        f"({percent(found['low'])} to {percent(found['high'])}; the most frequent class alone "
        f"{percent(measured['chance'])}, the photographs themselves {percent(measured['photographs']['accuracy'])})."
    )


def control(shuffled: Mapping[str, Any]) -> str:
    """What is learnt from pairs that do not belong together, which must be nothing."""
    judged = "better than the average picture: something is wrong"
    if shuffled["difference"] > -2 * shuffled["difference_sem"]:
        judged = "no better than the average picture, as it must"
    nre = f"{shuffled['nre']:.3f}"
    return f"Control: learnt from shuffled pairs, the better of network and ridge has NRE {nre}, {judged}."


def percent(share: float) -> str:
    """Small shares with a decimal: 0.018 is 1.8 %."""
    return f"{100 * share:.{0 if share >= 0.1 else 1}f}".removesuffix(".0") + " %"
