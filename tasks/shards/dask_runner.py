"""Shards on a ``distributed`` cluster that is there already: out go references and numbers, back come the paths of files.

Shards are tasks of the cluster, not Prefect's: a Prefect task on a worker costs a tenth of a second, and in a worker that knows no API it
starts a server, which outlives the worker. The scheduler gives what a dead worker had in hand to another.
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
from tasks.shards.dask_worker import Terms, Written, checksum, write_shard
from tasks.store.atomic_files import TEMPORARY, held
from tasks.store.code_digest import worker_digest
from tasks.store.runner import Arrays, S, ShardWork, Shared

POLL = 2.0
AHEAD = 3
"""Shards that are out at a time, for each thread of the cluster: files of more would pile up behind the one that is awaited."""


@dataclass(frozen=True, slots=True, eq=False)
class DaskRunner:
    """Shards on the workers of one scheduler; their files lie under ``root``, which all of them see."""

    client: Client
    root: Path
    resources: ResourcesConfig
    remote: bool = True

    @property
    def shard_rows(self) -> int:
        """Rows of one shard."""
        return self.resources.shard_rows

    @contextmanager
    def open_work(self, name: str) -> Iterator[ShardWork]:
        """A folder for the shards of one stage, marked as in use until it is removed."""
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
        self._terms = Terms(str(folder), worker_digest(), runner.resources)
        self._out: deque[Future] = deque()
        self._numbers = count()

    def share(self, **arrays: np.ndarray[Any, Any]) -> Shared:
        folder = self.folder / f"shared-{next(self._numbers)}"
        folder.mkdir()
        for name, array in arrays.items():
            if not _linked(array, folder / f"{name}.npy"):
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return Shared(folder=str(folder))

    def drop(self, shared: Shared) -> None:
        shutil.rmtree(str(shared.folder), ignore_errors=True)

    def map(self, function: Callable[[S], Arrays], shards: Sequence[S], *, at_home: bool = False) -> Iterator[Arrays]:
        with self._reaching():
            threads = self._client.nthreads()
        homes = sorted(threads) if at_home else []
        waiting = iter([(shard, homes[at % len(homes)] if homes else None) for at, shard in enumerate(shards)])
        try:
            self._send(function, waiting, max(1, AHEAD * sum(threads.values())))
            while self._out:
                written = self._awaited(self._out[0])
                yield read_shard(written)
                shutil.rmtree(written.folder, ignore_errors=True)
                self._out.popleft()
                self._send(function, waiting, 1)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Call back what is out."""
        if self._out:
            with suppress(OSError, CancelledError):
                self._client.cancel(list(self._out), force=True)
            self._out.clear()

    def _send(self, function: Callable[[S], Arrays], waiting: Iterator[tuple[S, str | None]], most: int) -> None:
        for shard, home in islice(waiting, most):
            number = next(self._numbers)
            where = {} if home is None else {"workers": [home], "allow_other_workers": True}
            key = f"{function.__name__}-{number}-{token_hex(6)}"
            self._out.append(
                self._client.submit(write_shard, function, shard, number, self._terms, key=key, pure=False, **where)
            )

    def _awaited(self, future: Future) -> Written:
        """What a shard gave, or the exception that it raised. While nothing comes, someone must be there to work."""
        seen, patience = time.monotonic(), self._resources.patience
        while True:
            with self._reaching():
                try:
                    error = future.exception(timeout=POLL)
                    if error is None:
                        found: Written = future.result(timeout=POLL)
                        return found
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
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CancelledError) as error:
            raise self._lost() from error

    def _lost(self) -> ClusterError:
        return ClusterError(f"the scheduler at {self._resources.address} was lost: {AGAIN}")


AGAIN = "start workers anew, then run again; what was done is kept"


def _linked(array: np.ndarray[Any, Any], path: Path) -> bool:
    """Give the file of a map of all of it another name, where the storage can: workers see it as it is."""
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


def read_shard(written: Written) -> Arrays:
    """The arrays that a worker wrote, mapped. Raises ClusterError where they are not what it wrote."""
    found = {}
    for name, wanted in written.checksums.items():
        path = Path(written.folder) / f"{name}.npy"
        try:
            found[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{path}: a worker wrote it and here it cannot be read: {error}; check the shared storage"
            ) from error
        if checksum(found[name]) != wanted:
            raise ClusterError(f"{path}: not what a worker wrote; check the shared storage, then run again")
    return found


@contextmanager
def connect(
    resources: ResourcesConfig, root: Path, log: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> Iterator[DaskRunner]:
    """The runner of ``resources.address`` for the block, once its workers were found fit. Raises ClusterError or InputError."""
    for name in [x for x in logging.root.manager.loggerDict if x.split(".")[0] == "distributed"]:
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
    """Ask every worker what it is. One that does not answer is the scheduler's business; one that is not fit would fail shard by shard."""
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
            raise InputError(
                f"worker {worker} has another version of the code than the run: install the same on every worker"
            )
        if not answer["sees"]:
            raise InputError(
                f"worker {worker} does not see {root}: run.folder must be shared storage under one path on every worker"
            )
