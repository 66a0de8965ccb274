"""Compare the conditions of an evaluation in pairs: differences with intervals, corrected p values, and the share recovered.

A question says what is compared with what. Holm's correction covers all comparisons of one question and metric in one setting, so over
backbones, controls, variants and editings. More settings in a grid do not weaken a claim about one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float64
from rectifier_core.evaluation.significance import Estimate, holm, mean_estimate, ratio_estimate, relative_change
from rectifier_core.evaluation.trial import POPULARITY
from tasks.evaluation.config import NONE
from tasks.evaluation.grid import RAW, RAW_APPENDED, RECTIFIED, RECTIFIED_APPENDED, Condition
from tasks.evaluation.results import CONTROLS, NDCG, RECALL, Results
from tasks.report.summaries import tidy

CLEAN, DAMAGE, APPENDED, CONTROL, VARIANT, EDITING = "clean", "damage", "appended", "control", "variant", "editing"
MOST_LOST, MOST_RECOVERED = -1.0, 2.0
"""The share recovered is given where its interval lies between these."""
WIDEST = 2.0
"""A relative change is given where its interval is not wider."""
QUESTIONS = {
    CLEAN: "Clean features: rectified against raw",
    DAMAGE: "Damaged features or interactions: rectified against raw",
    APPENDED: "Anchors appended: to rectified features against to raw ones",
    CONTROL: "Rectified against each control",
    VARIANT: "Other variants against rectified",
    EDITING: "Edge editing against none",
}
SIGNIFICANT = 0.05
BELOW_POPULARITY = "below popularity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """``a`` is compared with ``b``."""

    question: str
    metric: str
    a: Condition
    b: Condition


def compare(results: Results) -> list[dict[str, Any]]:
    """Every comparison that the results allow, in the order of the questions, as JSON-able dicts.

    The keys are those of ``_comparison``, and ``p_holm`` and ``verdict``: better, worse, unclear, untested with one seed, or below popularity
    where the recommender's Recall@20 is less than that of the most popular items. Its training does not fit the log, so it says nothing.
    """
    pairs = [x for condition in results.conditions for x in _pairs(condition, results)]
    pairs = [x for x in pairs if results.seeds(x.a, x.b, metric=x.metric)]
    comparisons = [_comparison(results, x) for x in sorted(pairs, key=lambda x: list(QUESTIONS).index(x.question))]
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for x in comparisons:
        names = ("question", "metric", "kind", "damaged", "share", "noise_kind", "noise_share")
        families.setdefault(tuple(x[name] for name in names), []).append(x)
    for family in families.values():
        corrected = holm([np.nan if x["p"] is None else x["p"] for x in family])
        for x, p in zip(family, corrected, strict=True):
            x["p_holm"] = tidy(p)
            x["verdict"] = x["verdict"] or _verdict(x["difference"]["mean"], x["p_holm"])
    return comparisons


def _pairs(condition: Condition, results: Results) -> Iterator[Pair]:
    """The comparisons that ``condition`` brings: with raw, with rectified, or with the same condition without editing."""
    raw, rectified = (replace(condition, variant=variant) for variant in (RAW, RECTIFIED))
    if condition.variant == RECTIFIED and raw in results.metrics:
        for metric in (RECALL, NDCG) if condition.clean else (RECALL,):
            yield Pair(question=CLEAN if condition.clean else DAMAGE, metric=metric, a=condition, b=raw)
    plain = replace(condition, variant=RAW_APPENDED)
    if condition.variant == RECTIFIED_APPENDED and plain in results.metrics:
        yield Pair(question=APPENDED, metric=RECALL, a=condition, b=plain)
    elif condition.variant not in (RAW, RECTIFIED) and rectified in results.metrics:
        if condition.variant in CONTROLS:
            yield Pair(question=CONTROL, metric=RECALL, a=rectified, b=condition)
        else:
            yield Pair(question=VARIANT, metric=RECALL, a=condition, b=rectified)
    unedited = replace(condition, editing=NONE)
    if condition.editing != NONE and unedited in results.metrics:
        yield Pair(question=EDITING, metric=RECALL, a=condition, b=unedited)


def _comparison(results: Results, pair: Pair) -> dict[str, Any]:
    """The setting of ``pair.a``, both levels, the difference and its p value, and what damage cost and rectification recovered."""
    seeds = results.seeds(pair.a, pair.b, metric=pair.metric)
    a, b = (results.by_user(x, pair.metric, seeds) for x in (pair.a, pair.b))
    difference, relative = mean_estimate(a - b), relative_change(a, b)
    comparison = {
        "question": pair.question,
        "metric": pair.metric,
        **asdict(pair.a),
        "against": pair.b.editing if pair.question == EDITING else pair.b.variant,
        "seeds": len(seeds),
        "a": spread(results.by_seed(pair.a, pair.metric, seeds)),
        "b": spread(results.by_seed(pair.b, pair.metric, seeds)),
        "difference": _interval(difference),
        "relative": None,
        # One training cannot separate a difference between methods from one between two trainings of the same method.
        "p": tidy(difference.p) if len(seeds) > 1 else None,
        "cost": None,
        "recovered": None,
        "verdict": None,
    }
    if _below_popularity(results, pair, seeds):
        return comparison | {"p": None, "verdict": BELOW_POPULARITY}
    # A ratio to what ranks no better than popularity grows without bound, whatever is compared.
    if relative.high - relative.low <= WIDEST and not below_popularity(results, pair.b, seeds):
        comparison["relative"] = _interval(relative)
    clean = pair.b.undamaged
    if pair.question == DAMAGE and pair.a.share and set(seeds) <= set(results.metrics.get(clean, {})):
        before = results.by_user(clean, pair.metric, seeds)
        cost = relative_change(b, before)
        comparison["cost"] = _interval(cost)
        # A share of a cost that may be zero has no meaning, nor has one of a cost too small to divide by.
        if cost.high < 0:
            share = ratio_estimate(a - b, before - b)
            if share.low >= MOST_LOST and share.high <= MOST_RECOVERED:
                comparison["recovered"] = _interval(share)
    return comparison


def _below_popularity(results: Results, pair: Pair, seeds: Sequence[int]) -> bool:
    """Whether both sides rank below popularity, or the recommender ranks below it with raw, undamaged features."""
    plain = replace(pair.b.undamaged, variant=RAW)
    return below_popularity(results, plain, seeds) or all(below_popularity(results, x, seeds) for x in (pair.a, pair.b))


def below_popularity(results: Results, condition: Condition, seeds: Sequence[int]) -> bool:
    """Whether a condition's mean Recall@20 is below that of the most popular items; False where either was not measured."""
    if condition not in results.metrics or not set(seeds) <= set(results.seeds(condition, metric=POPULARITY)):
        return False
    recall, popularity = (results.by_seed(condition, x, seeds).mean() for x in (RECALL, POPULARITY))
    return bool(recall < popularity)


def spread(values: Float64) -> dict[str, Any]:
    """Mean over seeds, sample standard deviation (None for one seed), and the number of seeds."""
    deviation = tidy(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": tidy(values.mean()), "sd": deviation, "seeds": len(values)}


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: tidy(getattr(estimate, name)) for name in ("mean", "low", "high")}


def _verdict(difference: float | None, p: float | None) -> str:
    if p is None or difference is None:
        return "untested"
    if p >= SIGNIFICANT:
        return "unclear"
    return "better" if difference > 0 else "worse"
