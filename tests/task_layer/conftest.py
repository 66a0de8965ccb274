"""A cluster that lives in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import LocalCluster


@pytest.fixture(scope="session")
def in_process_cluster() -> Iterator[LocalCluster]:
    """A scheduler and one worker of one thread, spoken to over TCP."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp", host="127.0.0.1"
    ) as found:
        yield found
