"""The records that pass between stages come back from disk as they were."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectifier_core.base.published_records import Rectified
from rectifier_core.base.records import (
    Affinity,
    Anchors,
    BalanceOutcome,
    Catalog,
    Interactions,
    Plan,
    Projection,
    Trust,
)
from rectifier_core.base.sequence_records import Segments, TimeOffset
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import StageStore
from tests.support.record_samples import GOOD, good

F32, NAN = np.float32, float("nan")
NOTHING = np.full(3, np.nan, F32)
UNKNOWN = dict.fromkeys(("mismatch_rate", "low", "high", "low_unlike", "high_unlike"))
# What a field may also be: None, NaN, nothing at all, ids of both kinds, text that is not ASCII, modalities in another order.
OTHERS: list[tuple[type, dict[str, Any]]] = [
    (Catalog, {"item_ids": np.arange(3)}),
    (Catalog, {"item_ids": np.array(["ü0", "ü1", "🧺"])}),
    (Interactions, {"times": None}),
    (Anchors, {"losses": np.array([0.5, np.nan]), "recalls": np.zeros(0)}),
    (Projection, {"ridge": None, "alignment": NOTHING}),
    (Affinity, {"recall": NAN, "modality": "a_b"}),
    *((Plan, {"column_error": NAN, "outcome": outcome}) for outcome in BalanceOutcome),
    (Trust, {"identifiable": False, "separation": NAN, "reason": "Ärger\n", "probability": NOTHING, **UNKNOWN}),
    (Segments, {"wrong_rate": None, "identifiable": False, "ridge": 0.5}),
    (TimeOffset, {"lag": None, "identifiable": False, "correlation": np.array([np.nan, 0, 1])}),
    (Rectified, {"features": {}, "status": {}, "trust": {}, "moved": {}}),
    (Rectified, {x: {"b": GOOD[Rectified][x]["image"], "a": GOOD[Rectified][x]["image"]} for x in GOOD[Rectified]}),
]


def assert_same(found: Any, wanted: Any) -> None:
    """Equal, NaN to NaN, arrays with their dtype."""
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    elif isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, float) and np.isnan(wanted):
        assert np.isnan(found)
    else:
        assert found == wanted
        assert type(found) is type(wanted)


@pytest.mark.parametrize(("kind", "changed"), [*((kind, {}) for kind in GOOD), *OTHERS])
def test_every_record_comes_back_as_it_was(tmp_path: Path, kind: type, changed: dict[str, Any]) -> None:
    record = kind(**{**good(kind), **changed})
    ref = StageStore(tmp_path).once("record", (), lambda writer: save_record(writer, record))
    found = load_record(ref, kind)
    for part in fields(kind):
        assert_same(getattr(found, part.name), getattr(record, part.name))
    assert not list(Path(ref.path).glob("*.pkl"))
