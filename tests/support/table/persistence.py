"""Faults at every call with which the end of a night changes the disk.

A scene is a table with published days, and a job that changes it. The job runs once without a fault, under strace. Each call that changes
the disk is then a point at which the job is killed, or the call fails, in a fresh copy of the scene. ``Scene.disturb`` asserts:

- A reader sees the old rows or the new ones, bit for bit. It sees the new ones if the process succeeded.
- A failure is one line without a traceback, and exit status 1.
- The job succeeds when it runs again. It leaves the same files as without a fault, and no further commit.
- The sweep deletes everything else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from tests.support.table import night_jobs
from tests.support.table.faults import DEATH, FAULTS, Ended, Nursery, Point, all_calls, disturbance, points
from tests.support.table.publish_support import make_refs, plain

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
PATIENT = 2 * 3600.0
Rows = dict[str, str]


@dataclass(slots=True)
class Scene:
    """A table under ``folder``/scene and a job: the rows ``before`` and ``after`` it, its ``files`` and its ``points``."""

    name: str
    folder: Path
    nursery: Nursery
    job: str
    given: tuple[Any, ...]
    before: Rows = field(default_factory=dict)
    after: Rows = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    @property
    def place(self) -> Path:
        """Where every job of the scene works."""
        return self.folder / "scene"

    @property
    def uri(self) -> str:
        return str(self.place / "table")

    def record(self) -> Scene:
        """Keep the scene as it is now, and run the job in it undisturbed."""
        shutil.copytree(self.place, self.folder / "kept")
        self.before = rows_shown(self.uri)
        job = self.nursery.start(self.job, *self.given, strace=["-e", all_calls()])
        ended = job.wait()
        assert (ended.code, ended.said) == (0, ""), ended.said
        self.points = points(ended.trace, job.pid, (str(self.place),))
        self.after = rows_shown(self.uri)
        self.files = files_of(self.place)
        return self

    def again(self) -> None:
        """The scene as it was kept."""
        shutil.rmtree(self.place)
        shutil.copytree(self.folder / "kept", self.place)

    def disturb(self, point: Point, fault: str) -> bool:
        """Run the job with a fault at one point, check all that must hold then, and return whether the new version was visible."""
        self.again()
        ended = self.nursery.run(self.job, *self.given, strace=disturbance(point, fault), watch=[point.path])
        self._check_end(ended, fault)
        shown = rows_shown(self.uri)
        assert shown in (self.before, self.after), "a mix"
        assert shown == self.after or ended.code != 0, "it claimed success"
        self.converge()
        return shown == self.after

    def _check_end(self, ended: Ended, fault: str) -> None:
        assert "Traceback" not in ended.said, ended.said
        if fault == DEATH:
            assert ended.code == -9, f"it was not reached: {ended.code} {ended.said}"
            return
        assert ended.injected, "it was not reached"
        assert (ended.code, ended.said.count("\n")) in ((0, 0), (1, 1)), (ended.code, ended.said)

    def converge(self) -> None:
        """Run the job again, and once more when the leftovers are old. Then the files are those of a run without a fault."""
        job: Callable[..., int] = getattr(night_jobs, self.job)
        assert job(*self.given) == 0
        assert rows_shown(self.uri) == self.after
        age(self.place, PATIENT)
        assert job(*self.given) == 0
        found = files_of(self.place)
        assert found.keys() == self.files.keys(), sorted(found.keys() ^ self.files.keys())
        assert found == self.files


def rows_shown(uri: str) -> Rows:
    """Return a digest of the rows of each day, in the order of their ids, as a reader gets them."""
    if not DeltaTable.is_deltatable(uri):
        return {}
    digests: dict[str, str] = {}
    rows = DeltaTable(uri).to_pyarrow_table().sort_by([("as_of", "ascending"), ("item_id", "ascending")])
    for day in rows["as_of"].unique().to_pylist():
        sink = pa.BufferOutputStream()
        part = rows.filter(pa.compute.equal(rows["as_of"], pa.scalar(day))).combine_chunks()
        with pa.ipc.new_stream(sink, part.schema) as stream:
            stream.write_table(part)
        digests[day.isoformat()] = hashlib.blake2b(sink.getvalue()).hexdigest()
    return digests


def files_of(place: Path) -> dict[str, bytes]:
    """Return every file by its path. Files with a time or a process id count as empty."""
    found = {}
    for path in sorted(x for x in place.rglob("*") if x.is_file()):
        name = str(path.relative_to(place))
        # The hint at a checkpoint may be missing: readers then look for it.
        if path.name != "_last_checkpoint":
            found[name] = b"" if "_delta_log" in name or path.name.endswith(".lock") else path.read_bytes()
    return found


def age(place: Path, seconds: float) -> None:
    """Make everything look that much older."""
    for path in place.rglob("*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def scenes(folder: Path, nursery: Nursery) -> Iterator[Scene]:
    """Yield the first night of a table, a later night that drops a day and writes a checkpoint, and a rollback."""
    refs = plain(make_refs(folder / "stages", items=300))

    def scene(name: str, past: int, job: str, *given: Any, **more: Any) -> Scene:
        place = folder / name / "scene"
        config = {"uri": str(place / "table"), "rows_per_file": 150, "keep_snapshots": 2, "vacuum_after_hours": 0.0}
        config |= more
        runs = str(place / "runs")
        place.mkdir(parents=True)
        for day in DAYS[:past]:
            assert night_jobs.night(config, runs, refs, day, 0) == 0
        return Scene(name, folder / name, nursery, job, (config, runs, *given)).record()

    yield scene("first night", 0, "night", refs, DAYS[0], 0)
    yield scene("later night", 2, "night", refs, DAYS[2], 0, 2)
    yield scene("rollback", 2, "rolled_back", 0, vacuum_after_hours=1.0)


def all_faults(scene: Scene) -> list[tuple[Point, str]]:
    """Every point with every fault that makes sense there."""
    return [(point, fault) for point in scene.points for fault in FAULTS[point.kind]]


def disturbed(scene: Scene, wanted: list[tuple[Point, str]]) -> tuple[list[bool], list[str]]:
    """Return whether the new version was visible after each fault, and a line for each check that failed."""
    landed, broken = [], []
    for point, fault in wanted:
        try:
            landed.append(scene.disturb(point, fault))
        except Exception as error:
            where = f"{scene.name}: {fault} at {point.call} {point.path} {point.number}"
            broken.append(f"{where}: {type(error).__name__}: {error}"[:600])
    return landed, broken
