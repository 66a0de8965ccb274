"""A night's end killed and failed at every point where it persists, counted: ``python -m benchmarks.nights.faults``."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.table.faults import CLASSES, DEATH, Nursery
from tests.support.table.persistence import Outcome, all_faults, disturbed, scenes
from tests.support.table.publish_support import environment

HEAD = """# Faults where a night's end persists

    python -m benchmarks.nights.faults

Each scene's job (lock, publish, trend, summary, sweep, checkpoint; or a rollback) runs once under strace. Every call that changes the disk
is a point; at each the job is killed (`SIGKILL`) or the call fails, in a fresh copy of the scene. After each: readers see the old version
or the new one, bit for bit; an error is one line and exit status 1; the job done again ends with the files of an undisturbed run, not a
commit more; an hour later nothing else is left.
"""


def table(outcomes: list[Outcome]) -> str:
    """Points and outcomes by scene and kind of call."""
    lines = [
        "| scene | call | points | killed: old / new version seen | failing: tolerated / exit 1, old seen / exit 1, new seen |",
        "|---|---|---|---|---|",
    ]
    for scene in dict.fromkeys(x.scene for x in outcomes):
        for kind in CLASSES:
            here = [x for x in outcomes if x.scene == scene and x.point.kind == kind]
            if not here:
                continue
            killed = Counter(x.landed for x in here if x.fault == DEATH)
            failed = Counter((x.code, x.landed) for x in here if x.fault != DEATH)
            tolerated = failed[0, True] + failed[0, False]
            lines.append(
                f"| {scene} | {kind} | {len({x.point for x in here})} | {killed[False]} / {killed[True]}"
                f" | {tolerated} / {failed[1, False]} / {failed[1, True]} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 where something did not hold."""
    outcomes, broken = list[Outcome](), list[str]()
    with tempfile.TemporaryDirectory() as place:
        nursery = Nursery("tests.support.table.night_jobs", Path(place), environment())
        for scene in scenes(Path(place) / "scenes", nursery):
            found, wrong = disturbed(scene, all_faults(scene))
            outcomes += found
            broken += wrong
            print(
                f"{scene.name}: {len(found)} held, {len(wrong)} did not", *wrong, sep="\n", file=sys.stderr, flush=True
            )
        nursery.close()
    points = len({(x.scene, x.point) for x in outcomes})
    print(HEAD)
    print(f"{points} points, {len(outcomes) + len(broken)} faults, {len(broken)} after which something did not hold.\n")
    print(table(outcomes))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
