"""Stage outputs on disk: what tasks hand to one another instead of arrays.

A stage's folder is named by a key over its inputs' digests, its config and a digest of ``rectifier_core``, so finding a folder under
the right name is finding the right output. A folder appears by one rename after everything in it was flushed: it is there
whole or not at all, whenever the process dies. Its digest (XXH3, 128 bits, at the speed of memory) is against accidents, not forgers: who
can write into the store can write anything there. Arrays are ``.npy`` files, memory-mapped on reading and never changed; nothing is
pickled.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.lib.format import open_memmap

from tasks.errors import StorageError
from tasks.store.atomic_files import TEMPORARY, flush_folders, flushed_files, fsync, held, is_abandoned
from tasks.store.code_digest import code_digest
from tasks.store.peak_memory import watch_memory
from tasks.store.run_context import StageSpent, begin_stage, end_stage
from tasks.store.runner import LocalRunner, Runner

MANIFEST = "manifest.json"
IN_USE = ".in-use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """One whole stage output: what it is, the folder it lies in, and the digest of its contents.

    ``seconds`` is what it took to build or find in this run, ``cpu_seconds`` what it took of all processors of this process,
    ``peak_memory`` the most bytes resident while it was built (0 where it was not), and ``reused`` whether it was there already: none of
    them is part of what it is.
    """

    kind: str
    path: str
    digest: str
    seconds: float = field(default=0.0, compare=False)
    cpu_seconds: float = field(default=0.0, compare=False)
    peak_memory: int = field(default=0, compare=False)
    reused: bool = field(default=False, compare=False)

    def file(self, name: str) -> Path:
        """The path of one file of the output."""
        return Path(self.path) / name

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a read-only memory map of ``<name>.npy``."""
        values: np.ndarray[Any, Any] = np.load(self.file(f"{name}.npy"), mmap_mode="r", allow_pickle=False)
        return values

    @property
    def meta(self) -> dict[str, Any]:
        """The scalars the stage wrote beside its arrays."""
        found: dict[str, Any] = json.loads(self.file("meta.json").read_text())
        return found


class StageWriter:
    """The temporary folder of a stage that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def array(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Write ``values`` as ``<name>.npy``; what ``memmap`` gave under that name lies there already."""
        path = self.folder / f"{name}.npy"
        if isinstance(values, np.memmap) and Path(str(values.filename)) == path.resolve():
            values.flush()
            return
        try:
            np.save(path, values, allow_pickle=False)
        except OSError as error:
            if error.errno is not None:
                raise
            # NumPy reports a short write without the system's reason.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error

    def memmap(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.memmap[Any, Any]:
        """A writable ``<name>.npy`` to fill block by block, its room on the disk taken now."""
        path = self.folder / f"{name}.npy"
        mapped: np.memmap[Any, Any] = open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        # The file is sparse so far: on a full disk the first write to a page without room would be a SIGBUS, which nothing can catch.
        with path.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise OSError(error.errno, error.strerror, str(path)) from error
        return mapped

    def meta(self, values: Mapping[str, Any]) -> None:
        """Write the stage's scalars as ``meta.json``."""
        (self.folder / "meta.json").write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False))


@dataclass(frozen=True, slots=True)
class StageStore:
    """All stage outputs under one folder, where the shards of those being built are worked on, and who is told of each."""

    root: Path
    runner: Runner = field(default=LocalRunner(), compare=False)

    def once(self, kind: str, inputs: tuple[Any, ...], build: Callable[[StageWriter], None]) -> Ref:
        """The output of ``kind`` for these inputs (refs, configs, plain values): found whole, or built now and kept."""
        begin_stage(kind)
        ref = self._once(kind, inputs, build)
        spent = StageSpent(seconds=ref.seconds, cpu_seconds=ref.cpu_seconds, peak_memory=ref.peak_memory)
        end_stage(kind, spent)
        return ref

    def _once(self, kind: str, inputs: tuple[Any, ...], build: Callable[[StageWriter], None]) -> Ref:
        start, worked, key = time.monotonic(), time.process_time(), stage_key(kind, inputs)
        found = self.find(kind, key)
        if found is not None:
            return replace(found, reused=True, seconds=time.monotonic() - start)
        with watch_memory() as peak, self._writing(kind, key) as writer:
            build(writer)
        found = self.find(kind, key)
        if found is None:
            raise StorageError(
                f"stage {kind}: its output vanished from {self.root} while the run was using it; run again"
            )
        spent = time.process_time() - worked
        return replace(found, seconds=time.monotonic() - start, cpu_seconds=spent, peak_memory=peak.size)

    def find(self, kind: str, key: str) -> Ref | None:
        """The output under this key if it lies there whole: every file of its manifest, at its size."""
        folder = self.root / folder_name(kind, key)
        digest = whole_digest(folder)
        if digest is None:
            return None
        os.utime(folder)
        return Ref(kind=kind, path=str(folder), digest=digest)

    @contextmanager
    def _writing(self, kind: str, key: str) -> Iterator[StageWriter]:
        final = self.root / folder_name(kind, key)
        temporary = self.root / f"{TEMPORARY}{final.name}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            with held(temporary):
                yield StageWriter(temporary)
                _seal(temporary)
                if final.exists() and self.find(kind, key) is None:
                    shutil.rmtree(final)
                try:
                    temporary.rename(final)
                except OSError:
                    # Runs of two tables may share this store: the other one was first with the same output.
                    if self.find(kind, key) is None:
                        raise
            fsync(self.root)
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            raise StorageError(
                f"stage {kind}: writing {temporary} failed: {error.strerror or error}; free or fix the disk, then run again"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Share the store for the block: while anyone does, ``sweep`` leaves it alone. The kernel lets go when a process dies."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.root / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    def sweep(self, *, keep_seconds: float, keep: Container[str] = ()) -> int:
        """Drop what dead writers left, and outputs unused for ``keep_seconds`` whose folder is not in ``keep``; return how many.

        Whole outputs stay while another run uses the store (two tables may share one), so call it outside ``in_use``.
        """
        if not self.root.is_dir():
            return 0
        horizon = time.time() - keep_seconds
        folders = [x for x in self.root.iterdir() if x.is_dir()]
        old = [x for x in folders if x.name.startswith(TEMPORARY) and is_abandoned(x)]
        with self._alone() as alone:
            if alone:
                old += [
                    x
                    for x in folders
                    if not x.name.startswith(TEMPORARY) and str(x) not in keep and x.stat().st_mtime <= horizon
                ]
            for folder in old:
                shutil.rmtree(folder, ignore_errors=True)
        return len(old)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        handle = os.open(self.root / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(handle)


def whole_digest(folder: Path) -> str | None:
    """The digest of the output in ``folder`` if it lies there whole, every file of its manifest at its size; else None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        whole = all((folder / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
        return str(manifest["digest"]) if whole else None
    except (OSError, ValueError, KeyError):
        return None


def folder_name(kind: str, key: str) -> str:
    """The folder of an output, readable and safe as a file name."""
    return f"{kind.replace('/', '-')}-{key}"


def stage_key(kind: str, inputs: tuple[Any, ...]) -> str:
    """A key over what an output depends on: its kind, its inputs, and the code of ``rectifier_core``."""
    text = json.dumps([kind, code_digest(), [plain(x) for x in inputs]], sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def plain(value: Any) -> Any:
    """``value`` as JSON types: refs become their digest, dataclasses their fields, enums their name."""
    if isinstance(value, Ref):
        return value.digest
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def _seal(folder: Path) -> None:
    digest, files = flushed_files(folder, xxhash.xxh3_128)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"digest": digest, "files": files}, indent=1, sort_keys=True))
    fsync(manifest)
    flush_folders(folder)
