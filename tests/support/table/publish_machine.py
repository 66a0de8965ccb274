"""A state machine: nights, kills, retries, rollbacks, sweeps, competing publishers and clock changes in any order on one table.

The model is a list of versions. Each maps a day to the seed of the run that it shows. Kills are real: the process sends itself SIGKILL. A
clock change moves the times of all files and log entries.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tasks.errors import InputError, TableHeldError
from tasks.store.store import Ref
from tasks.table.cleanup import sweep_table
from tasks.table.history import list_versions, roll_back
from tasks.table.lock import table_lock
from tasks.table.publish import PublishConfig
from tasks.table.trend import read_trend, record_run, trend_entry
from tests.support.table.faults import Nursery
from tests.support.table.publish_support import identity, make_refs, plain, publish, shown

KEEP = 3
HOURS = 10.0
TIMES = re.compile(r'("(?:timestamp|deletionTimestamp|modificationTime)":)(\d+)')
ITEMS = 6
DAYS = st.integers(1, 5).map(lambda x: f"2024-03-0{x}")
SEEDS = st.integers(0, 2)
on_link: list[Callable[[], None]] = []
Version = dict[str, int]


def _watch(event: str, given: tuple[Any, ...]) -> None:
    if event == "os.link" and on_link and "/.commit-" not in str(given[1]):
        on_link.pop()()


sys.addaudithook(_watch)


class Publishing(RuleBasedStateMachine):
    """The machine. ``nursery`` starts its processes; ``published`` counts the versions of all examples."""

    nursery: ClassVar[Nursery]
    published: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="publishing-"))
        self.config = PublishConfig(
            uri=str(self.folder / "table"), keep_snapshots=KEEP, vacuum_after_hours=HOURS, rows_per_file=4
        )
        self.refs: dict[int, tuple[Ref, Ref]] = {
            seed: make_refs(self.folder / "stages", items=ITEMS, widths={"image": 2}, seed=seed) for seed in range(3)
        }
        self.versions: list[Version] = []
        self.dropped: list[float | None] = []
        self.recorded: dict[str, str] = {}
        self.killed: tuple[str, int] | None = None
        self.hours = 0.0
        self.swept: set[int] = set()

    def teardown(self) -> None:
        if self.versions:
            # A drop dated ahead, by a clock that went back since, is kept until the clock has caught up.
            self.jump(1000 * HOURS)
            sweep_table(PublishConfig(uri=self.config.uri, vacuum_after_hours=0))
            there = {str(x.relative_to(self.config.uri)) for x in Path(self.config.uri).rglob("*") if x.is_file()}
            visible = {unquote(x) for x in pa.table(DeltaTable(self.config.uri).get_add_actions())["path"].to_pylist()}
            logged = {f"_delta_log/{version:020d}.json" for version in range(len(self.versions))}
            assert there == visible | logged, there ^ (visible | logged)
        shutil.rmtree(self.folder)

    @property
    def current(self) -> Version:
        return self.versions[-1] if self.versions else {}

    def landed(self, version: Version) -> None:
        """A new version is shown; the one before is not from now on."""
        if self.dropped:
            self.dropped[-1] = self.hours
        self.versions.append(version)
        self.dropped.append(None)
        Publishing.published += 1

    def with_day(self, day: str, seed: int) -> Version | None:
        """What a run of that day leads to, None where the day is too old to stay."""
        kept = sorted({day, *self.current})[-KEEP:]
        return {x: y for x, y in (self.current | {day: seed}).items() if x in kept} if day in kept else None

    def night(self, day: str, seed: int) -> None:
        wanted = self.with_day(day, seed)
        with table_lock(self.config, run=f"rectify {day}"):
            if wanted is None:
                with pytest.raises(InputError, match="is older than"):
                    publish(self.config, self.refs[seed], day, seed)
                return
            done = publish(self.config, self.refs[seed], day, seed)
            assert done.published == (self.current.get(day) != seed)
            if done.published:
                self.landed(wanted)
            assert done.version == len(self.versions) - 1
            entry = trend_entry(identity(day, seed), "published", done.version, {}, [])
            if record_run(self.config, entry) or day not in self.recorded:
                self.recorded[day] = identity(day, seed).run_id

    @rule(day=DAYS, seed=SEEDS)
    def run(self, day: str, seed: int) -> None:
        """A night, late input (another seed) and repeated input (the same) among them."""
        self.night(day, seed)

    @rule(day=DAYS, seed=SEEDS, point=st.integers(1, 26))
    def kill(self, day: str, seed: int, point: int) -> None:
        """A process that publishes dies before its n-th change of the disk, or after them all."""
        wanted = self.with_day(day, seed)
        given = {"uri": self.config.uri, "keep_snapshots": KEEP, "vacuum_after_hours": HOURS, "rows_per_file": 4}
        ended = self.nursery.run("killed", point, given, plain(self.refs[seed]), day, seed)
        assert ended.code in (-9, 0, 2), ended.said
        assert ended.code != 2 or wanted is None
        is_there = DeltaTable.is_deltatable(self.config.uri)
        version = DeltaTable(self.config.uri).version() if is_there else -1
        if version == len(self.versions):
            assert wanted is not None
            self.landed(wanted)
        assert ended.code != 0 or self.current.get(day) == seed
        self.killed = (day, seed)

    @precondition(lambda self: self.killed is not None)
    @rule()
    def retry(self) -> None:
        """What died is run again."""
        assert self.killed is not None
        self.night(*self.killed)
        self.killed = None

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        """Back to any version: exactly its rows, or a refusal where they were swept."""
        to = data.draw(st.integers(0, len(self.versions) - 1))
        whole = {x["version"]: x["restorable"] for x in list_versions(self.config)}
        with table_lock(self.config, run="rollback"):
            if not whole[to]:
                with pytest.raises(InputError, match="files are gone"):
                    roll_back(self.config, to)
            elif roll_back(self.config, to).published:
                self.landed(self.versions[to])

    @rule()
    def sweep(self) -> None:
        """Tidy up: nothing that was shown in the last hours goes."""
        sweep_table(self.config)
        # A clock that goes back does not bring back what was swept by then.
        gone = (n for n, at in enumerate(self.dropped) if at is not None and self.hours - at > HOURS - 0.1)
        self.swept.update(gone)

    @rule(days=st.tuples(DAYS, DAYS), seeds=st.tuples(SEEDS, SEEDS))
    def rival_without_a_lock(self, days: tuple[str, str], seeds: tuple[int, int]) -> None:
        """Another process commits just before this one's commit takes its name: one of them wins, and the other says so."""
        if self.with_day(days[0], seeds[0]) is None or self.current.get(days[0]) == seeds[0]:
            return
        on_link.append(lambda: self.night(days[1], seeds[1]))
        before = len(self.versions)
        try:
            done = publish(self.config, self.refs[seeds[0]], days[0], seeds[0])
        except TableHeldError:
            assert len(self.versions) > before
        else:
            if len(self.versions) == before:
                wanted = self.with_day(days[0], seeds[0])
                assert wanted is not None
                self.landed(wanted)
            assert (done.version, self.current[days[0]]) == (len(self.versions) - 1, seeds[0]), self.versions
        finally:
            on_link.clear()

    @rule(hours=st.sampled_from([-30.0, -1.0, 1.0, 12.0, 30.0]))
    def jump(self, hours: float) -> None:
        """The clock goes forwards or backwards."""
        self.hours += hours
        for path in self.folder.rglob("*"):
            then = path.stat().st_mtime - hours * 3600
            if path.suffix == ".json" and "_delta_log" in path.parts:
                path.write_text(TIMES.sub(lambda x: _moved(x, hours), path.read_text()))
            os.utime(path, (then, then))

    @invariant()
    def readers_see_one_whole_version(self) -> None:
        if not self.versions:
            assert not DeltaTable.is_deltatable(self.config.uri)
            return
        table = DeltaTable(self.config.uri)
        assert table.version() == len(self.versions) - 1
        assert shown(self.config.uri) == {day: {identity(day, seed).run_id} for day, seed in self.current.items()}
        assert table.count() == ITEMS * len(self.current)
        assert len(self.current) <= KEEP

    @invariant()
    def every_version_is_listed(self) -> None:
        if not self.versions:
            return
        listed = list_versions(self.config)
        assert [x["version"] for x in listed] == [*range(len(self.versions))][::-1]
        assert [x["days"] for x in listed] == [sorted(x) for x in self.versions[::-1]]
        assert [x["current"] for x in listed] == [True] + [False] * (len(listed) - 1)
        for entry in listed:
            dropped = self.dropped[entry["version"]]
            if entry["version"] not in self.swept and (dropped is None or self.hours - dropped < HOURS - 0.1):
                assert entry["restorable"], f"version {entry['version']} was shown {self.hours} - {dropped} hours ago"
            if entry["restorable"]:
                version = self.versions[entry["version"]]
                runs = {x: {identity(x, seed).run_id} for x, seed in version.items()}
                assert shown(self.config.uri, entry["version"]) == runs

    @invariant()
    def the_trend_holds_the_last_run_of_each_day(self) -> None:
        assert {x["as_of"]: x["run_id"] for x in read_trend(self.config).days} == self.recorded


def _moved(found: re.Match[str], hours: float) -> str:
    return f"{found[1]}{max(0, int(found[2]) - int(hours * 3_600_000))}"
