"""An audit as JSON values: the counts of the command's result, and the content of the page. Neither grows with the catalog."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float64, Int64
from tasks.audit.explanations import other_places, reason
from tasks.audit.findings import WHY, Findings, Judged
from tasks.audit.inputs import AuditInputs, AuditOptions
from tasks.audit.labels import Labels
from tasks.audit.page import safe_picture
from tasks.report.catalog import Catalog, shorten
from tasks.stages.quality import count_moved
from tasks.store.store import plain

SHOWN = 50
SHOWN_ITEMS = 5
SHOWN_GROUPS = 20
LONGEST_TEXT = 400
_RATE = ("mismatch_rate", "low", "high", "low_unlike", "high_unlike", "identifiable", "separation", "reason")
_RECALIBRATION = ("shift", "slope", "rate", "rate_low", "rate_high", "brier", "log_loss")


def summarise(inputs: AuditInputs, options: AuditOptions, labels: Labels | None, findings: Findings) -> dict[str, Any]:
    """Return the counts of an audit, each with the number it is a part of."""
    judged = dict(sorted(findings.judged.items()))
    summary: dict[str, Any] = {
        "run_id": inputs.run_id,
        "as_of": inputs.as_of,
        "modalities": {m: _modality(x, findings.searched[m].clear, options) for m, x in judged.items()},
        "labels": None,
    }
    if labels is not None:
        summary["labels"] = {
            "unlabelled": labels.unlabelled,
            "unknown_items": labels.unknown_items,
            "contradicted": labels.contradicted,
            "modalities": {m: _by_labels(x, len(labels.rows[m])) for m, x in judged.items()},
        }
    return plain(summary)  # type: ignore[no-any-return]


def _modality(judged: Judged, clear: Int64, options: AuditOptions) -> dict[str, Any]:
    counts = {reason: int((judged.why == at).sum()) for at, reason in enumerate(WHY)}
    return {
        **{name: getattr(judged.trust, name) for name in _RATE},
        "items": len(judged.why),
        "judged": judged.listed.judged,
        "unjudged": {reason: count for reason, count in counts.items() if count},
        "suspects": len(judged.listed.rows),
        "expected_false": _sum(judged.expected),
        "expected_false_share": float(judged.expected[-1]) if len(judged.expected) else None,
        "expected_false_at_most": _sum(judged.at_most),
        "fdr": options.share if options.top is None else None,
        "top": options.top,
        "conservative": options.conservative,
        "most_suspect": _number(np.nanmin(judged.current)) if judged.listed.judged else None,
        "offers": [asdict(x) for x in judged.offers],
        "recalibrated": judged.recalibration is not None,
        "suspects_with_owners_searched": len(clear),
        "clear_owners": int((clear >= 0).sum()),
        "moved": count_moved(judged.moved),
        "placeholders": int(judged.copies.placeholder.sum()),
        "placeholder_groups": int(judged.copies.unlike.sum()),
        "hand_check": None if judged.forecast is None else asdict(judged.forecast),
        "hand_check_unlike": None if judged.forecast_unlike is None else asdict(judged.forecast_unlike),
    }


def _by_labels(judged: Judged, labelled: int) -> dict[str, Any]:
    recalibration, trust = judged.recalibration, judged.trust
    if recalibration is None:
        return {"labelled": labelled, "agreement": None}
    agreement, overlap = recalibration.agreement, None
    if trust.low is not None and trust.high is not None:
        overlap = agreement.rate_high >= trust.low and agreement.rate_low <= trust.high
    return {
        "labelled": labelled,
        "agreement": asdict(agreement) | {"intervals_overlap": overlap},
        "recalibration": {name: getattr(recalibration, name) for name in _RECALIBRATION},
    }


def gallery(name: str, findings: Findings, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the first suspects of a modality as cards: the item, its likely owners, and where buyers and other modalities place it."""
    judged, searched, buyers = findings.judged[name], findings.searched[name], findings.buyers[name]
    cards = []
    for at, row in enumerate(judged.listed.rows[: min(SHOWN, len(searched.clear))].tolist()):
        others = other_places(name, at, findings)
        own = [other for other, _, probability in others if probability >= 0.5]
        cards.append(
            {
                **full_card(row, catalog),
                "rank": at + 1,
                "probability": _number(judged.current[row]),
                "estimated_probability": _number(judged.trust.probability[row]),
                "false_alarm_share": _number(judged.expected[at]),
                "moved": _number(judged.moved[row]),
                "interactions": int(findings.interactions[row]),
                "reliability": _number(findings.reliability[row]),
                "reason": reason(name, at, findings, catalog, own),
                "owners": _owners(name, at, findings, catalog),
                "clear_owner": catalog.card(int(searched.clear[at])) if searched.clear[at] >= 0 else None,
                "features": _cards(searched.features.others[at], catalog),
                "buyers": _cards(buyers[at], catalog),
                "others": [
                    {"modality": other, "probability": _number(probability), "items": _cards(items, catalog)}
                    for other, items, probability in others
                ],
            }
        )
    return cards


def hand_check_gallery(name: str, findings: Findings, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the first items of the hand check as cards, in the order drawn, without any estimate."""
    drawn, buyers = findings.judged[name].drawn[:SHOWN].tolist(), findings.drawn_buyers[name]
    return [
        {**full_card(row, catalog), "buyers": _cards(near, catalog)} for row, near in zip(drawn, buyers, strict=False)
    ]


def placeholder_groups(judged: Judged, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the largest groups of unlike items that share a feature, each with a few members."""
    groups = []
    for group in np.flatnonzero(judged.copies.unlike)[:SHOWN_GROUPS].tolist():
        members = np.flatnonzero(judged.copies.group == group)
        likeness = _number(judged.copies.likeness[group])
        groups.append({"items": len(members), "likeness": likeness, "members": _cards(members, catalog)})
    return groups


def full_card(row: int, catalog: Catalog) -> dict[str, Any]:
    """Return an item's card with its text and picture."""
    text, picture = shorten(catalog.text("text", row), LONGEST_TEXT), safe_picture(catalog.text("picture", row))
    return catalog.card(row) | {"text": text, "picture": picture}


def _owners(name: str, at: int, findings: Findings, catalog: Catalog) -> list[dict[str, Any]]:
    owners, cards = findings.searched[name].owners, []
    for place, row in enumerate(_first(owners.others[at])):
        card = catalog.card(row) if place else full_card(row, catalog)
        numbers = {"probability": _number(owners.probability[at, place]), "cosine": _number(owners.cosine[at, place])}
        cards.append(card | numbers)
    return cards


def _cards(rows: Int64, catalog: Catalog) -> list[dict[str, Any]]:
    return [catalog.card(row) for row in _first(rows)]


def _first(rows: Int64) -> list[int]:
    first: list[int] = rows[rows >= 0][:SHOWN_ITEMS].tolist()
    return first


def _sum(share: Float64) -> float:
    """Return the expected count at the end of a list, from the shares down the list."""
    return float(share[-1] * len(share)) if len(share) else 0.0


def _number(value: Any) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
