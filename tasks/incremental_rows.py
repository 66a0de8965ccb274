"""The rectified rows of an incremental run: those of the earlier run that hardly moved, and the others mended anew."""

from __future__ import annotations

import numpy as np

from rectifier_core.incremental.carried import gathered
from rectifier_core.incremental.rectify import Mixing, moved_rows
from rectifier_core.numerics import Progress, row_blocks, silent
from rectifier_core.records import Copies, Float32, Plan, Trust
from rectifier_core.rectify import RectifyConfig, decide_status, rectify_rows
from tasks.incremental_base import Last
from tasks.references import Ref, StageWriter
from tasks.report_inputs import ModalityRefs
from tasks.saved_records import load_record


def write_updated(
    writer: StageWriter, modality: str, refs: ModalityRefs, config: RectifyConfig, last: Last, *, progress: Progress = silent
) -> tuple[Mixing, int]:
    """Write ``features-<m>``, and ``moved-<m>`` [I] float32, by how much each row is off at most; what they were mixed from, and how many
    rows were mended anew."""
    features, carried, then = refs.features.array(f"features-{modality}"), last.carried(modality), last.stages["rectified"]
    now = _mixing(modality, refs, config)
    before = Mixing(
        plan=load_record(last.stages[f"plan/{modality}"], Plan),
        trust=load_record(last.stages[f"trust/{modality}"], Trust),
        status=np.asarray(then.array(f"status-{modality}")),
    )
    moved = moved_rows(now, before, _moved_before(modality, then), carried, last.config.tolerance, config)
    anew, rows_then = ~np.isfinite(moved), then.array(f"features-{modality}")
    out = writer.memmap(f"features-{modality}", features.shape, np.float32)
    for rows in row_blocks(len(features), config.block_rows):
        block = np.empty((rows.stop - rows.start, features.shape[1]), np.float32)
        kept, mended = np.flatnonzero(~anew[rows]), np.flatnonzero(anew[rows])
        block[kept] = gathered(rows_then, carried.before[rows][kept])
        if len(mended):
            block[mended] = rectify_rows(features, mended + rows.start, now.status, now.plan, now.trust, config)
        out[rows] = block
        progress(f"rectifying {modality}", rows.stop, len(features))
    out.flush()
    moved[anew] = 0
    writer.array(f"moved-{modality}", moved)
    return now, int(anew.sum())


def _mixing(modality: str, refs: ModalityRefs, config: RectifyConfig) -> Mixing:
    plan, trust = load_record(refs.plan, Plan), load_record(refs.trust, Trust)
    present = np.asarray(refs.features.array(f"present-{modality}"))
    return Mixing(plan=plan, trust=trust, status=decide_status(present, plan, trust, config, load_record(refs.copies, Copies).placeholder))


def _moved_before(modality: str, rectified: Ref) -> Float32:
    name = f"moved-{modality}"
    if rectified.file(f"{name}.npy").exists():
        return np.asarray(rectified.array(name))
    return np.zeros(len(rectified.array(f"status-{modality}")), np.float32)
