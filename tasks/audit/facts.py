"""An audit as one JSON-able dict of constant size: the command's last line, and with the suspects that are shown, the page's twin."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float64, Int64
from tasks.audit.explanations import Catalog, reason
from tasks.audit.findings import WHY, Findings, Judged
from tasks.audit.inputs import AuditInputs, AuditOptions
from tasks.audit.labels import Labels
from tasks.audit.page import safe_picture
from tasks.report.suspects import LONGEST_ID, shorten
from tasks.store.store import plain

SHOWN = 50
SHOWN_OWNERS = 5
SHOWN_GROUPS = 20


def summarise(inputs: AuditInputs, options: AuditOptions, labels: Labels | None, found: Findings) -> dict[str, Any]:
    """The counts of an audit, each beside what it is a count of."""
    modalities = {
        name: _modality(found.judged[name], found.searched[name].clear, options) for name in sorted(found.judged)
    }
    given = None
    if labels is not None:
        given = {
            "unlabelled": labels.unlabelled,
            "unknown_items": labels.unknown_items,
            "contradicted": labels.contradicted,
            "modalities": {m: _by_labels(found.judged[m], len(labels.rows[m])) for m in sorted(found.judged)},
        }
    return {"run_id": inputs.run_id, "as_of": inputs.as_of, "modalities": modalities, "labels": given}


def _modality(judged: Judged, clear: Int64, options: AuditOptions) -> dict[str, Any]:
    trust, why, listed = judged.trust, judged.why, judged.listed
    counts = {reason: int((why == at).sum()) for at, reason in enumerate(WHY)}
    return plain(  # type: ignore[no-any-return]
        {
            "mismatch_rate": trust.mismatch_rate,
            "low": trust.low,
            "high": trust.high,
            "low_unlike": trust.low_unlike,
            "high_unlike": trust.high_unlike,
            "identifiable": trust.identifiable,
            "separation": trust.separation,
            "reason": trust.reason,
            "items": len(why),
            "judged": listed.judged,
            "unjudged": {reason: count for reason, count in counts.items() if count},
            "suspects": len(listed.rows),
            "expected_false": _sum(judged.expected),
            "expected_false_share": float(judged.expected[-1]) if len(listed.rows) else None,
            "expected_false_at_most": _sum(judged.at_most),
            "fdr": options.fdr if options.top is None else None,
            "top": options.top,
            "recalibrated": judged.recalibration is not None,
            "suspects_with_owners_searched": len(clear),
            "clear_owners": int((clear >= 0).sum()),
            "placeholders": int(judged.copies.placeholder.sum()),
            "placeholder_groups": int(judged.copies.unlike.sum()),
            "hand_check": None if judged.forecast is None else asdict(judged.forecast),
            "hand_check_unlike": None if judged.forecast_unlike is None else asdict(judged.forecast_unlike),
        }
    )


def _by_labels(judged: Judged, labelled: int) -> dict[str, Any]:
    mended = judged.recalibration
    if mended is None:
        return {"labelled": labelled, "agreement": None}
    values = {
        name: getattr(mended, name) for name in ("shift", "slope", "rate", "rate_low", "rate_high", "brier", "log_loss")
    }
    trust, agreement = judged.trust, mended.agreement
    inside = None
    if trust.low is not None and trust.high is not None:
        inside = agreement.rate_high >= trust.low and agreement.rate_low <= trust.high
    agreed = asdict(agreement) | {"intervals_overlap": inside}
    return plain({"labelled": labelled, "agreement": agreed, "recalibration": values})  # type: ignore[no-any-return]


def gallery(name: str, found: Findings, catalog: Catalog, shown: int = SHOWN) -> list[dict[str, Any]]:
    """The first suspects of a modality as the page shows them: the item, where its feature belongs, where buyers and others place it."""
    judged, searched = found.judged[name], found.searched[name]
    cards = []
    for at, row in enumerate(judged.listed.rows[: min(shown, len(searched.clear))].tolist()):
        others = {
            other: (places[at], float(found.judged[other].current[row]))
            for other, places in found.says[name].items()
            if found.judged[other].trust.identifiable and (places[at] >= 0).any()
        }
        heard = {other: places for other, (places, p) in others.items() if p >= 0.5}
        cards.append(
            {
                **item_card(row, catalog, with_picture=True),
                "rank": at + 1,
                "probability": _number(judged.current[row]),
                "estimated_probability": _number(judged.trust.probability[row]),
                "innocent_share": _number(judged.expected[at]),
                "interactions": int(found.interactions[row]),
                "reliability": _number(found.reliability[row]),
                "reason": reason(name, searched.looks_like[at], found.buyers[name][at], heard, catalog),
                "owners": _owners(at, found, name, catalog),
                "clear_owner": item_card(int(searched.clear[at]), catalog) if searched.clear[at] >= 0 else None,
                "features": [item_card(other, catalog) for other in _kept(searched.features.others[at])],
                "buyers": [item_card(other, catalog) for other in _kept(found.buyers[name][at])],
                "others": [
                    {
                        "modality": other,
                        "probability": _number(p),
                        "items": [item_card(x, catalog) for x in _kept(places)],
                    }
                    for other, (places, p) in sorted(others.items())
                ],
            }
        )
    return cards


def placeholder_groups(judged: Judged, catalog: Catalog) -> list[dict[str, Any]]:
    """The largest groups of unlike items that share a feature, each with a few members."""
    groups = []
    for group in np.flatnonzero(judged.copies.unlike)[:SHOWN_GROUPS].tolist():
        members = np.flatnonzero(judged.copies.group == group)
        likeness = _number(judged.copies.likeness[group])
        cards = [item_card(row, catalog) for row in members[:SHOWN_OWNERS].tolist()]
        groups.append({"items": len(members), "likeness": likeness, "members": cards})
    return groups


def item_card(row: int, catalog: Catalog, *, with_picture: bool = False) -> dict[str, Any]:
    """What names an item on the page."""
    at = np.array([row], np.int64)
    card = {"item_id": shorten(catalog.ids[row].item(), LONGEST_ID)}
    card |= {part: shorten(catalog.column(part, at)[0]) for part in ("title", "category")}
    return card | {"picture": safe_picture(catalog.column("picture", at)[0])} if with_picture else card


def _owners(at: int, found: Findings, name: str, catalog: Catalog) -> list[dict[str, Any]]:
    owners, cards = found.searched[name].owners, []
    for place, row in enumerate(_kept(owners.others[at])):
        numbers = {"probability": _number(owners.probability[at, place]), "cosine": _number(owners.cosine[at, place])}
        cards.append(item_card(row, catalog, with_picture=not place) | numbers)
    return cards


def _kept(rows: Int64) -> list[int]:
    found: list[int] = rows[rows >= 0][:SHOWN_OWNERS].tolist()
    return found


def _sum(share: Float64) -> float:
    """The count that a share down a list ends at."""
    return float(share[-1] * len(share)) if len(share) else 0.0


def _number(value: Any) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
