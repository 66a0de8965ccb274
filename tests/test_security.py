"""What no source file may do, as far as ruff (rules S and TID251 in pyproject.toml) does not see it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("rectifier_core", "tasks", "flows", "deployments")


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_arrays_are_read_and_written_without_pickle() -> None:
    assert len(sources()) > 100
    loose = [x for x in sources() if re.search(r"allow_pickle\s*=\s*(?!False\b)|noqa: TID251", x.read_text())]
    assert not loose


def test_every_page_is_made_by_an_environment_that_escapes() -> None:
    makers = [path for path in sources() if re.search(r"\b(Environment|Template)\(", path.read_text())]
    assert [path.name for path in makers] == ["page_templates.py"]
    assert "autoescape=True" in makers[0].read_text()
    templates = sorted((ROOT / "tasks").rglob("*.j2"))
    assert templates
    for template in templates:
        assert not re.search(r"\|\s*safe\b|autoescape\s+false", template.read_text()), template.name


def test_files_that_start_servers_bind_to_loopback() -> None:
    told = [ROOT / "Makefile", *(ROOT / "deployments").rglob("*.y*ml"), *(ROOT / "deployments").rglob("*.py")]
    for path in (x for x in told if x.exists()):
        for line in path.read_text().splitlines():
            assert (
                "prefect server start" not in line
                or "--host 127.0.0.1" in line
                or "PREFECT_SERVER_API_HOST" in path.read_text()
            ), path
