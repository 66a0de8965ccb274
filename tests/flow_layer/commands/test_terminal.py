"""What a terminal and a pipe see of a command: bars, lines, the result, and nothing twice."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.__main__ import app
from flows.commands.terminal import Bars, Lines, row_of
from tasks.progress import displays, show_on
from tasks.store.run_context import RunContext, bind_run, timed_stage
from tests.support.flow.flow_support import CommandLine, Published

# As Prefect's threads do, which send what is left when the process ends.
LATE = """
import atexit, logging, sys
from flows.__main__ import app
from flows.commands.shared import run_app
logging.basicConfig()
atexit.register(lambda: logging.getLogger("EventsWorker").warning("Still processing items: 4 items remaining..."))
sys.argv = ["catalog-rectifier", "versions", "--config", "missing.toml", "--verbose"]
run_app(app)
"""


@pytest.mark.parametrize("words", [["versions"], ["status"], ["freshness", "--within", "900000"]])
def test_with_json_standard_output_is_one_object(three_days: Published, words: list[str]) -> None:
    command = [*words, "--config", str(three_days.demo / "run.toml")]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0 and isinstance(json.loads(done.stdout), dict) and done.stderr == ""
    plain = CliRunner().invoke(app, command)
    assert plain.exit_code == 0 and not plain.stdout.startswith("{") and plain.stderr == ""


def test_a_night_shows_its_result_and_the_file_its_log(published: Published, cli: CommandLine) -> None:
    config = ("--config", published.demo / "run.toml", "--as-of", published.tomorrow)
    quiet = cli("rectify", *config, "--quiet")
    assert (quiet.code, quiet.err) == (0, "") and len(quiet.out.splitlines()) == 4
    log = (published.demo / "runs" / "logs" / f"{published.tomorrow}.log").read_text()
    assert "gate: image: mean column error" in log and '"outcome": "published"' in log
    both = cli("rectify", *config, "--quiet", "--verbose")
    assert (both.code, both.error) == (2, "error: --quiet, --verbose: give one of the two")


def test_a_late_table_is_said_once(three_days: Published, cli: CommandLine) -> None:
    late = cli("freshness", "--config", three_days.demo / "run.toml", "--within", "24")
    assert (late.code, late.out) == (1, "") and late.err.count("the newest published day") == 1


def test_the_error_line_is_the_last() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: missing.toml: the config cannot be read: No such file or directory\n"


def test_elsewhere_than_on_a_terminal_only_long_stages_get_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.end("anchors", 75.0)
    lines.end("copies/image", 0.2)
    lines.advance("reading", 1, 2)
    assert capsys.readouterr().err == "anchors: 75 s\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_bars_show_stages_and_leave_nothing_behind(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    bars = Bars(Console(file=stream, force_terminal=True, width=80))
    with show_on(bars):
        with timed_stage("sinkhorn/image"):
            bars.advance("balancing", 3, 10)
        with bind_run(RunContext(folder=Path())):
            bars.advance("days", 1, 2)
            bars.advance("start", 1, 1)
        bars.note("warning: one thing")
    bars.close()
    assert displays() == ()
    stream.seek(0)
    shown = stream.read()
    assert (
        row_of("sinkhorn/image") == "matching"
        and "matching" in shown
        and "days" in shown
        and "warning: one thing" in shown
    )
    assert "0 s left" not in shown
    # The last thing sent erases the bars.
    assert shown.endswith("\x1b[2K")
