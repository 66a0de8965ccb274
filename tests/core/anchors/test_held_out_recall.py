"""Recall@20 by counting, against sorting; ties and NaN scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("scores", [1, 500, 2**25])
def test_the_judge_is_recall_at_20(log: Interactions, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of users is scored at a time."""
    monkeypatch.setattr(held_out_recall, "MOST_SCORES", scores)
    training, held = hold_out(log, 0.3, generator(0, "test"))
    final = normals(np.random.default_rng(8), log.num_users + log.num_items, 8)
    judge = HeldOutRecall(training, held, generator(0, "judge"))
    wanted = brute_recall(final.astype(np.float64), training, held)
    assert 0.1 < wanted < 0.5
    assert judge(torch.from_numpy(final)) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("held", "final", "why"),
    [
        ([], torch.ones(41, 3), "nothing is held out"),
        ([20], torch.full((41, 3), torch.nan), "scores are no numbers"),
        ([0], torch.ones(41, 3), "the held-out item is a training item"),
    ],
)
def test_recall_is_zero_where_nothing_is_ranked(held: list[int], final: torch.Tensor, why: str) -> None:
    judge = HeldOutRecall(log_of([0], [0], 1, 40), log_of([0] * len(held), held, 1, 40), generator(0, "judge"))
    assert judge(final) == 0.0, why
