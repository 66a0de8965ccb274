"""The tables of an evaluation, from the report's facts, for its page and for documents in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tasks.evaluation.comparisons import ALIGNED, CLEAN, CONTROL, DAMAGE, EDITING, NOISED, VARIANT
from tasks.evaluation.conditions import RECALL
from tasks.evaluation.phrases import (
    CLEAN_LABEL,
    amount_label,
    editing_name,
    marked,
    metric_name,
    noise_phrase,
    p_value,
    seeds_p,
    share_with_interval,
    signed,
    variant_name,
    with_interval,
)
from tasks.report.phrases import number
from tasks.report.summaries import Facts

_DASH = "\u2013"
_PREFIXES = ("closeness_", "strength_", "rectified_share_", "mismatch_rate_", "hub_")
_EDIT = "edit_"
_FIRST = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@20")
_LAST = ("epochs",)
_SIDES = ("raw", "rectified")
_WHERE = ("backbone", "damage")
_TESTED = ("p, corrected", "p, Wilcoxon", "seeds")
_SETTING = (*_WHERE, "interactions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``rows`` of cells under ``head``, of which the first ``words`` are text and the rest numbers."""

    key: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


def tables(facts: Facts) -> list[Table]:
    """Every table that has a row, in the order of the report."""
    made = [
        _question(facts, CLEAN, "Clean features: rectified against raw", _clean_row, ("backbone", "metric"), _SIDES),
        _damage(facts),
        _question(
            facts,
            CONTROL,
            "Rectified against each control",
            _control_row,
            (*_WHERE, "control"),
            ("control", "rectified"),
        ),
        _question(
            facts,
            VARIANT,
            "Other variants against rectified",
            _variant_row,
            (*_WHERE, "variant"),
            ("rectified", "variant"),
        ),
        _question(
            facts,
            NOISED,
            "Rectified against raw on noised or edited interactions",
            _noised_row,
            (*_SETTING, "editing"),
            _SIDES,
        ),
        _question(
            facts,
            EDITING,
            "Edge editing against none",
            _editing_row,
            (*_SETTING, "features", "editing"),
            ("none", "edited"),
        ),
        _question(
            facts,
            ALIGNED,
            "Aligned editing against the best fixed",
            _aligned_row,
            (*_SETTING, "features", "best fixed"),
            ("fixed", "aligned"),
        ),
        _groups(facts),
        _facts_of_variants(facts),
        _facts_of_edits(facts),
        _everything(facts),
    ]
    return [_without_clean(table) for table in made if table.rows]


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, without its title."""
    rule = ["---"] * table.words + ["---:"] * (len(table.head) - table.words)
    rows = (table.head, rule, *table.rows)
    return "\n".join(
        "| " + " | ".join(starred(cell).replace("|", "\\|").replace("\u00a0", " ") for cell in row) + " |"
        for row in rows
    )


def starred(text: str) -> str:
    """Text whose stars Markdown must not take for emphasis."""
    return text.replace("*", "\\*")


def _without_clean(table: Table) -> Table:
    """The table less its columns that say ``clean`` in every row."""
    kept = [
        at for at in range(len(table.head)) if at >= table.words or any(row[at] != CLEAN_LABEL for row in table.rows)
    ]
    rows = tuple(tuple(row[at] for at in kept) for row in table.rows)
    words = table.words - (len(table.head) - len(kept))
    return replace(table, head=tuple(table.head[at] for at in kept), rows=rows, words=words)


def mean_sd(found: Facts | None) -> str:
    """``0.1712 ± 0.0009``; the mean alone with one seed."""
    if found is None or found["mean"] is None:
        return _DASH
    return _level(found["mean"]) + ("" if found["sd"] is None else f" ± {_level(found['sd'])}")


def _level(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else number(value)


def _question(
    facts: Facts,
    question: str,
    title: str,
    row: Callable[[Facts], tuple[str, ...]],
    words: tuple[str, ...],
    sides: tuple[str, str],
) -> Table:
    metric = "" if question == CLEAN else f" in {metric_name(RECALL)}"
    return Table(
        key=question,
        title=f"{title}{metric}",
        note="",
        head=(*words, *sides, "change (95 % interval)", *_TESTED),
        rows=tuple(row(x) for x in _of(facts, question)),
        words=len(words),
    )


def _of(facts: Facts, question: str) -> Iterator[Facts]:
    return (x for x in facts["comparisons"] if x["question"] == question)


def _tested(x: Facts) -> tuple[str, ...]:
    """Change, corrected p with its marks, the Wilcoxon p, and the number of seeds."""
    marks = marked(x["p_holm"])
    corrected = "equal" if x["verdict"] == "same" else p_value(x["p_holm"]) + (f" {marks}" if marks else "")
    return with_interval(x["relative"]), corrected, seeds_p(x["wilcoxon"] and x["wilcoxon"]["p"]), str(x["seeds"])


def _clean_row(x: Facts) -> tuple[str, ...]:
    return x["backbone"], metric_name(x["metric"]), mean_sd(x["b"]), mean_sd(x["a"]), *_tested(x)


def _damage(facts: Facts) -> Table:
    rows = []
    for x in _of(facts, DAMAGE):
        back = share_with_interval(x["recovered"])
        cost = _DASH if x["cost"] is None else signed(None if x["cost"]["mean"] is None else -x["cost"]["mean"])
        rows.append(
            (
                x["backbone"],
                amount_label(x),
                mean_sd(x["b"]),
                mean_sd(x["a"]),
                cost,
                *_tested(x)[:1],
                back,
                *_tested(x)[1:],
            )
        )
    return Table(
        key=DAMAGE,
        title="Damaged features: rectified against raw in Recall@20",
        note="The damage's cost is what raw features lose by it; won back is (rectified − raw) / (raw on clean features − raw), where that "
        "cost is beyond chance.",
        head=(*_WHERE, *_SIDES, "cost of the damage", "gain (95 % interval)", "won back", *_TESTED),
        rows=tuple(rows),
        words=2,
    )


def _control_row(x: Facts) -> tuple[str, ...]:
    return x["backbone"], _damage_of(x), variant_name(x["against"]), mean_sd(x["b"]), mean_sd(x["a"]), *_tested(x)


def _variant_row(x: Facts) -> tuple[str, ...]:
    return x["backbone"], _damage_of(x), variant_name(x["variant"]), mean_sd(x["b"]), mean_sd(x["a"]), *_tested(x)


def _noised_row(x: Facts) -> tuple[str, ...]:
    return *_setting(x), editing_name(x["editing"]), mean_sd(x["b"]), mean_sd(x["a"]), *_tested(x)


def _editing_row(x: Facts) -> tuple[str, ...]:
    return (
        *_setting(x),
        variant_name(x["variant"]),
        editing_name(x["editing"]),
        mean_sd(x["b"]),
        mean_sd(x["a"]),
        *_tested(x),
    )


def _aligned_row(x: Facts) -> tuple[str, ...]:
    return (
        *_setting(x),
        variant_name(x["variant"]),
        editing_name(x["editing_against"]),
        mean_sd(x["b"]),
        mean_sd(x["a"]),
        *_tested(x),
    )


def _setting(x: Facts) -> tuple[str, ...]:
    return x["backbone"], amount_label(x), noise_phrase(x)


def _damage_of(x: Facts) -> str:
    return amount_label(x) if not x["noise_kind"] and not x["editing"] else f"{amount_label(x)}; {_interactions(x)}"


def _interactions(x: Facts) -> str:
    said = [noise_phrase(x)] if x["noise_kind"] else []
    return ", ".join([*said, editing_name(x["editing"])] if x["editing"] else said)


def _groups(facts: Facts) -> Table:
    """Relative change of recall by kind of user and item: a line a group, a column a backbone."""
    found = facts["groups"]
    backbones = list(dict.fromkeys(x["backbone"] for x in found))
    keys = list(dict.fromkeys((amount_label(x), x["metric"]) for x in found))
    by = {(amount_label(x), x["metric"], x["backbone"]): x["change"] for x in found}
    rows = tuple(
        (damage, _group_name(metric), *(_change(by.get((damage, metric, name))) for name in backbones))
        for damage, metric in keys
    )
    return Table(
        key="groups",
        title="Who gains: Recall@20 of rectified against raw by kind of user and item",
        note="Relative change, mean ± standard deviation over seeds. Users and items are in thirds by how much of them is known.",
        head=("damage", "group", *backbones),
        rows=rows,
        words=2,
    )


def _group_name(metric: str) -> str:
    group = metric.removeprefix(f"{RECALL}_")
    known = {
        "users_few": "users with few",
        "users_some": "users with some",
        "users_many": "users with many",
        "touched": "damaged items",
    }
    return {"untouched": "undamaged items", **known}.get(group, group.replace("_", ": ", 1).replace("_", " "))


def _change(found: Facts | None) -> str:
    if found is None or found["mean"] is None:
        return _DASH
    return signed(found["mean"]) + ("" if found["sd"] is None else f" ± {signed(found['sd']).lstrip('+')}")


def _facts_of_variants(facts: Facts) -> Table:
    """What the features themselves say, which no backbone has a part in: closeness of held-out pairs, strengths, hubs."""
    conditions = facts["conditions"]
    names = _names(conditions, lambda name: name.startswith(_PREFIXES))
    return Table(
        key="features",
        title="The features themselves",
        note="Closeness is how often a held-out item lies nearer to its user's items than another one does; 0.5 is chance.",
        head=("damage", "features", *(name.replace("_", " ") for name in names)),
        rows=_first_said([((_damage_of(x), variant_name(x["variant"])), x["metrics"]) for x in conditions], names),
        words=2,
    )


def _first_said(found: Sequence[tuple[tuple[str, ...], Facts]], names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """A row a key: what the first of its conditions says of ``names``, where it says anything."""
    rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    for key, metrics in found:
        if key not in rows and any(name in metrics for name in names):
            rows[key] = tuple(mean_sd(metrics.get(name)) for name in names)
    return tuple((*key, *values) for key, values in rows.items())


def _facts_of_edits(facts: Facts) -> Table:
    """How strong each editing was and what its strength was set from."""
    edited = [x for x in facts["conditions"] if x["editing"]]
    names = _names(edited, lambda name: name.startswith(_EDIT))
    return Table(
        key="edits",
        title="The editings themselves",
        note="",
        head=("interactions", "editing", *(name.removeprefix(_EDIT).replace("_", " ") for name in names)),
        rows=_first_said([((noise_phrase(x), editing_name(x["editing"])), x["metrics"]) for x in edited], names),
        words=2,
    )


def _everything(facts: Facts) -> Table:
    conditions = facts["conditions"]
    present = _names(conditions, lambda _: True)
    names = [name for name in (*_FIRST, *_LAST) if name in present]
    rows = []
    for x in conditions:
        values = x["metrics"]
        cells = [mean_sd(values.get(name)) for name in names]
        seeds = str(max((found["seeds"] for found in values.values()), default=0))
        rows.append((*_setting(x), variant_name(x["variant"]), editing_name(x["editing"]), seeds, *cells))
    return Table(
        key="all",
        title="Every condition",
        note="Mean ± standard deviation over seeds.",
        head=(*_SETTING, "features", "editing", "seeds", *(metric_name(name) for name in names)),
        rows=tuple(rows),
        words=5,
    )


def _names(conditions: Sequence[Facts], wanted: Callable[[str], bool]) -> list[str]:
    return list(dict.fromkeys(name for x in conditions for name in x["metrics"] if wanted(name)))
