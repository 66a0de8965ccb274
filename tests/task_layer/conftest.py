"""A cluster that lives in this process, and publishers that live in others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import LocalCluster

from tests.support.table.faults import Nursery
from tests.support.table.publish_support import environment


@pytest.fixture(scope="session")
def in_process_cluster() -> Iterator[LocalCluster]:
    """A scheduler and one worker of one thread, spoken to over TCP."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp", host="127.0.0.1"
    ) as found:
        yield found


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Publishers as processes that start in milliseconds."""
    found = Nursery("tests.support.table.night_jobs", tmp_path_factory.mktemp("nursery"), environment())
    yield found
    found.close()
