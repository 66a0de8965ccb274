"""The runbook's commands that are marked as tested are run, and what it says of the log and of exit statuses is so."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.support.flow.flow_support import ROOT, CommandLine, Published

RUNBOOK = ROOT / "docs" / "runbook.md"
BLOCK = re.compile(r"^```sh( tested)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
FLOWS = "catalog-rectifier "


def commands_tried() -> list[tuple[str, int]]:
    """Those ``catalog-rectifier`` lines without their comments, and the exit status that each comment gives (0 where none does)."""
    found = []
    for mark, text in BLOCK.findall(RUNBOOK.read_text()):
        for line in text.splitlines():
            command, _, comment = line.partition("  # ")
            status = re.match(r"exits (\d+)", comment.strip())
            if FLOWS in command and mark:
                found.append((command[command.index(FLOWS) :].strip(), int(status[1]) if status else 0))
    return found


@pytest.mark.slow
def test_the_tested_ones_run(published: Published, cli: CommandLine) -> None:
    lines = commands_tried()
    assert len(lines) >= 6
    for line, status in lines:
        words = [str(published.demo / x) if x == "run.toml" else x for x in shlex.split(line.removeprefix(FLOWS))]
        finished = cli(*words)
        assert finished.code == status, (line, finished.err)


def test_reading_the_log_works_as_written(three_days: Published) -> None:
    day = three_days.days[-1]
    text = next(x for _, block in BLOCK.findall(RUNBOOK.read_text()) for x in block.splitlines() if "jq" in x)
    lines = (three_days.demo / "runs" / "logs" / f"{day}.log").read_text().splitlines()
    # jq may not be here; what it is asked for must be in every line.
    wanted = re.findall(r"\.(\w+)", text.partition("jq")[2].partition("|")[0])
    assert wanted == ["time", "level", "stage", "message"]
    assert all(f'"{name}": ' in line for name in wanted for line in lines)


def test_every_exit_status_has_its_line() -> None:
    table = RUNBOOK.read_text().split("## By exit status")[1].split("## By alert")[0]
    assert [x for x in ("0", "1", "2", "3", "4", "130") if f"\n| {x} |" not in table] == []
