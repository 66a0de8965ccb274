"""The power fails during a night's end: whatever a disk may have kept by then, readers see the old version or the new one, whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.table.faults import Nursery, needs_strace, whole_data
from tests.support.table.persistence import Scene, rows_shown, scenes
from tests.support.table.power_loss import Disk, digest, put


class Cuts:
    """The states that were looked at, and what did not hold."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.seen, self.read, self.broken = scene, set[str](), set[str](), list[str]()

    def look(self, state: dict[str, bytes | None], when: str, *, landed: bool, rerun: bool) -> None:
        """Check one state, unless it was checked: by readers where they could tell it from others, by a rerun where ``rerun`` says so."""
        if digest(state) in self.seen:
            return
        self.seen.add(digest(state))
        shown = {path: data for path, data in state.items() if "/." not in path.removeprefix(str(self.scene.place))}
        if digest(shown) in self.read and not rerun and not landed:
            return
        self.read.add(digest(shown))
        shutil.rmtree(self.scene.place)
        put(state)
        try:
            found = rows_shown(self.scene.uri)
            assert found == self.scene.after or (found == self.scene.before and not landed), (
                "a mix, or what was promised is lost"
            )
            for path in self.scene.place.rglob("[!.]*.json"):
                if "_delta_log" not in path.parts:
                    json.loads(path.read_text())
            if rerun:
                self.scene.converge()
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            self.broken.append(f"{self.scene.name}: {when}: {type(error).__name__}: {why}")


def cut_everywhere(scene: Scene, *, rerun_every: int, depth: int = 1) -> Cuts:
    """Cut the power after each call of the scene's job."""
    scene.again()
    disk = Disk.of(scene.place)
    job = scene.nursery.start(scene.job, *scene.given, strace=whole_data())
    ended = job.wait()
    assert ended.code == 0, ended.said
    assert rows_shown(scene.uri) == scene.after
    cuts = Cuts(scene)
    calls = [
        x for x in ended.trace if x.result >= 0 and x.changes and x.paths and x.paths[0].startswith(str(scene.place))
    ]
    for at, call in enumerate(calls):
        disk.replay(call)
        for state in disk.after_cuts(depth):
            rerun = len(cuts.seen) % rerun_every == 0
            cuts.look(state, f"after {call.name} {call.paths[0]}", landed=at == len(calls) - 1, rerun=rerun)
    assert {path for path, number in disk.names.items() if number >= 0} >= {str(scene.place / x) for x in scene.files}
    return cuts


def test_the_model_loses_what_was_not_flushed(tmp_path: Path, nursery: Nursery) -> None:
    (tmp_path / "old").write_text("old")
    disk = Disk.of(tmp_path)
    for call in nursery.run("careless", str(tmp_path / "new"), strace=whole_data()).trace:
        if call.result >= 0 and call.paths and call.paths[0].startswith(f"{tmp_path}/new"):
            disk.replay(call)
    found = [state.get(str(tmp_path / "new")) for state in disk.after_cuts()]
    assert {None, b"", b"ab", b"abcd", bytes(4)} == set(found)
    assert all(state[str(tmp_path / "old")] == b"old" for state in disk.after_cuts())


@needs_strace
def test_a_power_cut_leaves_a_version_whole(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> None:
    for scene in scenes(tmp_path_factory.mktemp("scenes"), nursery):
        cuts = cut_everywhere(scene, rerun_every=100)
        assert not cuts.broken, "\n".join(cuts.broken)
        assert len(cuts.seen) > 50


@needs_strace
@pytest.mark.slow
def test_after_any_power_cut_a_rerun_converges(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> None:
    for scene in scenes(tmp_path_factory.mktemp("scenes"), nursery):
        cuts = cut_everywhere(scene, rerun_every=1, depth=2)
        assert not cuts.broken, "\n".join(cuts.broken)
