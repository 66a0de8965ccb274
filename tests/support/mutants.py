"""Deliberate bugs of persistence, each put into a copy of the source: the tests named beside it must fail there.

``python -m tests.support.mutants [NAME ...]`` prints a table and ends with status 1 where one survives, or where a test fails without a bug.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("rectifier_core", "tasks", "flows", "tests", "pyproject.toml")
LAYER = "tests/task_layer"
POWER = f"{LAYER}/test_power_loss.py::test_a_power_cut_leaves_a_version_whole"
CRASH = f"{LAYER}/test_publish_crash.py"
HISTORY = f"{LAYER}/test_publish_history.py"
TABLE = f"{LAYER}/test_publish_table.py"
GATE = "tests/flow_layer/commands/test_command_line.py::test_a_gate_that_refuses_the_first_run_leaves_no_table"


class Mutant(NamedTuple):
    """A bug: the text of one file that is replaced, and the tests that must see it."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "the commit comes before the audit",
        "tasks/table/publish.py",
        '            provenance["item_ids_digest"] = audit_files(files, rows, written)\n',
        "            _commit_or_yield(config, identity, files, rows.schema, written, provenance)\n"
        "            audit_files(files, rows, written)\n",
        (f"{TABLE}::test_a_value_that_is_not_finite_is_never_published",),
    ),
    Mutant("data is not flushed", "tasks/table/files.py", "            fsync(temporary)\n", "", (POWER,)),
    Mutant(
        "the folder of the data is not flushed",
        "tasks/table/files.py",
        "            fsync(final.parent)\n",
        "",
        (POWER,),
    ),
    Mutant("a new folder is not flushed", "tasks/table/files.py", "        fsync(new.parent)\n", "", (POWER,)),
    Mutant(
        "the commit is not flushed before it has its name",
        "tasks/table/commit.py",
        "        fsync(made)\n",
        "",
        (POWER,),
    ),
    Mutant(
        "the log's folder is not flushed",
        "tasks/table/publish.py",
        "        files.flush(LOG)\n",
        "        pass\n",
        (POWER,),
    ),
    Mutant("a checkpoint is not flushed", "tasks/table/commit.py", "            fsync(path)\n", "", (POWER,)),
    Mutant(
        "temporary files share a name",
        "tasks/table/files.py",
        '.{os.getpid()}-{token_hex(4)}.tmp"',
        '.tmp"',
        (f"{CRASH}::test_two_publishers_of_the_very_same_run_write_at_the_same_time",),
    ),
    Mutant(
        "a commit takes a name that another has",
        "tasks/table/commit.py",
        "        os.link(made, self.files.root / commit_path(version))\n",
        "        os.replace(made, self.files.root / commit_path(version))\n",
        (f"{CRASH}::test_a_publisher_that_loses_the_race_says_so_and_leaves_nothing_behind",),
    ),
    Mutant(
        "what landed is taken for lost",
        "tasks/table/publish.py",
        "landed = since[-1] if since else None",
        "landed = None",
        (f"{CRASH}::test_two_publishers_of_the_very_same_run_end_as_one",),
    ),
    Mutant(
        "the lock is not taken",
        "tasks/store/file_lock.py",
        "        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        fcntl.LOCK_EX\n",
        (f"{LAYER}/test_table_lock.py",),
    ),
    Mutant(
        "the sweep goes by no age",
        "tasks/table/cleanup.py",
        " and x.modified < horizon]",
        "]",
        (f"{HISTORY}::test_a_sweep_before_the_first_commit_takes_only_what_is_old",),
    ),
    Mutant(
        "the sweep forgets what was dropped lately",
        "tasks/table/cleanup.py",
        "if dropped >= horizon * 1000)",
        "if dropped < 0)",
        (f"{HISTORY}::test_the_sweep_goes_by_age_and_makes_no_commit",),
    ),
    Mutant(
        "a repeat is not recognised",
        "tasks/table/publish.py",
        "    if of_day and recorded == identity.transaction",
        "    if not of_day and recorded == identity.transaction",
        (f"{TABLE}::test_three_days_are_three_partitions_and_a_repeat_publishes_nothing",),
    ),
    Mutant(
        "a rolled-back run is taken for published",
        "tasks/table/publish.py",
        " and recorded == identity.transaction and all(x.transaction == recorded for x in of_day):",
        ":",
        (f"{HISTORY}::test_after_a_rollback_a_run_is_judged_by_what_is_visible",),
    ),
    Mutant(
        "the day's former files stay",
        "tasks/table/publish.py",
        "    return (identity.day, *(day for day in days_shown(shown) if day not in kept))\n",
        "    return tuple(day for day in days_shown(shown) if day not in kept) or ('1970-01-01',)\n",
        (f"{TABLE}::test_a_changed_run_replaces_its_own_day_and_no_other",),
    ),
    Mutant(
        "a rollback leaves the transactions as they are",
        "tasks/table/history.py",
        "app_transactions=_transactions(table, wanted)",
        "app_transactions=[]",
        (f"{HISTORY}::test_after_a_rollback_a_run_is_judged_by_what_is_visible",),
    ),
    Mutant(
        "a run published again writes over files that an old version shows",
        "tasks/table/publish.py",
        "    return max((number + 1 for path, number in there.items() if path in known), default=0)\n",
        "    return 0\n",
        (f"{HISTORY}::test_after_a_rollback_a_run_is_judged_by_what_is_visible",),
    ),
    Mutant(
        "the gate is not heard",
        "flows/nightly.py",
        "rectified, facts) if quality.passed else None",
        "rectified, facts)",
        (GATE,),
    ),
    Mutant(
        "the log of long ago hides what one wrong clock dates before it",
        "tasks/table/log.py",
        "all(x.timestamp < since for x in some)",
        "some[-1].timestamp < since",
        (f"{HISTORY}::test_one_commit_by_a_wrong_clock_does_not_hide_what_was_dropped_lately",),
    ),
    Mutant(
        "the trend goes by the clock alone",
        "tasks/table/trend.py",
        "max(mine, newest + timedelta(milliseconds=1))",
        "mine",
        (f"{LAYER}/test_trend.py::test_a_day_shows_the_run_recorded_last",),
    ),
)


def mutate(folder: Path, mutant: Mutant) -> None:
    """Put a bug into a copy of the source. Raises ValueError where the text is not there exactly once."""
    path = folder / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: the text is in {mutant.path} {text.count(mutant.old)} times; bring the mutant up to date"
        )
    path.write_text(text.replace(mutant.old, mutant.new))


def fails(folder: Path, tests: tuple[str, ...]) -> bool:
    """Whether one of the tests fails on the source in ``folder``. Raises RuntimeError where they could not be run."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or " error" in done.stdout.splitlines()[-1]:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-1000:])
    return done.returncode == 1


def main() -> int:
    wanted = [x for x in MUTANTS if not sys.argv[1:] or x.name in sys.argv[1:]]
    survived = []
    with tempfile.TemporaryDirectory() as place:
        clean = Path(place) / "clean"
        for name in COPIED:
            source, to = ROOT / name, clean / name
            to.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
            else:
                shutil.copy(source, to)
        if fails(clean, tuple(dict.fromkeys(test for x in wanted for test in x.tests))):
            sys.stdout.write("a test fails on the source as it is: nothing can be said\n")
            return 1
        sys.stdout.write("| bug | killed by | seconds |\n|---|---|---|\n")
        for mutant in wanted:
            folder = Path(shutil.copytree(clean, Path(place) / "mutant"))
            mutate(folder, mutant)
            start = time.monotonic()
            killed = fails(folder, mutant.tests)
            shutil.rmtree(folder)
            survived += [] if killed else [mutant.name]
            by = ", ".join(f"`{x.rpartition('/')[2]}`" for x in mutant.tests)
            sys.stdout.write(
                f"| {mutant.name} | {by if killed else '**survived**'} | {time.monotonic() - start:.0f} |\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"\n{len(wanted) - len(survived)} of {len(wanted)} killed.\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
