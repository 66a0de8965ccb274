"""Which conditions of an evaluation are held against which, and what is found: differences, intervals, p values, shares won back.

One bootstrap per backbone draws users and seeds for all of its conditions at once; every interval and p is a function of those draws.
Families for Holm's correction are the questions: all comparisons of one question, over backbones, damage and metrics together. Of the
questions about damage and about controls, the amount of damage that the report opens with is a family of its own: it is the claim, settled
by which cells the grid has and not by what they gave, and a curve drawn with more points must not make it harder to show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float64
from rectifier_core.evaluation.significance import (
    RESAMPLES,
    Difference,
    common_means,
    holm,
    interval,
    ratio,
    resampled_means,
    wilcoxon_paired,
)
from tasks.evaluation.conditions import CONTROLS, NDCG, RAW, RECALL, RECTIFIED, Condition, Grid
from tasks.report.summaries import Facts, tidy

CLEAN, DAMAGE, CONTROL, CONTROL_GAIN, VARIANT = "clean", "damage", "control", "control_gain", "variant"
NOISED, EDITING, ALIGNED = "noised", "editing", "aligned"
QUESTIONS = {
    CLEAN: "rectified against raw, features as they came",
    DAMAGE: "rectified against raw, features damaged",
    CONTROL: "rectified against each control",
    CONTROL_GAIN: "each control against raw (no test: for the picture)",
    VARIANT: "each other variant against rectified",
    NOISED: "rectified against raw, interactions noised or edited",
    EDITING: "each editing against none",
    ALIGNED: "aligned editing against the best fixed choice, which is chosen by its mean afterwards",
}
SAME = "same"
SIGNIFICANT = 0.05
MOST_DRAWS = 1_000_000_000
RESAMPLES_A_PAIR = 100
"""So that no number of comparisons, by which the least p is multiplied, can itself keep a corrected p above 1 %."""
MOST_RESAMPLES = 50_000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """``a`` is held against ``b``; ``clean`` is ``b`` without the damage, where the share won back is asked for."""

    question: str
    metric: str
    a: Condition
    b: Condition
    clean: Condition | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All that take part."""
        return (self.a, self.b) if self.clean is None else (self.a, self.b, self.clean)


def compare(grid: Grid) -> list[Facts]:
    """Every comparison that the grid allows, as dicts in the order of their questions.

    ``p_holm`` and ``verdict`` (better, worse, unclear, untested, same) are taken within a family.
    """
    pairs = [pair for pair in _pairs(grid) if grid.seeds(pair.conditions, pair.metric)]
    replicates = _bootstrap(grid, pairs, resamples_for(grid.num_users, pairs))
    found = [_compared(grid, pair, replicates.get(_draws_key(grid, pair))) for pair in pairs]
    focus = find_focus(found)
    families: dict[tuple[str, bool], list[Facts]] = {}
    # Equal to the last bit is no finding that could be wrong: such a pair is in no family.
    for fact in (x for x in found if x["verdict"] != SAME):
        families.setdefault((fact["question"], in_focus(fact, focus)), []).append(fact)
    for family in families.values():
        for fact, adjusted in zip(family, holm([np.nan if x["p"] is None else x["p"] for x in family]), strict=True):
            fact["p_holm"] = tidy(float(adjusted))
            fact["verdict"] = _verdict(fact["difference"]["mean"], fact["p_holm"])
    return found


def resamples_for(num_users: int, asked: Sequence[Pair] | Sequence[Facts]) -> int:
    """Bootstrap replicates: more for many comparisons of one question, fewer where very many users would make the draws take minutes."""
    questions = Counter(x.question if isinstance(x, Pair) else x["question"] for x in asked)
    wanted = RESAMPLES_A_PAIR * max(questions.values(), default=0)
    return max(1_000, min(max(RESAMPLES, wanted), MOST_RESAMPLES, MOST_DRAWS // max(1, num_users)))


def find_focus(comparisons: Sequence[Facts]) -> Facts:
    """The damage that the opening speaks of: swapped features and all modalities if the grid has them, at the largest share.

    ``control_share`` is the largest at which a control was measured. Only what was measured decides, never what came out.
    """
    plain = [x for x in comparisons if not x["noise_kind"] and not x["editing"]]
    damage = [x for x in plain if x["question"] == DAMAGE and x["relative"]["mean"] is not None]
    controls = [x for x in plain if x["question"] == CONTROL and x["relative"]["mean"] is not None]
    kind = _foremost([x["kind"] for x in damage or controls if x["kind"]], "swap")
    damaged = _foremost([x["damaged"] for x in damage or controls if x["kind"] == kind], "all")
    here = [x for x in damage if (x["kind"], x["damaged"]) == (kind, damaged)]
    shares = sorted({x["share"] for x in here})
    controlled = [x["share"] for x in controls if not x["share"] or (x["kind"], x["damaged"]) == (kind, damaged)]
    return {
        "kind": kind,
        "damaged": damaged,
        "share": shares[-1] if shares else None,
        "shares": shares,
        "control_share": max(controlled, default=None),
    }


def _foremost(names: list[str], favourite: str) -> str:
    if favourite in names or not names:
        return favourite if names else ""
    return Counter(sorted(names)).most_common(1)[0][0]


def in_focus(fact: Facts, focus: Facts) -> bool:
    """Whether a comparison is among those of damaged features, or of controls, that the opening speaks of."""
    share = {DAMAGE: focus["share"], CONTROL: focus["control_share"]}.get(fact["question"])
    if share is None or fact["share"] != share or fact["noise_kind"] or fact["editing"]:
        return False
    return not share or (fact["kind"], fact["damaged"]) == (focus["kind"], focus["damaged"])


def _pairs(grid: Grid) -> Iterator[Pair]:
    found = [pair for condition in grid.conditions for pair in _pairs_of(condition, grid)]
    order = list(QUESTIONS)
    yield from sorted(found, key=lambda pair: order.index(pair.question))


def _pairs_of(a: Condition, grid: Grid) -> Iterator[Pair]:
    """The comparisons in which ``a`` is the one that is asked about."""
    raw, rectified = replace(a, variant=RAW), replace(a, variant=RECTIFIED)
    has = grid.metrics.__contains__
    if a.variant == RECTIFIED and has(raw):
        if not a.plain:
            yield Pair(question=NOISED, metric=RECALL, a=a, b=raw)
        elif not a.share:
            yield from (Pair(question=CLEAN, metric=metric, a=a, b=raw) for metric in (RECALL, NDCG))
        else:
            clean = raw.undamaged
            yield Pair(question=DAMAGE, metric=RECALL, a=a, b=raw, clean=clean if has(clean) else None)
    elif a.variant in CONTROLS:
        if has(rectified):
            yield Pair(question=CONTROL, metric=RECALL, a=rectified, b=a)
        if has(raw):
            yield Pair(question=CONTROL_GAIN, metric=RECALL, a=a, b=raw)
    elif a.variant not in (RAW, RECTIFIED) and has(rectified):
        yield Pair(question=VARIANT, metric=RECALL, a=a, b=rectified)
    if a.editing and has(unedited := replace(a, editing="")):
        yield Pair(question=EDITING, metric=RECALL, a=a, b=unedited)
    if a.editing.startswith(ALIGNED) and (fixed := _best_fixed(a, grid)):
        yield Pair(question=ALIGNED, metric=RECALL, a=a, b=fixed)


def _best_fixed(aligned: Condition, grid: Grid) -> Condition | None:
    """The editing of a fixed strength, or none, with the highest mean in the same setting; None where no strength was tried."""
    tried = [
        c
        for c in grid.conditions
        if replace(c, editing="") == replace(aligned, editing="") and not c.editing.startswith(ALIGNED)
    ]
    measured = [c for c in tried if grid.seeds([c, aligned], RECALL)]
    if not any(c.editing for c in measured):
        return None
    return max(measured, key=lambda c: float(grid.values(c, RECALL, grid.seeds([c, aligned], RECALL)).mean()))


DrawsKey = tuple[str, str, tuple[int, ...]]
Draws = dict[Condition, tuple[float, Float64]]
"""By condition: its mean and the replicates of it [B]."""


def _draws_key(grid: Grid, pair: Pair) -> DrawsKey:
    return pair.a.backbone, pair.metric, grid.seeds(pair.conditions, pair.metric)


def _bootstrap(grid: Grid, pairs: list[Pair], resamples: int) -> dict[DrawsKey, Draws]:
    wanted: dict[DrawsKey, dict[Condition, None]] = {}
    for pair in pairs:
        wanted.setdefault(_draws_key(grid, pair), {}).update(dict.fromkeys(pair.conditions))
    drawn: dict[DrawsKey, Draws] = {}
    for key, conditions in wanted.items():
        values = grid.user_values(conditions, key[1], key[2])
        if values is not None:
            replicates, means = resampled_means(values, seed=SEED, resamples=resamples), common_means(values)
            drawn[key] = {c: (float(means[at]), replicates[:, at]) for at, c in enumerate(conditions)}
    return drawn


def _compared(grid: Grid, pair: Pair, draws: Draws | None) -> Facts:
    seeds = grid.seeds(pair.conditions, pair.metric)
    a, b = (grid.values(c, pair.metric, seeds) for c in (pair.a, pair.b))
    signed = wilcoxon_paired(a, b)
    # One training cannot tell a difference between methods from one between two runs of the same method.
    several = len(seeds) > 1
    fact: Facts = {
        "question": pair.question,
        "metric": pair.metric,
        **{
            name: getattr(pair.a, name)
            for name in ("backbone", "kind", "damaged", "share", "noise_kind", "noise_share")
        },
        **{
            "variant": pair.a.variant,
            "against": pair.b.variant,
            "editing": pair.a.editing,
            "editing_against": pair.b.editing,
        },
        "seeds": len(seeds),
        **{"a": spread(a), "b": spread(b)},
        "wilcoxon": {"p": tidy(signed.p), "pairs": signed.pairs, "smallest": tidy(signed.smallest)}
        if several
        else None,
    }
    fact |= _measured(pair, a, b, draws)
    tested = several and pair.question != CONTROL_GAIN
    fact["test"] = None if not tested else "wilcoxon" if draws is None else "bootstrap"
    p = fact.pop("bootstrap_p")
    fact["p"] = None if not tested else tidy(signed.p) if draws is None else p
    fact["p_holm"], fact["verdict"] = None, SAME if np.array_equal(a, b) else "untested"
    fact["recovered"], fact["cost"] = _recovered(grid, pair, seeds, draws) if pair.clean else (None, None)
    return fact


def _measured(pair: Pair, a: Float64, b: Float64, draws: Draws | None) -> Facts:
    if draws is None:
        change = float((a - b).mean())
        bare = {"low": None, "high": None}
        relative = float(ratio(change, b.mean()))
        return {
            "difference": {"mean": tidy(change), **bare},
            "relative": {"mean": tidy(relative), **bare},
            "bootstrap_p": None,
        }
    (mean_a, draws_a), (mean_b, draws_b) = draws[pair.a], draws[pair.b]
    difference = interval(mean_a - mean_b, draws_a - draws_b)
    relative_change = interval(float(ratio(mean_a - mean_b, mean_b)), ratio(draws_a - draws_b, draws_b))
    return {"difference": _ends(difference), "relative": _ends(relative_change), "bootstrap_p": tidy(difference.p)}


def _recovered(grid: Grid, pair: Pair, seeds: tuple[int, ...], draws: Draws | None) -> tuple[Facts | None, Facts]:
    """The share of the damage's cost that ``a`` wins back, None where the cost is not beyond chance; and the cost relative to clean."""
    assert pair.clean is not None
    if draws is None:
        a, b, clean = (float(grid.values(c, pair.metric, seeds).mean()) for c in pair.conditions)
        bare = {"low": None, "high": None}
        cost = {"mean": tidy(float(ratio(clean - b, clean))), **bare}
        return ({"mean": tidy(float(ratio(a - b, clean - b))), **bare} if clean > b else None), cost
    (a, draws_a), (b, draws_b), (clean, draws_clean) = (draws[c] for c in pair.conditions)
    cost_draws = draws_clean - draws_b
    cost_found = interval(float(ratio(clean - b, clean)), ratio(cost_draws, draws_clean))
    if not cost_found.low > 0:
        return None, _ends(cost_found)
    return _ends(interval(float(ratio(a - b, clean - b)), ratio(draws_a - draws_b, cost_draws))), _ends(cost_found)


def _ends(found: Difference) -> Facts:
    return {"mean": tidy(found.mean), "low": tidy(found.low), "high": tidy(found.high)}


def spread(values: Float64) -> dict[str, Any]:
    """Mean over seeds, sample standard deviation (None for one seed) and their number."""
    return {
        "mean": tidy(float(values.mean())),
        "sd": tidy(float(values.std(ddof=1))) if len(values) > 1 else None,
        "seeds": len(values),
    }


def _verdict(change: float | None, p_holm: float | None) -> str:
    if p_holm is None or change is None:
        return "untested"
    if p_holm >= SIGNIFICANT:
        return "unclear"
    return "better" if change > 0 else "worse"
