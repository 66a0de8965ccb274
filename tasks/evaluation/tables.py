"""The tables of an evaluation and the sentences above them, from the facts that ``tasks.evaluation.report`` gathers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rectifier_core.evaluation.trial import CHANCE, POPULARITY
from tasks.evaluation.comparisons import APPENDED, BELOW_POPULARITY, CLEAN, CONTROL, DAMAGE, EDITING, QUESTIONS
from tasks.evaluation.config import ALL, NONE
from tasks.evaluation.grid import RAW, REFERENCE
from tasks.evaluation.results import RECALL

Facts = dict[str, Any]
DASH = "–"
RANKING = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@20", "epochs")
COMPARED = ("backbone", "setting", "metric", "compared", "against", "mean", "mean of the other")
GROUP = f"{RECALL}_"
BASELINES = {"chance": CHANCE, "popularity": POPULARITY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``rows`` of text under ``head``; the first ``words`` columns are words, the others numbers."""

    key: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


def tables(facts: Facts) -> list[Table]:
    """Every table that has a row, in the order of the report."""
    made = [_comparisons(facts, question, title) for question, title in QUESTIONS.items()]
    return [
        table for table in (_levels(facts), *made, _groups(facts), _measures(facts), _conditions(facts)) if table.rows
    ]


def _references(facts: Facts) -> list[tuple[str, Facts]]:
    """Chance, popularity and the recommender of ids only, with their Recall@20 on undamaged interactions, as far as measured."""
    plain = [x for x in facts["conditions"] if not x["noise_share"] and x["editing"] == NONE]
    measured: Facts = next((x["metrics"] for x in plain if POPULARITY in x["metrics"]), {})
    found = [(name, measured[key]) for name, key in BASELINES.items() if key in measured]
    ids = (x for x in plain if x["backbone"] == REFERENCE)
    return found + [(f"{x['backbone']}, ids only", x["metrics"][RECALL]) for x in ids]


def _levels(facts: Facts) -> Table:
    """Every recommender on clean data, with raw features, beside the references. Without chance and popularity there is no row."""
    clean = [x for x in facts["conditions"] if setting_name(x) == "clean"]
    measured = any(POPULARITY in x["metrics"] for x in facts["conditions"])
    rows = [(name, DASH, level(found), _below(facts, name)) for name, found in _references(facts) if measured]
    for x in (x for x in clean if measured and x["variant"] == RAW and x["backbone"] != REFERENCE):
        rows.append((x["backbone"], RAW, level(x["metrics"][RECALL]), _below(facts, x["backbone"])))
    return Table(
        key="levels",
        title="Is each recommender trained well enough to judge features?",
        note="Recall@20 on unchanged data, mean ± standard deviation over seeds. Chance is a random order, popularity the same most popular "
        "items for everybody. A recommender below popularity gets no verdict.",
        head=("recommender", "features", RECALL, ""),
        rows=tuple(rows),
        words=2,
    )


def _below(facts: Facts, name: str) -> str:
    """The note of a recommender that ranks below popularity on clean data with raw features."""
    for x in facts["conditions"]:
        if name.startswith(x["backbone"]) and setting_name(x) == "clean" and x["variant"] == RAW:
            own, popularity = x["metrics"][RECALL]["mean"], x["metrics"].get(POPULARITY, {"mean": 0})["mean"]
            return BELOW_POPULARITY if own < popularity else ""
    return ""


def _comparisons(facts: Facts, question: str, title: str) -> Table:
    rows: list[tuple[str, ...]] = []
    for x in facts["comparisons"]:
        if x["question"] == question:
            edited = question == EDITING
            rows.append(
                (
                    x["backbone"],
                    setting_name(x | {"editing": NONE} if edited else x),
                    x["metric"],
                    (x["editing"] if edited else x["variant"]).replace("_", " "),
                    x["against"].replace("_", " "),
                    level(x["a"]),
                    level(x["b"]),
                    _change(x),
                    p_value(x["p_holm"]),
                    percent(x["cost"] and x["cost"]["mean"], sign=True),
                    interval(x["recovered"], sign=False),
                    str(x["seeds"]),
                )
            )
    head = (*COMPARED, "change (95 % interval)", "p, corrected", "cost of the damage", "share recovered", "seeds")
    kept = [at for at in range(len(head)) if any(row[at] != DASH for row in rows)]
    note = (
        "Mean ± standard deviation over seeds. Changes are relative to the mean of the other, or absolute where that is below popularity. "
        "A dash is a change too uncertain to give."
    )
    # Rows that say how much the levels are worth.
    empty = (DASH,) * (len(head) - len(COMPARED))
    for name, found in _references(facts) if rows else ():
        rows.append((name, DASH, RECALL, DASH, DASH, level(found), DASH, *empty))
    return Table(
        key=question,
        title=title,
        note=note,
        head=tuple(head[at] for at in kept),
        rows=tuple(tuple(row[at] for at in kept) for row in rows),
        words=5,
    )


def _change(x: Facts) -> str:
    """A comparison's change: relative, absolute where the other ranks below popularity, or why there is none."""
    if x["verdict"] == BELOW_POPULARITY:
        return BELOW_POPULARITY
    if x["relative"] is None and x["verdict"] in ("better", "worse"):
        return f"{x['difference']['mean']:+.4f} absolute"
    return interval(x["relative"])


def _groups(facts: Facts) -> Table:
    """Relative change of Recall@20 from raw to rectified by kind of user and item, a column a backbone."""
    found = facts["groups"]
    backbones = list(dict.fromkeys(x["backbone"] for x in found))
    changes = {(setting_name(x), x["group"], x["backbone"]): x["change"] for x in found}
    rows = [
        (setting, group.replace("_", " "), *(level(changes.get((setting, group, name))) for name in backbones))
        for setting, group in dict.fromkeys(key[:2] for key in changes)
    ]
    return Table(
        key="groups",
        title="Groups of users and items: relative change of Recall@20 from raw to rectified",
        note="Mean ± standard deviation over seeds; .02 is 2 %. Users are in thirds by their number of training pairs. Items are in three "
        "bands with a third of the training pairs each. Touched items have a damaged feature.",
        head=("setting", "group", *backbones),
        rows=tuple(rows),
        words=2,
    )


def _measures(facts: Facts) -> Table:
    """What the features and the editing are like, whatever backbone reads them."""
    known = (*RANKING, "best_epoch", *BASELINES.values())
    other = {x: None for c in facts["conditions"] for x in c["metrics"] if not x.startswith(known)}
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for x in facts["conditions"]:
        values = tuple(level(x["metrics"].get(name)) for name in other)
        if any(value != DASH for value in values):
            rows.setdefault((setting_name(x), x["variant"].replace("_", " ")), values)
    return Table(
        key="measures",
        title="Measures of the features and of the editing",
        note="Closeness: how often a held-out item is nearer to its user's items than a random one; 0.5 is chance.",
        head=("setting", "features", *(name.replace("_", " ") for name in other)),
        rows=tuple((*key, *values) for key, values in rows.items()),
        words=2,
    )


def _conditions(facts: Facts) -> Table:
    rows = []
    for x in facts["conditions"]:
        values = x["metrics"]
        cells = (level(values.get(name)) for name in RANKING)
        words = (x["backbone"], setting_name(x), x["variant"].replace("_", " "), str(values[RECALL]["seeds"]))
        rows.append((*words, *cells))
    for name, found in _references(facts)[: len(BASELINES)]:
        values = (level(found) if x == RECALL else DASH for x in RANKING)
        rows.append((name, "clean", DASH, str(found["seeds"]), *values))
    return Table(
        key="all",
        title="Every condition",
        note="Mean ± standard deviation over seeds.",
        head=("backbone", "setting", "features", "seeds", *RANKING),
        rows=tuple(rows),
        words=3,
    )


def sentences(facts: Facts) -> list[str]:
    """What the comparisons show: the grid, clean features, the strongest damage, the share recovered, controls, and editing."""
    source = facts["source"]
    grid = f"The grid has {len(source['backbones'])} backbones, {source['seeds']} seeds, {source['cells']} cells and "
    grid += f"{source['users']:,} test users."
    if source["seeds"] == 1:
        grid += " One seed allows no test."
    judged = [x for x in facts["comparisons"] if x["verdict"] != BELOW_POPULARITY]
    below = dict.fromkeys(x["backbone"] for x in facts["comparisons"] if x["verdict"] == BELOW_POPULARITY)
    warning = (
        f"No verdict where a recommender ranks below popularity: {', '.join(below)}. Its training does not fit this log."
        " Set learning_rate in evaluation.training and weight_decay in evaluation.models for it, then run again."
    )
    plain = [x for x in judged if x["metric"] == RECALL and not x["noise_share"] and x["editing"] == NONE]
    clean, damage, controls = ([x for x in plain if x["question"] == name] for name in (CLEAN, DAMAGE, CONTROL))
    strongest = max(damage or controls, key=_claim, default=None)
    damage, controls = ([x for x in part if _claim(x) == _claim(strongest)] for part in (damage, controls))
    recovered = [f"{x['backbone']} {interval(x['recovered'], sign=False)}" for x in damage if x["recovered"]]
    edited, appended = ([x for x in judged if x["question"] == name] for name in (EDITING, APPENDED))
    made = (
        (below, warning),
        (clean, f"On clean features, rectified against raw in Recall@20: {_counts(clean)}."),
        (damage, f"With {setting_name(strongest or {})}, rectified against raw in Recall@20: {_counts(damage)}."),
        (appended, f"Anchors appended to rectified against to raw features in Recall@20: {_counts(appended)}."),
        (recovered, f"Share of the damage's cost that rectification recovers: {', '.join(recovered)}."),
        (
            controls,
            f"With {setting_name(strongest or {})}, rectified against the controls: {_counts(controls, 'against')}.",
        ),
        (edited, f"Edge editing against none in Recall@20: {_counts(edited, 'editing')}."),
    )
    return [grid, *(sentence for found, sentence in made if found)]


def _claim(x: Facts | None) -> tuple[Any, ...]:
    """The damage that the sentences are about: swaps first, then all modalities, then the largest share."""
    return () if x is None else (x["kind"] == "swap", x["damaged"] == ALL, x["share"], x["kind"], x["damaged"])


def _counts(comparisons: Sequence[Facts], other: str = "") -> str:
    """``better 2 of 4 (vbpr +5.0 %, …), worse 1 of 4 (…)``.

    ``other`` is the key that names a rival beside the backbone. Rivals that are beaten are counted, not named.
    """

    def parts() -> Iterator[str]:
        for verdict in ("better", "worse", "unclear", "untested"):
            found = [x for x in comparisons if x["verdict"] == verdict]
            if found:
                named = (f"{x['backbone']} {x[other]}" if other else x["backbone"] for x in found)
                changes = (
                    f"{name} {percent(x['relative']['mean'])}" if x["relative"] else name
                    for name, x in zip(named, found, strict=True)
                )
                named_all = "" if verdict == "better" and other == "against" else f" ({', '.join(changes)})"
                yield f"{verdict} {len(found)} of {len(comparisons)}{named_all}".replace("_", " ")

    return ", ".join(parts())


def setting_name(x: Facts) -> str:
    """``clean``, or what was done to features, interactions and edges: ``swap 40 % of all features, random clicks 10 %``."""
    parts = [f"{x['kind']} {percent(x['share'], sign=False)} of {x['damaged']} features"] if x.get("share") else []
    parts += [f"{x['noise_kind']} clicks {percent(x['noise_share'], sign=False)}"] if x.get("noise_share") else []
    parts += [f"editing {x['editing']}".replace("_", " ")] if x.get("editing", NONE) != NONE else []
    return ", ".join(parts) or "clean"


def level(found: Facts | None) -> str:
    """``0.1712 ± 0.0009``, the mean alone with one seed."""
    if found is None or found["mean"] is None:
        return DASH
    return f"{found['mean']:.4g}" + ("" if found["sd"] is None else f" ± {found['sd']:.2g}")


def interval(found: Facts | None, *, sign: bool = True) -> str:
    """``+2.3 % (+1.1 % to +3.4 %)``."""
    if found is None or found["mean"] is None:
        return DASH
    mean, low, high = (percent(found[name], sign=sign) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def percent(value: float | None, *, sign: bool = True) -> str:
    """A share as a percentage with one decimal, with its sign for a change."""
    if value is None:
        return DASH
    rounded = round(100 * value, 1) or 0.0
    return f"{rounded:+.1f} %" if sign and rounded else f"{rounded:g} %"


def p_value(p: float | None) -> str:
    """``.034``, ``< .001``, or a dash without a test."""
    if p is None:
        return DASH
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, without its title."""
    rule = ["---"] * table.words + ["---:"] * (len(table.head) - table.words)
    lines = (table.head, rule, *table.rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
