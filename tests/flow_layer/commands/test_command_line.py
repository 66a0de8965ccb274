"""What users and schedulers rely on: the JSON on the last line, the exit status, and one clear line for what went wrong."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from flows.__main__ import app
from tests.support.flow.flow_support import ROOT, CommandLine, Published, days_of, table_uri

RESULT = {"run_id", "as_of", "version", "rows", "report", "modalities"}
MODALITY = {"mismatch_rate", "low", "high", "identifiable", "rectified", "passed_through", "imputed", "missing"}
HOLD = """
import sys, time
from tasks.table.config import PublishConfig
from tasks.table.lock import table_lock
with table_lock(PublishConfig(uri=sys.argv[1]), run="somebody else"):
    print("held", flush=True)
    time.sleep(300)
"""


def test_the_commands_end_with_what_the_contract_names(tmp_path: Path, cli: CommandLine) -> None:
    folder = tmp_path / "demo"
    size = ("--items", "300", "--users", "300", "--interactions", "6000", "--seed", "3")
    made = cli("demo", folder, *size, "--mismatch", "image=0.3", "--json")
    assert made.code == 0, made.err
    assert (made.result["items"], made.result["users"], made.result["seed"]) == (300, 300, 3)
    assert made.result["modalities"]["image"]["mismatch_rate"] == pytest.approx(0.3, abs=0.01)
    assert made.result["modalities"]["text"]["mismatch_rate"] == pytest.approx(0.1, abs=0.01)

    config = ("--config", folder / "run.toml")
    done = cli("rectify", *config, "--set", "anchors.epochs=2", "--set", "trust.resamples=20", "--json")
    assert done.code == 0, done.err
    result = done.result
    assert result.keys() >= RESULT
    # With no --as-of: the newest day of the log that is not after today.
    days = [date.fromisoformat(x.name.removeprefix("dt=")) for x in (folder / "interactions").iterdir()]
    assert result["as_of"] == str(max(day for day in days if day <= date.today()))
    assert (result["version"], result["rows"]) == (0, 300)
    assert set(result["modalities"]) == {"image", "text"}
    for found in result["modalities"].values():
        assert found.keys() >= MODALITY
        assert found["rectified"] + found["passed_through"] + found["imputed"] + found["missing"] == 300
        assert 0 <= found["low"] <= found["mismatch_rate"] <= found["high"] <= 1
    assert "<html" in Path(result["report"]).read_text()
    assert json.loads(Path(result["report"]).with_suffix(".json").read_text())["run"]["run_id"] == result["run_id"]

    listed = cli("versions", *config, "--json")
    assert listed.code == 0, listed.err
    assert [(x["version"], x["run_id"], x["current"]) for x in listed.result["versions"]] == [
        (0, result["run_id"], True)
    ]
    scored = cli("score", *config, "--truth", folder / "truth", "--json")
    assert scored.code == 0, scored.err
    assert {m: x["planted"] for m, x in scored.result["modalities"].items()} == {
        m: x["mismatches"] for m, x in made.result["modalities"].items()
    }
    assert 0 <= scored.result["modalities"]["text"]["precision"] <= 1
    rolled = cli("rollback", *config, "--to", "0", "--json")
    assert rolled.code == 0, rolled.err
    assert (rolled.result["version"], rolled.result["published"]) == (0, False)


def test_without_json_people_read_what_was_done(published: Published, cli: CommandLine) -> None:
    config = ("--config", published.demo / "run.toml")
    listed = cli("versions", *config).out.splitlines()
    assert len(listed) == 4
    assert "*2" in listed[1]
    assert "changed clearly" in listed[0]
    assert f"image {published.results[2]['modalities']['image']['moved']['more_than_0.1']:,}, text " in listed[1]
    assert published.results[2]["run_id"] in listed[1]
    text = cli("rectify", *config, "--as-of", published.days[0]).out
    assert text.startswith(f"{published.days[0]}: nothing new: version 2 of ")
    assert re.search(r"^  image: .*mismatched.*; .*(changed|none)", text, re.MULTILINE)
    assert " 0 " not in text
    assert text.rstrip().endswith(f"{published.demo}/runs/{published.results[0]['run_id']}/report.html")


BAD_CONFIG = {
    "no such file": (["--config", "missing.toml"], "missing.toml: the config cannot be read: No such file"),
    "a folder": (["--config", "."], "the config cannot be read: Is a directory"),
    "unknown key": (["--set", "anchors.epoch=3"], "run.toml: anchors.epoch: unknown key"),
    "bad value": (["--set", "anchors.epochs=many"], "run.toml: anchors.epochs: "),
    "bad --as-of": (["--as-of", "yesterday"], "--as-of yesterday: wanted a day as YYYY-MM-DD"),
}


@pytest.mark.parametrize("case", BAD_CONFIG)
def test_a_bad_config_is_one_line_that_names_the_key(tiny_demo: Path, case: str) -> None:
    options, message = BAD_CONFIG[case]
    options = [str(tiny_demo / x) if at and options[at - 1] == "--config" else x for at, x in enumerate(options)]
    if "--config" not in options:
        options = ["--config", str(tiny_demo / "run.toml"), *options]
    finished = CliRunner().invoke(app, ["rectify", *options, "--json"])
    assert finished.exit_code == 2
    assert message in finished.stderr
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert finished.stdout == ""


BAD_INPUT = {
    "missing catalog": ("source.catalog='nowhere'", "2026-06-30", "nowhere: no such file or folder"),
    "missing column": ("source.modalities.audio='sound'", "2026-06-30", "no column 'sound' (source.modalities.audio)"),
    "before any data": ("seed=0", "2001-02-03", "no interactions left: no partition up to 2001-02-03"),
    "no CUDA device": (
        "resources.device='cuda'",
        "2026-06-30",
        "resources.device: torch sees no CUDA device on this machine",
    ),
    "too much quarantined": ("source.max_quarantined=0.0", "2026-06-30", "source.max_quarantined"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_that_names_it(demo: Path, cli: CommandLine, case: str) -> None:
    override, day, said = BAD_INPUT[case]
    if "device" in override and torch.cuda.is_available():
        pytest.skip("here is one")
    finished = cli.rectify(demo, day, "--set", override)
    assert finished.code == 2, finished.err
    assert said in finished.error
    assert finished.out == ""
    assert days_of(table_uri(demo)) == []


def test_a_missing_log_is_named_when_no_day_is_given(demo: Path, cli: CommandLine) -> None:
    shutil.rmtree(demo / "interactions")
    finished = cli("rectify", "--config", demo / "run.toml")
    assert finished.code == 2
    assert f"{demo}/interactions: no such file or folder" in finished.error


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["versions"], "there is no table at"),
        (["rollback", "--to", "0"], "there is no table at"),
        (["score", "--truth", "truth"], "no published table can be read there"),
    ],
)
def test_commands_about_a_table_that_is_not_there(tiny_demo: Path, command: list[str], said: str) -> None:
    words = [str(tiny_demo / x) if x == "truth" else x for x in command]
    finished = CliRunner().invoke(app, [*words, "--config", str(tiny_demo / "run.toml"), "--json"])
    assert finished.exit_code == 2
    assert said in finished.stderr
    assert finished.stdout == ""


def test_a_rollback_to_no_version_and_a_bad_demo(published: Published, cli: CommandLine, tmp_path: Path) -> None:
    finished = cli("rollback", "--config", published.demo / "run.toml", "--to", "9")
    assert finished.code == 2
    assert "--to 9: " in finished.error
    assert days_of(table_uri(published.demo)) == published.days
    for given, said in (
        (["--items", "7"], "demo: items: "),
        (["--mismatch", "smell=0.2"], '"smell"'),
        (["--mismatch", "image"], "--mismatch image: "),
    ):
        finished = cli("demo", tmp_path / "new", *given)
        assert finished.code == 2
        assert said in finished.error
        assert not (tmp_path / "new").exists()


def test_a_refusing_gate_publishes_nothing_and_says_why(published: Published, cli: CommandLine) -> None:
    uri, day = table_uri(published.demo), published.tomorrow
    refuse = ("--set", "quality.max_changed=0.0", "--set", "quality.changed_below=1.0")
    finished = cli.rectify(published.demo, day, *refuse)
    assert finished.code == 3, finished.err
    assert (
        f"error: {day}: the quality gate refused, nothing was published: image: share of trusted items"
        in finished.error
    )
    assert finished.out == ""
    assert days_of(uri) == published.days
    report = Path(finished.error.split("; see ")[1])
    assert json.loads(report.with_suffix(".json").read_text())["run"]["outcome"] == "refused"
    assert "refused" in report.read_text().lower()
    assert not report.with_name("summary.json").exists()
    # A repeat of the refusal is a refusal.
    assert cli.rectify(published.demo, day, *refuse).code == 3
    listed = cli("versions", "--config", published.demo / "run.toml", "--json").result["versions"]
    assert [x["version"] for x in listed] == [2, 1, 0]
    assert cli.published(published.demo, day)["version"] == 3


def test_a_gate_that_refuses_the_first_run_leaves_no_table(published: Published, cli: CommandLine) -> None:
    shutil.rmtree(published.demo / "warehouse")
    finished = cli.rectify(published.demo, published.days[2], "--set", "quality.max_marginal_error=0.0")
    assert finished.code == 3, finished.err
    assert "mean column error of the plan" in finished.error
    assert not (published.demo / "warehouse" / "item_features").exists()


def test_drift_from_the_last_published_day_is_refused(published: Published, cli: CommandLine) -> None:
    catalog = published.demo / "catalog" / "part-00000.parquet"
    frame = pl.read_parquet(catalog)
    # Another embedding model of the same width: every image is new.
    turned = pl.col("image_embedding").list.reverse() * -1.0
    frame.with_columns(image_embedding=turned.cast(frame.schema["image_embedding"])).write_parquet(catalog)
    finished = cli.rectify(published.demo, published.days[2], "--set", "rectify.keep_original=0.9")
    assert finished.code == 3, finished.err
    assert "image: mean cosine to the last published version" in finished.error
    assert "text" not in finished.error.split("; see ")[0]


def test_while_another_process_holds_the_table(published: Published, cli: CommandLine) -> None:
    uri = table_uri(published.demo)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, uri], env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        commands = [
            ("rectify", "--as-of", published.days[2], "--set", "rectify.keep_original=0.5"),
            ("rollback", "--to", "0"),
        ]
        for command in commands:
            finished = cli(*command, "--config", published.demo / "run.toml", "--json")
            assert finished.code == 4, finished.err
            assert f"pid {holder.pid}" in finished.error
            assert "somebody else" in finished.error
            assert finished.out == ""
        assert days_of(uri) == published.days
        # Looking needs no lock.
        assert cli("versions", "--config", published.demo / "run.toml").code == 0
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert cli("rollback", "--config", published.demo / "run.toml", "--to", "0").code == 0


def test_a_traceback_and_the_same_exit_status_with_debug(demo: Path, cli: CommandLine) -> None:
    for arguments in (("--set", "anchors.epoch=3"), ("--as-of", "2001-02-03")):
        finished = cli("rectify", "--config", demo / "run.toml", *arguments, "--debug")
        assert finished.code == 2
        assert "Traceback (most recent call last)" in finished.err
        assert [x for x in finished.err.splitlines() if x.startswith("error: ")]


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_has_ended_is_not_undone_by_the_end_of_a_library(code: int) -> None:
    # A library whose globals abort the process as they go, as C's own exit would have it; and one that has something to do before that.
    script = """
import atexit, ctypes, sys
from flows.commands import shared as command_line
import typer

libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
app, code = typer.Typer(), int(sys.argv.pop())

@app.command()
def work():
    atexit.register(print, "the last words of a handler")
    print("done")
    raise typer.Exit(code)

command_line.run_app(app)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.split("\n") == ["done", "the last words of a handler", ""]
