"""The stage that looks for copies: what it writes is what the core found, and it is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rectifier_core.base.records import Anchors, Copies
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.copies import find_copies
from tasks.stages.copies import copies_stage
from tasks.store.saved_records import load_record
from tests.support.report_samples import Run


def test_the_stage_keeps_what_the_core_finds(tmp_path: Path) -> None:
    run = Run(tmp_path, items=400)
    there = np.flatnonzero(run.present)
    run.features[there[5:45]] = run.features[there[5]]
    inputs, config = run.inputs(), CopiesConfig()
    ref = copies_stage("image", inputs.source, inputs.anchors, config, 3, run.store)
    kept = load_record(ref, Copies)
    wanted = find_copies("image", run.features, run.present, load_record(inputs.anchors, Anchors), config, seed=3)
    np.testing.assert_array_equal(kept.group, wanted.group)
    np.testing.assert_array_equal(kept.likeness, wanted.likeness)
    assert kept.modality == "image"
    assert kept.unlike.tolist() == [True]
    assert np.flatnonzero(kept.placeholder).tolist() == there[5:45].tolist()


def test_a_repeat_reuses_it_and_another_config_does_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    inputs, config = run.inputs(), CopiesConfig()
    first = copies_stage("image", inputs.source, inputs.anchors, config, 3, run.store)
    again = copies_stage("image", inputs.source, inputs.anchors, config, 3, run.store)
    assert (again, again.reused, first.reused) == (first, True, False)
    other = copies_stage("image", inputs.source, inputs.anchors, replace(config, threshold=0.99), 3, run.store)
    assert other.path != first.path
    assert not load_record(first, Copies).placeholder.any()
