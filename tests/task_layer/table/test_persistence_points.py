"""Faults at each call that changes the disk: the old version or the new one is visible, and a rerun succeeds."""

from __future__ import annotations

import pytest

from tests.support.table.faults import CLASSES, DEATH, Nursery, needs_strace
from tests.support.table.persistence import all_faults, disturbed, scenes

NAMES = ("rename", "link")
EVERY = 60


@needs_strace
def test_a_night_disturbed_where_it_persists(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> None:
    seen, broken = set(), []
    for scene in scenes(tmp_path_factory.mktemp("scenes"), nursery):
        seen |= {x.kind for x in scene.points}
        wanted = all_faults(scene)
        deaths = [x for x in wanted if x[1] == DEATH and x[0].kind in NAMES and scene.name == "later night"]
        others = [x for x in wanted if x not in deaths]
        landed, failures = disturbed(scene, [*deaths[::2], *others[:-1:EVERY], others[-1]])
        broken += failures
        assert set(landed) == {False, True}, f"{scene.name}: all points lie on one side of the commit"
    assert seen >= {*CLASSES} - {"ftruncate"}
    assert not broken, "\n".join(broken)


@needs_strace
@pytest.mark.slow
def test_a_night_disturbed_at_every_point_where_it_persists(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = []
    for scene in scenes(tmp_path_factory.mktemp("scenes"), nursery):
        broken += disturbed(scene, all_faults(scene))[1]
        assert len(all_faults(scene)) > 80
    assert not broken, "\n".join(broken)
