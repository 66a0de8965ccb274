"""Stage: copies, the items that share one feature, and the placeholders among them."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Anchors, Copies
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.copies import find_copies
from rectifier_core.copies.near_copies import Sketch, sketch_rows
from rectifier_core.incremental.copies import update_copies
from tasks.stages.previous_run import PreviousRun, inputs_of
from tasks.store.saved_records import load_part, load_record, save_part, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def copies_stage(
    modality: str,
    features: Ref,
    anchors: Ref,
    config: CopiesConfig,
    seed: int,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
    progress: Progress = silent,
) -> Ref:
    """Find groups of copies in one modality. With ``previous``, only changed features are searched again."""
    name = f"copies/{modality}"

    def build(writer: StageWriter) -> None:
        rows, present = features.array(f"features-{modality}"), np.asarray(features.array(f"present-{modality}"))
        anchor = load_record(anchors, Anchors)
        if previous is None:
            sketch = sketch_rows(rows, present, config, seed=seed, name=modality, progress=progress)
            copies = find_copies(modality, rows, present, anchor, config, seed=seed, sketch=sketch, progress=progress)
        else:
            output = previous.stages[name]
            old, sketch, mapped = (
                load_record(output, Copies),
                load_part(output, "sketch", Sketch),
                previous.mapped(modality),
            )
            copies, sketch = update_copies(
                old, sketch, mapped, rows, present, anchor, config, seed=seed, progress=progress
            )
        save_record(writer, copies)
        save_part(writer, "sketch", sketch)

    return store.once(name, (features, anchors, config, seed, *inputs_of(previous, name)), build)


def informative_items(modality: str, features: Ref, copies: Ref) -> Bool:
    """Return which items have a feature that is no placeholder: [I] bool."""
    informative: Bool = np.asarray(features.array(f"present-{modality}")) & ~load_record(copies, Copies).placeholder
    return informative
