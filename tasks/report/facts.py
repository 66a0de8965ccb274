"""All that the report shows, as one JSON-able dict of constant size.

Shape (``null`` where a number does not exist; a share is ``{count, of}``)::

    format            3
    run               outcome, headline, sentence, run_id, as_of, table_uri, table_version, elapsed_seconds, peak_memory_bytes,
                      memory_limit
    summaries         [{modality, wrong, changed}]: two lines per modality
    read              readings [{input, column, key, taken_for}], warnings
                      catalog {rows, items, quarantined: {total, of, reasons: [{reason, count}]}}
                      interactions {rows, used, not_positive, anonymous, repeats_merged, quarantined, users}
                      without_interactions, without_anchor {count, of}
    quality           passed; checks [{name, value, rule, bound, passed, blocking}]; notes
    shadow            null without a shadow evaluation; else sentence, cost, metrics [{name, raw, rectified}], not_worse
    anchors           method, width, epochs, best_epoch, best_recall, loss and recall as {x, y, length}
    trend             as ``trend_facts`` gives it
    modalities        by name, [{name, column, embedding_model, width, items, present, missing, quarantined, sequence, suspects, and:
      missing_kinds   null, empty, zero, nan
      status          rectified, passed_through, imputed, missing
      moved           more_than_0.1 and more_than_0.01: features by 1 - cosine with the one that was read
      trust           identifiable, mismatch_rate, low, high, low_unlike, high_unlike, separation, reason, judged, without_trust,
                        suspect (items of trust below 0.5), lowest, histogram {edges, counts, total}
      evidence        of, behaviour, cross_modal, both; neither {count, reasons [{reason, count}]}
      copies          present; placeholders and alike {groups, items}; groups [{items, unlike, likeness, examples}]
      alignment       matched and null as histograms over the same edges, kept {count, of}, ridge
      hubs            raw, row and sinkhorn: {features, max_over_mean, top_features, top_share, gini, never_used, curve} or null
      balance         outcome, meaning, iterations, diagonal_mass, column_error, errors {x, y, length}
      index           name, recall, num_neighbours, rows
      suspects        [{item_id, title, category, trust, interactions, nearest_by_behaviour, nearest_by_feature}], worst
                        first, of trust below 0.5
    time_offsets      one sentence a pair of sequence modalities
    timings           [{stage, seconds, cpu_seconds, reused, peak_memory}]
    provenance, config  values that look like credentials masked
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.published_records import Check, Status
from rectifier_core.base.records import BalanceOutcome
from tasks.masking import mask_credentials
from tasks.report.catalog import Catalog, shorten
from tasks.report.copies import copies_facts, evidence_facts
from tasks.report.inputs import ReportInputs
from tasks.report.phrases import (
    banner_sentence,
    changed_summary,
    headline,
    offset_phrase,
    shadow_cost,
    shadow_phrase,
    wrong_summary,
)
from tasks.report.summaries import Facts, concentration, curve, histogram, paired_histograms, stream, tidy, top_k_use
from tasks.report.suspects import SUSPECT, suspects
from tasks.report.trend import trend_facts
from tasks.stages.quality import count_moved
from tasks.store.store import Ref, plain

FORMAT = 3
TRUST_BINS = 25
_RATE = ("mismatch_rate", "low", "high", "low_unlike", "high_unlike", "separation")


def gather_facts(inputs: ReportInputs) -> Facts:
    """All facts of a run, in the shape that the module's docstring gives.

    Raises OSError or KeyError if a stage output lacks a file or a field.
    """
    num_items = len(inputs.source.array("item_ids"))
    interactions = _interactions_per_item(inputs.source, num_items)
    catalog, trend = Catalog(inputs.source), trend_facts(inputs)
    ranked, copies = suspects(inputs, interactions, catalog), copies_facts(inputs, catalog)
    modalities = [
        _modality(name, inputs) | {"copies": copies[name], "suspects": ranked[name]}
        for name in sorted(inputs.modalities)
    ]
    checks = [_check(check) for check in inputs.quality.checks]
    facts: Facts = plain(
        {
            "format": FORMAT,
            "run": _run(inputs, checks, num_items),
            "summaries": [
                {
                    "modality": fact["name"],
                    "wrong": wrong_summary(fact, trend["jumps"]),
                    "changed": changed_summary(fact),
                }
                for fact in modalities
            ],
            "read": _read(inputs.source, interactions, np.array(inputs.anchors.array("trained"))),
            "quality": {"passed": inputs.quality.passed, "checks": checks, "notes": list(inputs.quality.notes)},
            "shadow": None if inputs.shadow is None else _shadow(inputs.shadow),
            "anchors": _anchors(inputs.anchors),
            "trend": trend,
            "modalities": modalities,
            "time_offsets": [offset_phrase(offset) for offset in inputs.time_offsets],
            "timings": inputs.timings,
            "provenance": mask_credentials(plain(inputs.provenance)),
            "config": mask_credentials(plain(inputs.config)),
        }
    )
    return facts


def _check(check: Check) -> Facts:
    return asdict(check) | {"value": float(check.value), "bound": float(check.bound)}


def _run(inputs: ReportInputs, checks: list[Facts], num_items: int) -> Facts:
    failed = [check["name"] for check in checks if check["blocking"] and not check["passed"]]
    return {
        "outcome": inputs.outcome,
        "headline": headline(inputs.outcome, inputs.table_version, failed),
        "sentence": banner_sentence(inputs.outcome, num_items, checks),
        "run_id": inputs.run_id,
        "as_of": inputs.as_of,
        "table_uri": mask_credentials(inputs.table_uri),
        "table_version": inputs.table_version,
        "elapsed_seconds": tidy(sum(x.seconds for x in inputs.stages.values())),
        "peak_memory_bytes": inputs.peak_memory_bytes,
        "memory_limit": inputs.memory_limit,
    }


def _interactions_per_item(source: Ref, num_items: int) -> Int64:
    total = np.zeros(num_items, dtype=np.int64)
    for _, items in stream(source, "items"):
        total += np.bincount(items, minlength=num_items)
    return total


def _quarantined(reasons: dict[str, int], of: int) -> Facts:
    ranked = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = [{"reason": reason, "count": number} for reason, number in ranked]
    return {"total": sum(reasons.values()), "of": of, "reasons": counts}


def _read(source: Ref, interactions: Int64, trained: Bool) -> Facts:
    meta, notes = source.meta, source.notes
    counts, items = meta["counts"], len(interactions)
    read = counts["interactions_read"]
    return {
        "readings": mask_credentials(notes["readings"]),
        "warnings": notes["warnings"],
        "catalog": {
            "rows": counts["catalog_rows_read"],
            "items": items,
            "quarantined": _quarantined(counts["items_quarantined"], counts["catalog_rows_read"]),
        },
        "interactions": {
            "rows": read,
            "used": counts["interactions_used"],
            "not_positive": counts["not_positive"],
            "anonymous": counts["anonymous"],
            "repeats_merged": counts["repeats_merged"],
            "quarantined": _quarantined(counts["interactions_quarantined"], read),
            "users": meta["num_users"],
        },
        "without_interactions": {"count": int((interactions == 0).sum()), "of": items},
        "without_anchor": {"count": int((~trained).sum()), "of": items},
    }


def _shadow(shadow: Mapping[str, Any]) -> Facts:
    after = shadow["rectified"]
    metrics = [{"name": x, "raw": tidy(raw), "rectified": tidy(after[x])} for x, raw in shadow["raw"].items()]
    sentence, cost = shadow_phrase(shadow), shadow_cost(shadow)
    return {"sentence": sentence, "cost": cost, "metrics": metrics, "not_worse": shadow["not_worse"]}


def _anchors(anchors: Ref) -> Facts:
    losses, recalls = np.array(anchors.array("losses")), np.array(anchors.array("recalls"))
    best = int(np.nanargmax(recalls)) if np.isfinite(recalls).any() else None
    return {
        "method": anchors.meta["method"],
        "width": anchors.array("items").shape[1],
        "epochs": len(losses),
        "best_epoch": best,
        "best_recall": None if best is None else tidy(float(recalls[best])),
        "loss": curve(losses, start=1),
        "recall": curve(recalls),
    }


def _modality(name: str, inputs: ReportInputs) -> Facts:
    refs, rectified, source = inputs.modalities[name], inputs.rectified, inputs.source
    meta, present = source.meta, np.array(refs.features.array(f"present-{name}"))
    described, num_items = meta["modalities"][name], len(present)
    codes = np.bincount(rectified.array(f"status-{name}"), minlength=len(Status))
    picked, softmax, rows_with = top_k_use(refs.affinity)
    plan, affinity = refs.plan.meta, refs.affinity.meta
    uses = {"raw": picked, "row": softmax, "sinkhorn": np.array(refs.plan.array("column_sums"))}
    return {
        "name": name,
        "sequence": plain(inputs.sequences.get(name)),
        "column": described["column"],
        "embedding_model": inputs.embedding_models.get(name),
        "width": described["width"],
        "items": num_items,
        "present": int(present.sum()),
        "missing": described["missing"],
        "missing_kinds": meta["counts"]["features_missing"][name],
        "quarantined": _quarantined(meta["counts"]["features_quarantined"].get(name, {}), num_items),
        "moved": count_moved(np.array(rectified.array(f"moved-{name}"))),
        "status": {status.value: int(codes[status.code]) for status in Status},
        "trust": _trust(refs.trust, np.array(rectified.array(f"trust-{name}"))),
        "evidence": evidence_facts(name, inputs),
        "alignment": _alignment(refs.projection),
        "hubs": {how: concentration(use[present]) for how, use in uses.items()},
        "balance": {
            "outcome": plan["outcome"],
            "meaning": BalanceOutcome[plan["outcome"]].value,
            "iterations": plan["iterations"],
            "diagonal_mass": tidy(plan["diagonal_mass"]),
            "column_error": tidy(plan["column_error"]),
            "errors": curve(np.array(refs.plan.array("marginal_errors"))),
        },
        "index": {
            "name": affinity["index"],
            "recall": tidy(affinity["recall"]),
            "num_neighbours": refs.affinity.array("neighbours").shape[1],
            "rows": rows_with,
        },
    }


def _trust(trust: Ref, published: np.ndarray[Any, Any]) -> Facts:
    meta = trust.meta
    return {
        "identifiable": meta["identifiable"],
        **{name: tidy(meta[name]) for name in _RATE},
        "reason": shorten(meta["reason"], 300) or "",
        "judged": int((~np.isnan(trust.array("probability"))).sum()),
        "without_trust": int(np.isnan(published).sum()),
        "suspect": int((published < SUSPECT).sum()),
        "lowest": tidy(float(np.nanmin(published))) if not np.isnan(published).all() else None,
        "histogram": histogram(published, 0.0, 1.0, bins=TRUST_BINS),
    }


def _alignment(projection: Ref) -> Facts:
    alignment, kept = np.array(projection.array("alignment")), np.array(projection.array("kept"))
    matched, null = paired_histograms(alignment, np.array(projection.array("null_alignment")))
    return {
        "matched": matched,
        "null": null,
        "kept": {"count": int(kept.sum()), "of": matched["total"]},
        "ridge": tidy(projection.meta["ridge"]),
    }
