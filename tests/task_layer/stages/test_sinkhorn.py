"""The sinkhorn stage: what it writes is the core's plan, and it starts from the previous run's potential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectifier_core.base.records import Affinity, BalanceOutcome, Plan
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from tasks.stages.config import IncrementalConfig
from tasks.stages.previous_run import ROW_MAPPING, PreviousRun
from tasks.stages.sinkhorn import sinkhorn_stage
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter

ITEMS = 400


def affinity() -> Affinity:
    """Itself and eight others nearby, scores falling with the distance."""
    rng = np.random.default_rng(0)
    near = (np.arange(ITEMS)[:, None] + np.hstack([np.zeros((ITEMS, 1), int), rng.integers(1, 60, (ITEMS, 8))])) % ITEMS
    scores = -rng.random(near.shape).cumsum(axis=1)
    near, scores = near.astype(np.int32), scores.astype(np.float32)
    return Affinity(modality="image", neighbours=near, scores=scores, recall=1.0, index="flat")


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path)


@pytest.fixture
def saved(store: StageStore) -> Ref:
    return store.once("affinity/image", (), lambda writer: save_record(writer, affinity()))


def previous_run(store: StageStore, plan: Ref) -> PreviousRun:
    def build(writer: StageWriter) -> None:
        writer.array("before", np.arange(ITEMS, dtype=np.int64))
        writer.array("same-image", np.ones(ITEMS, np.bool_))
        writer.array("fold", np.zeros(ITEMS, np.int32))

    mapping = store.once(ROW_MAPPING, (), build)
    return PreviousRun(
        run_id="a", stages={"sinkhorn/image": plan}, row_mapping=mapping, nights=1, config=IncrementalConfig()
    )


def test_the_stage_writes_the_plan_of_the_core(store: StageStore, saved: Ref) -> None:
    plan, wanted = (
        load_record(sinkhorn_stage("image", saved, SinkhornConfig(), store), Plan),
        balance(affinity(), SinkhornConfig()),
    )
    assert plan.outcome is wanted.outcome is BalanceOutcome.CONVERGED
    assert plan.weights.tobytes() == wanted.weights.tobytes() and plan.potential.tobytes() == wanted.potential.tobytes()


@pytest.mark.parametrize(("tolerance", "warm"), [(1e-3, True), (1e-30, False)])
def test_it_starts_where_the_previous_run_ended_if_that_converged(
    store: StageStore, saved: Ref, tolerance: float, warm: bool
) -> None:
    config: Any = {"max_iterations": 40}
    old = sinkhorn_stage("image", saved, SinkhornConfig(tolerance=tolerance, **config), store)
    new = sinkhorn_stage("image", saved, SinkhornConfig(**config), store, previous=previous_run(store, old))
    cold = sinkhorn_stage("image", saved, SinkhornConfig(**config), store)
    assert not new.reused and cold.meta["iterations"] > 0
    assert new.meta["iterations"] == (0 if warm else cold.meta["iterations"])
