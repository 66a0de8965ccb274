"""A catalog whose every string attacks: pages show it as text, tables as cells, and no file is called or lies as it says."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from tests.support.flow.flow_support import CommandLine, Finished
from tests.support.report_samples import PageText

CHROMIUM = shutil.which("chromium")
PWN = "document.documentElement.dataset.pwned=1"
ATTACKS = (
    f"<script>{PWN}</script>",
    f'"><img src=x onerror="{PWN}">',
    f"'><svg onload='{PWN}'>",
    f"</title><script>{PWN}</script>",
    f'</style></script><iframe srcdoc="<script>parent.{PWN}</script>">',
    f'<a href="javascript:{PWN}">x</a>',
    "{{ 7 * 7 }}{% for x in range(9) %}{{ x }}{% endfor %}",
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-2",
    "@SUM(A1)",
    "\t=1+1",
    "../../../../tmp/pwned",
    "/etc/passwd",
    "a\\..\\b",
    "x\ry",
    "\u202ecod.exe",
    "\x1b[2J",
)
PICTURES = (
    f"javascript:{PWN}",
    f"data:text/html,<script>{PWN}</script>",
    f"data:image/svg+xml,<svg onload='{PWN}'/>",
    "file:///etc/passwd",
)
PICTURES += (
    f'https://x.invalid/a.png"onerror="{PWN}',
    "//x.invalid/a.png",
    "https://u:p@x.invalid/a.png",
    "https://x.invalid/a.png",
)
FILE_NAME = re.compile(r"[A-Za-z0-9._=-]+")


class Night(NamedTuple):
    """A shop of attacks after a night, an audit and two exports; what lay in its folder before, and what the commands said."""

    folder: Path
    said: list[Finished]
    before: set[str]

    @property
    def pages(self) -> list[Path]:
        """Every page that was written."""
        return sorted(self.folder.rglob("*.html"))


@pytest.fixture(scope="module")
def night(tiny_demo: Path, cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("hostile") / "shop"))
    _spoil(folder)
    before = _files(folder.parent)
    config = ("--config", folder / "run.toml", "--json")
    said = [
        cli("rectify", *config),
        cli("audit", *config, "--top", "40", "--hand-check", "10"),
        cli("export", *config, "--format", "npy", "--out", folder / "npy"),
        cli("export", *config, "--format", "mmrec", "--out", folder / "mmrec"),
    ]
    return Night(folder, said, before)


def _spoil(demo: Path) -> None:
    """Give every item, user, title and category of a demo a name that attacks, and the items pictures that do."""
    [path] = (demo / "catalog").glob("*.parquet")
    catalog = pl.read_parquet(path)
    named = [f"{ATTACKS[x % len(ATTACKS)]}{x}" for x in range(catalog.height)]
    ids = {old: new for old, new in zip(catalog["item_id"].to_list(), named, strict=True) if old is not None}
    catalog.with_columns(
        pl.col("item_id").replace(ids),
        title=pl.Series([f"{ATTACKS[x * 5 % len(ATTACKS)]} {x}" for x in range(catalog.height)]),
        category=pl.col("category")
        .rank("dense")
        .cast(pl.String)
        .map_elements(lambda x: f"{ATTACKS[int(x) % 4]} {x}", pl.String),
        picture=pl.Series([PICTURES[x % len(PICTURES)] for x in range(catalog.height)]),
    ).write_parquet(path)
    for path in (demo / "interactions").rglob("*.parquet"):
        log = pl.read_parquet(path, hive_partitioning=False)
        log.with_columns(
            pl.col("item_id").replace(ids), pl.concat_str(pl.lit(ATTACKS[1]), "user_id").alias("user_id")
        ).write_parquet(path)
    text = (demo / "run.toml").read_text()
    (demo / "run.toml").write_text(
        text.replace('title_column = "title"', 'title_column = "title"\npicture_column = "picture"')
    )


def _files(folder: Path) -> set[str]:
    return {str(x.relative_to(folder)) for x in folder.rglob("*")}


def test_it_is_a_night_like_any_other(night: Night) -> None:
    assert [x.code for x in night.said[:3]] == [0, 0, 0], [x.err for x in night.said]
    assert night.said[3].code in (0, 2), night.said[3].err
    assert night.said[0].result["rows"] >= 390
    for finished in night.said:
        assert "Traceback" not in finished.err
        assert not any(x in finished.out + finished.err for x in ("\x1b[2J", "\u202e")), (
            "control characters reached the terminal"
        )


def test_no_file_is_called_or_lies_as_the_catalog_says(night: Night) -> None:
    new = _files(night.folder.parent) - night.before
    assert len(new) > 50
    assert {Path(x).parts[1] for x in new} <= {"warehouse", "runs", "npy", "mmrec"}
    assert all(FILE_NAME.fullmatch(part) for x in new for part in Path(x).parts)
    assert not Path("/tmp/pwned").exists()


def test_pages_hold_attacks_as_text_alone(night: Night) -> None:
    assert {x.name for x in night.pages} == {"report.html", "audit.html"}
    for path in night.pages:
        _assert_harmless(PageText(path.read_text()))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the pages in")
def test_a_browser_that_would_run_scripts_runs_none(night: Night, tmp_path: Path) -> None:
    for path in night.pages:
        # Without its policy the page would run whatever got in.
        bare = tmp_path / path.name
        bare.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text()))
        found = _dom(bare, tmp_path / f"profile-{path.stem}")
        assert "data-pwned" not in found.split(">", 2)[1]
        page = PageText(found)
        _assert_harmless(page)
        assert f"<script>{PWN}</script>" in page.text
    control = tmp_path / "control.html"
    control.write_text(f"<html><body>{ATTACKS[1]}</body></html>")
    assert 'data-pwned="1"' in _dom(control, tmp_path / "profile-control"), (
        "the browser runs no scripts: the test would see nothing"
    )


def _dom(page: Path, profile: Path) -> str:
    options = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    budget = ["--virtual-time-budget=2000", "--dump-dom"]
    command = [str(CHROMIUM), *options.split(), f"--user-data-dir={profile}", *budget, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def _assert_harmless(page: PageText) -> None:
    """No script, handler, frame or address but those of the page itself and pictures by http."""
    assert not {tag for tag, _, _ in page.attributes} & {"script", "iframe", "object", "embed", "base", "form"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name, value)
        if name in ("href", "xlink:href"):
            assert value.startswith("#") or value == "audit/audit.html", value
        if name == "src":
            assert re.match(r"https?://x\.invalid/|data:image/(png|jpeg|gif|webp|avif);", value), value
            assert "onerror" not in value


def test_no_cell_of_a_table_is_a_formula(night: Night) -> None:
    tables = [*night.folder.rglob("runs/**/*.csv")]
    assert {x.name for x in tables} >= {"suspects.csv"}
    cells = [cell for path in tables for row in csv.reader(path.open(encoding="utf-8", newline="")) for cell in row]
    assert any("cmd|" in x for x in cells)
    numbers = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
    assert not [x for x in cells if x.startswith(("=", "+", "-", "@", "\t", "\r")) and not numbers.fullmatch(x)]
