"""The report on copies, placeholders and the evidence for each judgement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectifier_core.base.records import Copies, Trust
from tasks.report.inputs import ReportInputs
from tasks.store.saved_records import load_record, save_record
from tests.support.report_samples import NASTY, Run, written


def with_record(run: Run, inputs: ReportInputs, kind: str, record: Any) -> ReportInputs:
    """The same run with another record of one kind for images."""
    ref = run.store.once(f"other {kind}", (record.modality,), lambda writer: save_record(writer, record))
    return replace(
        inputs, modalities={**inputs.modalities, "image": replace(inputs.modalities["image"], **{kind: ref})}
    )


def test_groups_are_counted_and_shown_with_a_few_items(tmp_path: Path) -> None:
    run = Run(tmp_path)
    page, twin, text = written(tmp_path / "out", run.inputs(copies=True))
    copies, present = twin["modalities"][0]["copies"], int(run.present.sum())
    assert copies["present"] == present
    assert (copies["placeholders"], copies["alike"]) == ({"groups": 1, "items": 8}, {"groups": 1, "items": 3})
    placeholder, alike = copies["groups"]
    rows = np.flatnonzero(run.present)
    assert [x["item_id"] for x in placeholder["examples"]] == [f"item-{i:07d}" for i in rows[10:14]]
    assert (placeholder["items"], placeholder["unlike"], placeholder["likeness"]) == (8, True, 0.013)
    assert (alike["items"], alike["unlike"], len(alike["examples"])) == (3, False, 3)
    assert {x["title"] for group in copies["groups"] for x in group["examples"]} >= {NASTY}
    assert "<script" not in page
    assert f"items that show a placeholder 8 of {present} (10 %), 1 group" in text
    assert f"8 of {present} items with a feature show a placeholder" in twin["summaries"][0]["wrong"]
    assert "8 placeholder 0.01" in text and "and 4 more" in text


def test_many_groups_stay_a_short_list(tmp_path: Path) -> None:
    run = Run(tmp_path, items=4_000)
    group = np.where(run.present, np.arange(4_000) // 4, -1).astype(np.int32)
    unlike = np.arange(1_000) % 2 == 0
    many = Copies(modality="image", group=group, unlike=unlike, likeness=np.zeros(1_000, np.float32))
    _, twin, _ = written(tmp_path / "out", with_record(run, run.inputs(), "copies", many))
    copies = twin["modalities"][0]["copies"]
    assert [x["unlike"] for x in copies["groups"]] == [True] * 6 + [False] * 4
    assert copies["placeholders"]["groups"] == 500
    assert copies["placeholders"]["items"] + copies["alike"]["items"] == int(run.present.sum())


def trust_by(run: Run, behaviour: Any, cross_modal: Any, *, identifiable: bool = True) -> Trust:
    """A trust judged wherever there is evidence of either kind."""
    kinds = [np.where(x, 1, np.nan).astype(np.float32) for x in (behaviour, cross_modal)]
    judged = (
        np.where(behaviour | cross_modal, 0.5, np.nan).astype(np.float32)
        if identifiable
        else np.full(run.items, np.nan, np.float32)
    )
    return replace(
        load_record(run.inputs().modalities["image"].trust, Trust),
        probability=judged,
        behaviour=kinds[0],
        cross_modal=kinds[1],
        identifiable=identifiable,
    )


def test_evidence_is_counted_by_kind_and_what_is_missing_by_reason(tmp_path: Path) -> None:
    run = Run(tmp_path, items=900)
    inputs = run.inputs(copies=True)
    placeholder = load_record(inputs.modalities["image"].copies, Copies).placeholder
    usable = run.present & ~placeholder
    behaviour, cross_modal = usable & run.trained, usable & (np.arange(900) % 2 == 0)
    _, twin, text = written(tmp_path / "out", with_record(run, inputs, "trust", trust_by(run, behaviour, cross_modal)))
    evidence = twin["modalities"][0]["evidence"]
    counts = {
        "both": behaviour & cross_modal,
        "behaviour": behaviour & ~cross_modal,
        "cross_modal": cross_modal & ~behaviour,
    }
    assert {kind: evidence[kind] for kind in counts} == {kind: int(rows.sum()) for kind, rows in counts.items()}
    reasons = {x["reason"]: x["count"] for x in evidence["neither"]["reasons"]}
    assert reasons == {
        "no feature": int((~run.present).sum()),
        "a placeholder instead of a feature": 8,
        "no anchor, and no other modality to compare with": int((usable & ~run.trained & ~cross_modal).sum()),
    }
    assert evidence["of"] == 900 == sum(int(rows.sum()) for rows in counts.values()) + evidence["neither"]["count"]
    assert evidence["neither"]["count"] == sum(reasons.values())
    assert f"by behaviour alone {evidence['behaviour']} of 900" in text


@pytest.mark.parametrize("anchors", [True, False])
def test_why_nothing_could_be_judged(tmp_path: Path, anchors: bool) -> None:
    run = Run(tmp_path, items=90, anchors=anchors)
    nothing = np.zeros(90, np.bool_)
    trust = trust_by(run, run.present & run.trained, nothing, identifiable=False)
    _, twin, text = written(tmp_path / "out", with_record(run, run.inputs(), "trust", trust))
    evidence = twin["modalities"][0]["evidence"]
    assert evidence["neither"] == {
        "count": 90,
        "reasons": [
            {"reason": "no feature", "count": int((~run.present).sum())},
            {"reason": "the modality does not predict behaviour well enough", "count": int(run.present.sum())},
        ],
    }
    assert "not judged 90 of 90 (100 %)" in text
