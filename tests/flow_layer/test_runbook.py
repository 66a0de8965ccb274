"""The runbook's commands: every one is there with its options, those marked as tested are run, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex

import pytest
import typer

from flows.__main__ import app
from tests.flow_layer.flow_support import ROOT, CommandLine, Published

RUNBOOK = ROOT / "docs" / "runbook.md"
BLOCK = re.compile(r"^```sh( tested)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
FLOWS = "python -m flows "


def commands(*, tested: bool) -> list[tuple[str, int]]:
    """The runbook's ``python -m flows`` lines without their comments, and the exit status that each comment gives (0 where none does)."""
    found = []
    for mark, text in BLOCK.findall(RUNBOOK.read_text()):
        for line in text.splitlines():
            command, _, comment = line.partition("  # ")
            status = re.match(r"exits (\d+)", comment.strip())
            if FLOWS in command and bool(mark) == tested:
                found.append((command[command.index(FLOWS) :].strip(), int(status[1]) if status else 0))
    return found


@pytest.mark.parametrize("line", [x for x, _ in commands(tested=True) + commands(tested=False)])
def test_a_command_of_the_runbook_is_there_with_its_options(line: str) -> None:
    command, words = typer.main.get_command(app), shlex.split(line.removeprefix(FLOWS))
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {x for parameter in command.params for x in parameter.opts} | {"--help"}
    assert {x for x in words if x.startswith("--")} <= options


def test_the_tested_ones_run(published: Published, cli: CommandLine) -> None:
    lines = commands(tested=True)
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


def test_links_lead_somewhere() -> None:
    text = RUNBOOK.read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", x.lower()).strip().replace(" ", "-") for x in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (RUNBOOK.parent / path).exists() if path else anchor in anchors, target


def test_every_exit_status_has_its_line() -> None:
    table = RUNBOOK.read_text().split("## By exit status")[1].split("## By alert")[0]
    assert [x for x in ("0", "1", "2", "3", "4", "130") if f"\n| {x} |" not in table] == []
