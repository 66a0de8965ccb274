"""Computes shards on a running Dask cluster. References and numbers go to the workers, paths of files come back.

Shards are Dask's tasks, not Prefect's: a Prefect task on a worker costs 0.1 s, and starts a server of its own where no API is known. Dask
gives the shards of a dead worker to another.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from tasks.errors import ClusterError, InputError
from tasks.resources.config import ResourcesConfig
from tasks.shards import dask_worker
from tasks.shards.dask_worker import ShardFiles, WorkerJob, checksum, no_folder, other_code, write_shard
from tasks.store.atomic_files import TEMPORARY, held
from tasks.store.code_digest import worker_digest
from tasks.store.runner import Arrays, S, ShardWork, Shared

POLL = 2.0
AHEAD = 3
"""Shards submitted at a time, for each thread of the cluster. The files of more would pile up behind the next one in order."""


@dataclass(frozen=True, slots=True, eq=False)
class DaskRunner:
    """Computes shards on the workers of one scheduler. Their files are under ``root``, which all workers see."""

    client: Client
    root: Path
    resources: ResourcesConfig
    remote: bool = True

    @property
    def shard_rows(self) -> int:
        """Return the rows of one shard."""
        return self.resources.shard_rows

    @contextmanager
    def open_work(self, name: str) -> Iterator[ShardWork]:
        """Make a folder for the shards of one stage, locked until it is removed."""
        folder = self.root / f"{TEMPORARY}shards-{name.replace('/', '-')}-{token_hex(6)}"
        folder.mkdir(parents=True)
        work = _DaskWork(self, folder)
        try:
            with held(folder):
                yield work
        finally:
            work.cancel()
            shutil.rmtree(folder, ignore_errors=True)


class _DaskWork:
    def __init__(self, runner: DaskRunner, folder: Path) -> None:
        self._client, self._resources, self.folder = runner.client, runner.resources, folder
        self._job = WorkerJob(str(folder), worker_digest(), runner.resources.threads)
        self._submitted: deque[Future] = deque()
        self._numbers = count()

    def share(self, **arrays: np.ndarray[Any, Any]) -> Shared:
        folder = self.folder / f"shared-{next(self._numbers)}"
        folder.mkdir()
        for name, array in arrays.items():
            if not _linked(array, folder / f"{name}.npy"):
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return Shared(folder=str(folder))

    def map(self, function: Callable[[S], Arrays], shards: Sequence[S]) -> Iterator[Arrays]:
        with self._connected():
            threads = sum(self._client.nthreads().values())
        waiting = iter(shards)
        try:
            self._submit(function, waiting, max(1, AHEAD * threads))
            while self._submitted:
                files = self._result(self._submitted[0])
                yield read_shard(files)
                shutil.rmtree(files.folder, ignore_errors=True)
                self._submitted.popleft()
                self._submit(function, waiting, 1)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the shards that are submitted."""
        if self._submitted:
            with suppress(OSError, CancelledError):
                self._client.cancel(list(self._submitted), force=True)
            self._submitted.clear()

    def _submit(self, function: Callable[[S], Arrays], waiting: Iterator[S], most: int) -> None:
        for shard in islice(waiting, most):
            number = next(self._numbers)
            key = f"{function.__name__}-{number}-{token_hex(6)}"
            future = self._client.submit(write_shard, function, shard, number, self._job, key=key, pure=False)
            self._submitted.append(future)

    def _result(self, future: Future) -> ShardFiles:
        """Wait for a shard. Raises what it raised, and ClusterError once no worker has been left for ``resources.patience`` seconds."""
        seen, patience = time.monotonic(), self._resources.patience
        while True:
            with self._connected():
                try:
                    error = future.exception(timeout=POLL)
                    if error is None:
                        files: ShardFiles = future.result(timeout=POLL)
                        return files
                    break
                except TimeoutError:
                    seen = time.monotonic() if self._client.nthreads() else seen
            if time.monotonic() - seen > patience:
                raise ClusterError(f"no worker was left at {self._resources.address} for {patience:g} s: {AGAIN}")
        if isinstance(error, KilledWorker):
            raise ClusterError(
                f"{error.task} ended every worker that it was given to, as lack of memory does: {AGAIN}"
            ) from error
        if isinstance(error, CancelledError):
            raise self._lost() from error
        raise error

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CancelledError) as error:
            raise self._lost() from error

    def _lost(self) -> ClusterError:
        return ClusterError(f"the scheduler at {self._resources.address} was lost: {AGAIN}")


AGAIN = "start workers again, then run again; finished stages are kept"


def _linked(array: np.ndarray[Any, Any], path: Path) -> bool:
    """Hard-link the file of a map instead of copying it. Return whether that was possible."""
    if not isinstance(array, np.memmap) or array.filename is None:
        return False
    if array.offset + array.nbytes != os.path.getsize(array.filename):
        return False
    try:
        array.flush()
        os.link(array.filename, path)
    except OSError:
        return False
    return True


def read_shard(files: ShardFiles) -> Arrays:
    """Return the arrays that a worker wrote, mapped. Raises ClusterError if they are not what it wrote."""
    arrays = {}
    for name, wanted in files.checksums.items():
        path = Path(files.folder) / f"{name}.npy"
        try:
            arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{path}: a worker wrote it and here it cannot be read: {error}; check the shared storage"
            ) from error
        if checksum(arrays[name]) != wanted:
            raise ClusterError(f"{path}: not what a worker wrote; check the shared storage, then run again")
    return arrays


@contextmanager
def connect(
    resources: ResourcesConfig, root: Path, log: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> Iterator[DaskRunner]:
    """Return the runner of ``resources.address`` for the block, after a check of its workers. Raises ClusterError or InputError."""
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = Client(resources.address, timeout=resources.patience, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"resources.address: no Dask scheduler answered at {resources.address} within {resources.patience:g} s; "
            'start one, or set resources.runner = "local"'
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=resources.patience)
        except TimeoutError as error:
            raise ClusterError(
                f"resources.address: {resources.address} had no worker for {resources.patience:g} s; start some"
            ) from error
        _check_workers(client, root)
        threads = client.nthreads()
        log.info("shards go to %s: %s workers, %s threads", resources.address, len(threads), sum(threads.values()))
        yield DaskRunner(client, root, resources)
    finally:
        client.close(timeout=10)


def _check_workers(client: Client, root: Path) -> None:
    """Check the code and the storage of every worker, before shards fail one by one. A worker that does not answer is skipped."""
    root.mkdir(parents=True, exist_ok=True)
    marker = root / f"{TEMPORARY}seen-{token_hex(6)}"
    try:
        marker.touch()
        answers = client.run(dask_worker.describe, str(marker), on_error="return")
    finally:
        marker.unlink(missing_ok=True)
    for worker, answer in sorted(answers.items()):
        if isinstance(answer, OSError):
            continue
        if isinstance(answer, Exception):
            raise InputError(
                f"worker {worker} cannot load the code of the run: {answer}; put the same project on its PYTHONPATH"
            )
        if answer["code"] != worker_digest():
            raise InputError(other_code(worker))
        if not answer["sees"]:
            raise InputError(no_folder(worker, root))
