"""Shared by every test: Prefect's files in a temporary folder, a tiny demo catalog, a Prefect server, and the command line."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.__main__ import PREFECT_DEFAULTS
from tests.flow_layer.flow_support import CommandLine, serve_prefect, write_tiny_demo

PREFECT_ENVIRONMENT = {**PREFECT_DEFAULTS, "PREFECT_LOGGING_COLORS": "false"}


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports Prefect: its home is a folder of this session, so that nothing lands in the user's."""
    home = tempfile.mkdtemp(prefix="prefect-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ.update(PREFECT_ENVIRONMENT, PREFECT_HOME=home)
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of 400 items, 640 users and 10,000 log rows over 10 days, with a config of short runs; copy it before writing to it."""
    return write_tiny_demo(tmp_path_factory.mktemp("tiny") / "demo")


@pytest.fixture
def demo(tiny_demo: Path, tmp_path: Path) -> Path:
    """The test's own copy of the tiny demo."""
    return Path(shutil.copytree(tiny_demo, tmp_path / "demo"))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API url of a real Prefect server, in a process of its own with a home of its own; its files lie in PREFECT_HOME."""
    with serve_prefect(tmp_path_factory.mktemp("prefect-server")) as url:
        yield url


@pytest.fixture(scope="session")
def cli(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """``python -m flows`` with the session's Prefect server."""
    return CommandLine(tmp_path_factory.mktemp("command-line"), {"PREFECT_API_URL": prefect_server})
