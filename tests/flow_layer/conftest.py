"""Runs that many tests look at and none may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.flow.flow_support import CommandLine, Published, last_days


@pytest.fixture(scope="session")
def three_days(tiny_demo: Path, cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """All but one of the demo's last four days, each published by a process of its own."""
    demo = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("three-days") / "demo"))
    *days, tomorrow = last_days(4)
    return Published(demo, days, [cli.published(demo, day) for day in days], tomorrow)


@pytest.fixture
def published(three_days: Published, tmp_path: Path) -> Published:
    """The test's own copy of those three days."""
    return three_days._replace(demo=Path(shutil.copytree(three_days.demo, tmp_path / "published")))


@pytest.fixture(scope="session")
def one_day(tiny_demo: Path, cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The same demo elsewhere, with only the second of those days ever run."""
    demo = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("one-day") / "elsewhere"))
    _, day, tomorrow, _ = last_days(4)
    return Published(demo, [day], [cli.published(demo, day)], tomorrow)
