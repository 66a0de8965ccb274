"""The report's facts about copies and placeholders, and about the evidence for each judgement."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool
from rectifier_core.base.records import Copies
from tasks.report.catalog import Catalog
from tasks.report.inputs import ReportInputs
from tasks.report.summaries import Facts, tidy
from tasks.store.saved_records import load_record

MOST_PLACEHOLDERS = 6
MOST_ALIKE = 4
NUM_EXAMPLES = 4


def copies_facts(inputs: ReportInputs, catalog: Catalog) -> dict[str, Facts]:
    """Per modality the groups of copies: how many, how large, of which kind, with a few of their items."""
    return {
        name: _modality(name, load_record(refs.copies, Copies), inputs, catalog)
        for name, refs in inputs.modalities.items()
    }


def _modality(name: str, copies: Copies, inputs: ReportInputs, catalog: Catalog) -> Facts:
    group, unlike = np.array(copies.group), np.array(copies.unlike)
    sizes = np.bincount(group[group >= 0], minlength=len(unlike))
    # Placeholders first, each kind largest first.
    shown = [*np.flatnonzero(unlike)[:MOST_PLACEHOLDERS].tolist(), *np.flatnonzero(~unlike)[:MOST_ALIKE].tolist()]
    examples = {number: np.flatnonzero(group == number)[:NUM_EXAMPLES] for number in shown}
    return {
        "present": int(inputs.modalities[name].features.array(f"present-{name}").sum()),
        "placeholders": {"groups": int(unlike.sum()), "items": int(sizes[unlike].sum())},
        "alike": {"groups": int((~unlike).sum()), "items": int(sizes[~unlike].sum())},
        "groups": [
            {
                "items": int(sizes[number]),
                "unlike": bool(unlike[number]),
                "likeness": tidy(float(copies.likeness[number])),
                "examples": [catalog.card(row) for row in rows.tolist()],
            }
            for number, rows in examples.items()
        ],
    }


def evidence_facts(name: str, inputs: ReportInputs) -> Facts:
    """The number of items judged by each kind of evidence, and why the others were not judged. The counts sum to ``of``, all items."""
    refs = inputs.modalities[name]
    behaviour, cross_modal, judged = (
        ~np.isnan(refs.trust.array(part)) for part in ("behaviour", "cross_modal", "probability")
    )
    by = {
        "behaviour": judged & behaviour & ~cross_modal,
        "cross_modal": judged & cross_modal & ~behaviour,
        "both": judged & behaviour & cross_modal,
    }
    left = np.array(~np.logical_or.reduce(list(by.values())))
    return {
        "of": len(judged),
        **{kind: int(rows.sum()) for kind, rows in by.items()},
        "neither": {"count": int(left.sum()), "reasons": _why_not(left, judged, name, inputs)},
    }


def _why_not(left: Bool, judged: Bool, name: str, inputs: ReportInputs) -> list[Facts]:
    """The number of items ``left`` [I] by the first reason that applies: ``[{reason, count}]``."""
    refs = inputs.modalities[name]
    present, trained = np.array(refs.features.array(f"present-{name}")), np.array(inputs.anchors.array("trained"))
    applies = {
        "judged, but the evidence was not kept": judged,
        "no feature": ~present,
        "a placeholder instead of a feature": load_record(refs.copies, Copies).placeholder,
        "the modality does not predict behaviour well enough": np.full(
            len(present), not refs.trust.meta["identifiable"]
        ),
        "no anchor, and no other modality to compare with": ~trained,
        "too little evidence of either kind": np.ones(len(present), np.bool_),
    }
    reasons = []
    for reason, rows in applies.items():
        count = int((left & rows).sum())
        left = left & ~rows
        reasons += [{"reason": reason, "count": count}] if count else []
    return reasons
