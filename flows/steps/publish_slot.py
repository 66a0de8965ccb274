"""A Prefect concurrency limit that lets one deployed run at a time publish to a table.

The limit makes a nightly run and a backfilled day wait for each other. The table's lock (``tasks.table.lock``) keeps them from writing at
the same time, and needs no server. So a run whose lease could not be renewed continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency

from tasks.observe.events import asset_key
from tasks.run_logger import run_logger
from tasks.table.config import PublishConfig

LEASE = 60.0


def slot_name(config: PublishConfig) -> str:
    """The limit's name: the table's last name for people, a digest of its place for what has the same one elsewhere."""
    key = asset_key(config).rstrip("/")
    return f"catalog-rectifier {key.rsplit('/', 1)[-1]} {hashlib.blake2b(key.encode(), digest_size=4).hexdigest()}"


@contextmanager
def publish_slot(config: PublishConfig) -> Iterator[None]:
    """Hold the table's slot for the block, after waiting for it; a holder that dies gives it back within ``LEASE`` seconds and a few."""
    name = slot_name(config)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    slot = concurrency(name, strict=True, lease_duration=LEASE, raise_on_lease_renewal_failure=False)
    slot.__enter__()
    try:
        yield
    finally:
        try:
            slot.__exit__(None, None, None)
        except Exception as error:
            # The server will take it back itself, and the night's work is done.
            run_logger().warning(
                "the slot %r could not be given back (%s); its lease ends within %g s",
                name,
                type(error).__name__,
                LEASE,
            )
