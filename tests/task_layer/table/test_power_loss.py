"""What survives a power cut: a file is flushed before it gets its name, and a name before anything that depends on it.

A disk keeps the bytes of a file that was flushed, and the names in a folder that was flushed. Everything else may be lost, in any order.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.table.faults import CLASS_OF, Call, Nursery, all_calls, needs_strace
from tests.support.table.persistence import Scene, rows_shown, scenes


class Disk:
    """What is flushed, by a trace of calls: ``dirty`` files have bytes that are not, ``unsafe`` names are in a folder that is not."""

    def __init__(self) -> None:
        self.dirty, self.unsafe = set[str](), set[str]()
        self.broken: list[str] = []

    def replay(self, call: Call) -> None:
        """Take one successful call."""
        kind, path, name = CLASS_OF[call.name], call.paths[0], call.paths[-1]
        if kind in ("write", "ftruncate") or (kind == "open" and "O_TRUNC" in call.arguments):
            self.dirty.add(path)
        elif kind == "fsync":
            self.dirty.discard(path)
            self.unsafe = {x for x in self.unsafe if x.rpartition("/")[0] != path}
        elif kind in ("rename", "link"):
            self._name(path, name)
        elif kind == "mkdir":
            self.unsafe.add(path)

    def _name(self, path: str, name: str) -> None:
        if path in self.dirty:
            self.dirty.add(name)
            if "/.commit-" not in name:
                self.broken.append(f"{name} got its name before its bytes were flushed")
        if name.endswith(".json") and "/_delta_log/" in name and "/.commit-" not in name:
            data = sorted(x for x in self.unsafe if "/as_of=" in x)
            self.broken += [f"{name} was committed before the name of {x} was flushed" for x in data]
        self.unsafe.add(name)


def replayed(scene: Scene) -> Disk:
    """Run the scene's job and replay its calls."""
    scene.again()
    ended = scene.nursery.run(scene.job, *scene.given, strace=["-e", all_calls()])
    assert ended.code == 0, ended.said
    assert rows_shown(scene.uri) == scene.after
    disk = Disk()
    for call in ended.trace:
        if call.result >= 0 and call.changes and call.paths and call.paths[0].startswith(str(scene.place)):
            disk.replay(call)
    return disk


@needs_strace
def test_an_unflushed_file_is_noticed(tmp_path: Path, nursery: Nursery) -> None:
    disk = Disk()
    for call in nursery.run("careless", str(tmp_path / "new"), strace=["-e", all_calls()]).trace:
        if call.result >= 0 and call.changes and call.paths and call.paths[0].startswith(str(tmp_path)):
            disk.replay(call)
    assert disk.broken == [f"{tmp_path}/new.json got its name before its bytes were flushed"]
    assert disk.unsafe == {f"{tmp_path}/new.json"}


@needs_strace
def test_a_version_is_flushed_before_it_is_visible(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> None:
    for scene in scenes(tmp_path_factory.mktemp("scenes"), nursery):
        disk = replayed(scene)
        assert disk.broken == []
        kept = {str(scene.place / x) for x in scene.files if not x.endswith(".lock")}
        assert not disk.unsafe & kept, "a name that a reader needs was not flushed at the end"
