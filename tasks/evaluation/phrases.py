"""Phrases for an evaluation: conditions, changes and p values in words."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.evaluation.comparisons import SAME
from tasks.report.summaries import Facts

CLEAN_LABEL = "clean"
_NO_BREAK = "\u00a0"
_MINUS = "\u2212"
_DASH = "\u2013"
_VARIANTS = {
    "smoothed": "plain smoothing",
    "smoothed_by_anchors": "smoothing by anchors",
    "shuffled_anchors": "shuffled anchors",
    "anchors_appended": "anchors appended",
}
_DAMAGE = {
    "swap": "swapped",
    "within": "swapped within their category",
    "noise": "hit by noise",
    "scale": "wrongly scaled",
    "drop": "dropped",
    "segments": "swapped in segments",
}
_NOISE = {"random": "random clicks", "popular": "popularity-biased clicks"}
_METRICS = {"recall": "Recall", "ndcg": "NDCG", "coverage": "item coverage", "closeness": "held-out pair closeness"}


def variant_name(variant: str) -> str:
    """What to call the features that a backbone read."""
    return _VARIANTS.get(variant, variant.replace("_", " "))


def metric_name(metric: str) -> str:
    """``recall@20`` as ``Recall@20``."""
    for name, words in _METRICS.items():
        if metric.startswith(name):
            return words + metric[len(name) :].replace("_", " ")
    return metric.replace("_", " ")


def whole_percent(share: float) -> str:
    """A share of the grid: ``40 %``."""
    return f"{100 * share:.4g}{_NO_BREAK}%"


def damage_phrase(fact: Facts) -> str:
    """What was done to the features, without the amount: ``features swapped in all modalities``, ``image features swapped``."""
    if not fact["kind"]:
        return "features as they came"
    done = _DAMAGE.get(fact["kind"], f"damaged ({fact['kind']})")
    return f"features {done} in all modalities" if fact["damaged"] == "all" else f"{fact['damaged']} features {done}"


def amount_phrase(fact: Facts) -> str:
    """Damage with its amount: ``40 % of the features swapped in all modalities``."""
    return f"{whole_percent(fact['share'])} of the {damage_phrase(fact)}" if fact["kind"] else damage_phrase(fact)


def amount_label(fact: Facts) -> str:
    """The same where room is short: ``40 % swapped``, ``40 % swapped, image``, ``clean``."""
    if not fact["kind"]:
        return CLEAN_LABEL
    done = _DAMAGE.get(fact["kind"], str(fact["kind"])).replace("their category", "category")
    return f"{whole_percent(fact['share'])} {done}" + ("" if fact["damaged"] == "all" else f", {fact['damaged']}")


def noise_name(kind: str) -> str:
    """What to call clicks of this kind that nobody made."""
    return _NOISE.get(kind, f"{kind} clicks")


def editing_name(editing: str) -> str:
    """What to call an editing of the edges."""
    return editing.replace("_", " ") or "no editing"


def noise_phrase(fact: Facts) -> str:
    """What was done to the interactions, with its amount: ``10 % random clicks``."""
    return (
        f"{whole_percent(fact['noise_share'])} {noise_name(fact['noise_kind'])}" if fact["noise_kind"] else CLEAN_LABEL
    )


def signed(value: float | None) -> str:
    """A relative change: ``+2.3 %``, ``−0.04 %``; what rounds to nothing has no sign."""
    if value is None:
        return _DASH
    percents = 100 * value
    decimals = 1 if abs(percents) >= 0.095 else 2
    text = f"{abs(percents):.{decimals}f}{_NO_BREAK}%"
    return text if not float(f"{percents:.{decimals}f}") else ("+" if percents > 0 else _MINUS) + text


def with_interval(found: Facts | None) -> str:
    """A change with its interval: ``+2.3 % (+1.1 to +3.4 %)``."""
    if found is None:
        return _DASH
    if found["low"] is None:
        return signed(found["mean"])
    return f"{signed(found['mean'])} ({signed(found['low']).removesuffix(_NO_BREAK + '%')} to {signed(found['high'])})"


def share_with_interval(found: Facts | None) -> str:
    """A share won back: ``62 % (48 to 75 %)``; it may be below nothing or above all."""
    if found is None or found["mean"] is None:
        return _DASH
    mean, low, high = (
        None if found[x] is None else str(round(100 * found[x])).replace("-", _MINUS) for x in ("mean", "low", "high")
    )
    return f"{mean}{_NO_BREAK}%" + ("" if low is None else f" ({low} to {high}{_NO_BREAK}%)")


def p_value(p: float | None) -> str:
    """``.034``, ``< .001``, or a dash without a test."""
    if p is None:
        return _DASH
    if p < 0.001:
        return f"<{_NO_BREAK}.001"
    return "1" if p >= 0.9995 else f"{p:.3f}".removeprefix("0")


def seeds_p(p: float | None) -> str:
    """A p of the test across seeds, which takes few values, to three digits: ``.0625``."""
    return _DASH if p is None else f"{p:.3g}".removeprefix("0")


def marked(p: float | None) -> str:
    """The stars of a corrected p."""
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def p_phrase(fact: Facts) -> str:
    """``p = .034`` or why there is none."""
    if fact["p_holm"] is None:
        return "equal to the last digit" if fact["verdict"] == SAME else "untested"
    text = p_value(fact["p_holm"])
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = list(words)
    return f"{', '.join(most)} and {last}" if most else last
