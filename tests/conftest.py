"""Shared by every test: one thread a library, Prefect's files in a temporary folder, a tiny demo, a Prefect server, the command line.

Nothing heavy is imported here before ``pytest_configure``: NumPy, torch and Prefect read their environment once, when they are loaded.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.flow.flow_support import CommandLine

# On arrays this small threads cost more than they bring; where other work has the cores, they cost ten times as much.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is imported: few threads, and a home for Prefect that goes with the session and is not the user's."""
    from hypothesis import settings

    from flows.config.prefect_settings import PREFECT_DEFAULTS

    # The first example of a test may wait for the processor.
    settings.register_profile("tests", deadline=None)
    settings.load_profile("tests")
    home = tempfile.mkdtemp(prefix="prefect-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [x for x in os.environ if x.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update({**PREFECT_DEFAULTS, **THREADS, "PREFECT_HOME": home, "PREFECT_LOGGING_COLORS": "false"})


def pytest_unconfigure() -> None:
    """Let go of DuckDB as Feast opened it, before the interpreter ends: it would print what it takes for leaks."""
    if (ibis := sys.modules.get("ibis")) is not None:
        ibis.options.default_backend = None


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of 400 items, 640 users and 10,000 log rows over 10 days, with a config of short runs; copy it before writing to it."""
    from tests.support.flow.flow_support import write_tiny_demo

    return write_tiny_demo(tmp_path_factory.mktemp("tiny") / "demo")


@pytest.fixture
def demo(tiny_demo: Path, tmp_path: Path) -> Path:
    """The test's own copy of the tiny demo."""
    return Path(shutil.copytree(tiny_demo, tmp_path / "demo"))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API url of a real Prefect server, in a process of its own with a home of its own."""
    from tests.support.flow.flow_support import serve_prefect

    with serve_prefect(tmp_path_factory.mktemp("prefect-server")) as url:
        yield url


@pytest.fixture(scope="session")
def cli(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """``catalog-rectifier`` with the session's Prefect server."""
    from tests.support.flow.flow_support import CommandLine

    return CommandLine(tmp_path_factory.mktemp("command-line"), {"PREFECT_API_URL": prefect_server})
