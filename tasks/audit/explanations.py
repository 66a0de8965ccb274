"""Why an item is suspect, and an audit's counts, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rectifier_core.base.arrays import Int64
from tasks.audit.findings import Findings
from tasks.report.catalog import Catalog, Majority
from tasks.report.phrases import moved_phrase, number, percent, rate_phrase, stretch_phrase, trust


def reasons(name: str, findings: Findings, catalog: Catalog) -> list[str]:
    """Return one sentence a detailed suspect of a modality."""
    return [
        reason(name, at, findings, catalog, [x for x, _, p in other_places(name, at, findings) if p >= 0.5])
        for at in range(len(findings.searched[name].clear))
    ]


def other_places(name: str, at: int, findings: Findings) -> list[tuple[str, Int64, float]]:
    """Return the other modalities of a suspect: name, nearest items, probability that the feature is the item's own (NaN: unknown)."""
    row = findings.judged[name].listed.rows[at]
    places = ((other, of[at]) for other, of in sorted(findings.placed_by[name].items()))
    return [(other, items, float(findings.judged[other].current[row])) for other, items in places if (items >= 0).any()]


def reason(name: str, at: int, findings: Findings, catalog: Catalog, others: Sequence[str]) -> str:
    """Return which items a suspect's feature resembles, and with which items its buyers and ``others`` place it.

    It names categories where these differ, else titles.
    """
    resembled = findings.searched[name].looks_like[at]
    places = {"its buyers": findings.buyers[name][at]}
    places |= {f"its {other}": findings.placed_by[name][other][at] for other in others}
    by_buyers = (places["its buyers"] >= 0).any()
    places = {who: items for who, items in places.items() if (items >= 0).any()}
    own, majorities = catalog.majority(resembled), {who: catalog.majority(items) for who, items in places.items()}
    if own is not None and any(x is not None and x.category != own.category for x in majorities.values()):
        first = f"its {name} sits with {own.category} ({own.count} of the {own.of} nearest items)"
        clauses = _by_category(majorities)
    else:
        first = (
            f"its {name} sits with {_titles(catalog, resembled)}"
            if (resembled >= 0).any()
            else f"its {name} fits no item well"
        )
        clauses = [f"{_place(who)} it with {_titles(catalog, items)}" for who, items in places.items()]
    nothing = [] if by_buyers else ["it has no interactions to place it by"]
    return "; ".join([first, *nothing, *clauses])


def _by_category(majorities: dict[str, Majority | None]) -> list[str]:
    """Return one clause a category, for all that name it."""
    groups: dict[str, dict[str, str]] = {}
    for who, majority in majorities.items():
        if majority is not None:
            groups.setdefault(majority.category, {})[who] = f"{majority.count} of {majority.of}"
    return [
        f"{_place(*counts)} it with {category} ({' and '.join(counts.values())})" for category, counts in groups.items()
    ]


def _place(*who: str) -> str:
    return f"{' and '.join(who)} {'place' if len(who) > 1 or who == ('its buyers',) else 'places'}"


def _titles(catalog: Catalog, items: Int64) -> str:
    return ", ".join(f"“{name}”" for name in catalog.names(items)[:3])


def describe_audit(result: dict[str, Any]) -> str:
    """Return the lines that the command prints."""
    lines = [f"{result['as_of']}: audited, nothing published"]
    for name, x in result["modalities"].items():
        lines += _modality_lines(name, x)
        by_hand = result["labels"]["modalities"][name] if result["labels"] else None
        if by_hand and (agreement := by_hand["agreement"]):
            after = by_hand["recalibration"]
            interval = f"{percent(after['rate_low'])} to {percent(after['rate_high'])}"
            sample = "" if agreement["like_random"] else " (the labelled items are not a random sample)"
            lines.append(
                f"    {agreement['mismatches']:,} of {agreement['labelled']:,} labelled items are mismatched; "
                f"rate after recalibration {percent(after['rate'])} ({interval}){sample}"
            )
    return "\n".join([*lines, f"page: {result['page']}"])


def none_listed(x: dict[str, Any]) -> str:
    """Return why the list of a modality that could be judged is empty, and what other options would list."""
    if not x["judged"]:
        return "none listed: no item could be judged"
    if x["top"] is not None:
        why = f"--top {x['top']}"
    else:
        bound = "the upper bound of the expected" if x["conservative"] else "the expected"
        why = (
            f"{bound} share of false alarms would be above {percent(x['fdr'])}; the most suspect item's feature is its own "
            f"with probability {trust(x['most_suspect'])}"
        )
    offers = [
        f"{offer['option']} would list {offer['listed']:,} (about {number(offer['expected_false'], 2)} false alarms)"
        for offer in x["offers"]
        if offer["listed"]
    ]
    return "; ".join([f"none listed: {why}", *offers])


def _modality_lines(name: str, x: dict[str, Any]) -> list[str]:
    if x["identifiable"]:
        stretch = f", {stretch_phrase(x)}" if stretch_phrase(x) else ""
        expected, at_most = number(x["expected_false"], 2), number(x["expected_false_at_most"], 2)
        lines = [
            f"  {name}: {rate_phrase(x)} of {x['judged']:,} judged items look mismatched{stretch}",
            f"    {x['suspects']:,} listed, about {expected} of them expected to be false alarms (at most {at_most})"
            if x["suspects"]
            else f"    {none_listed(x)}",
        ]
    else:
        lines = [f"  {name}: mismatches cannot be detected: {x['reason']}"]
    lines.append(f"    of the features that a night publishes, {moved_phrase(x['moved'])}")
    why = "; ".join(f"{count:,} {reason}" for reason, count in x["unjudged"].items())
    if why:
        lines.append(f"    {x['items'] - x['judged']:,} of {x['items']:,} items could not be judged: {why}")
    if check := x["hand_check"]:
        expected = f"expect about {number(check['expected'], 3)} mismatches, {check['low']} to {check['high']}"
        lines.append(f"    of {check['n']:,} drawn for a hand check {expected}")
    return lines
