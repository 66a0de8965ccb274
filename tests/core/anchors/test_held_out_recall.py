"""Recall@20 by counting, against sorting; ties and scores that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.anchors import held_out_recall
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import hold_out
from rectifier_core.base.arrays import Float64
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from tests.support.core_samples import block_log, log_of, normals


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=4, users=120, items=80, seed=0)


def brute_recall(final: Float64, training: Interactions, held: Interactions) -> float:
    users, items = final[: training.num_users], final[training.num_users :]
    recalls = []
    for user in np.unique(held.users):
        scores = items @ users[user]
        scores[training.items[training.users == user]] = -np.inf
        wanted = set(held.items[held.users == user].tolist())
        recalls.append(len(wanted & set(np.argsort(-scores)[:20].tolist())) / len(wanted))
    return float(np.mean(recalls))


@pytest.mark.parametrize("block", [1, 7, 1008])
def test_the_judge_is_recall_at_20(log: Interactions, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of items is scored at a time."""
    monkeypatch.setattr(held_out_recall, "BLOCK", block)
    training, held = hold_out(log, 0.3, generator(0, "test"))
    final = normals(np.random.default_rng(8), log.num_users + log.num_items, 8)
    judge = HeldOutRecall(training, held, generator(0, "judge"))
    wanted = brute_recall(final.astype(np.float64), training, held)
    assert 0.1 < wanted < 0.5
    assert judge(final) == pytest.approx(wanted, abs=1e-9)


def test_with_nothing_held_out_recall_is_nought() -> None:
    log = log_of([0], [0], 1, 1)
    assert HeldOutRecall(log, log_of([], [], 1, 1), generator(0, "judge"))(np.ones((2, 3), np.float32)) == 0.0


def test_equal_scores_are_ordered_by_item_number() -> None:
    """One user, all scores equal: item 0 is known, so items 1 to 20 are the list."""
    for item, wanted in ((20, 1.0), (21, 0.0)):
        judge = HeldOutRecall(log_of([0], [0], 1, 40), log_of([0], [item], 1, 40), generator(0, "judge"))
        assert judge(np.ones((41, 3), np.float32)) == wanted


def test_a_model_that_is_no_longer_a_number_recalls_nothing(log: Interactions) -> None:
    training, held = hold_out(log, 0.3, generator(0, "test"))
    final = np.full((log.num_users + log.num_items, 8), np.nan, np.float32)
    assert HeldOutRecall(training, held, generator(0, "judge"))(final) == 0.0
