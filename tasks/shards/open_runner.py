"""Opens the runner that the config names, for the time of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig
from tasks.run_logger import run_logger
from tasks.store.runner import LocalRunner
from tasks.store.saved_records import open_record
from tasks.store.store import StageStore


@contextmanager
def open_runner(resources: ResourcesConfig, store: StageStore) -> Iterator[StageStore]:
    """Return ``store`` with the runner of ``resources``, for the block. Raises ClusterError or InputError if the cluster is unusable."""
    try:
        with _runner(resources, store) as opened:
            yield opened
    finally:
        # A process that outlives the run would keep deleted outputs mapped, and their space on the disk.
        open_record.cache_clear()


@contextmanager
def _runner(resources: ResourcesConfig, store: StageStore) -> Iterator[StageStore]:
    if resources.runner == "local":
        yield replace(store, runner=LocalRunner(resources.shard_rows))
        return
    try:
        from tasks.shards.dask_runner import connect
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("dask", "distributed"):
            raise
        wanted = "the package distributed, which is not installed: install catalog-rectifier[dask]"
        raise InputError(f'resources.runner: "dask" needs {wanted}') from error
    with connect(resources, store.root, run_logger()) as runner:
        yield replace(store, runner=runner)
