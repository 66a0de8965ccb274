"""Stage outputs on disk: tasks hand these to one another instead of arrays.

A stage's folder is named by a key over the digests of its inputs, its config and the code of ``rectifier_core``. So the right name means the
right output. A folder appears by one rename, after everything in it was flushed: a killed process leaves a complete output or none. The
digest (XXH3, 128 bits) detects accidents, not attacks: who can write into the store can write anything. Arrays are ``.npy`` files,
memory-mapped for reading and never changed. Nothing is pickled.
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
# Not part of the digest: notes say how an output was made, not what it is.
NOTES = "notes.json"
IN_USE = ".in-use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """One complete stage output: its kind, its folder, and the digest of its contents.

    The other fields are not compared. ``seconds`` and ``cpu_seconds`` are the time to build or find it in this run, ``peak_memory`` is the
    most bytes held while it was built, ``reused`` tells whether it existed already.
    """

    kind: str
    path: str
    digest: str
    seconds: float = field(default=0.0, compare=False)
    cpu_seconds: float = field(default=0.0, compare=False)
    peak_memory: int = field(default=0, compare=False)
    reused: bool = field(default=False, compare=False)

    def file(self, name: str) -> Path:
        """Return the path of one file of the output."""
        return Path(self.path) / name

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a read-only memory map of ``<name>.npy``."""
        values: np.ndarray[Any, Any] = np.load(self.file(f"{name}.npy"), mmap_mode="r", allow_pickle=False)
        return values

    @property
    def meta(self) -> dict[str, Any]:
        """The scalars that the stage wrote beside its arrays."""
        scalars: dict[str, Any] = json.loads(self.file("meta.json").read_text(encoding="utf-8"))
        return scalars

    @property
    def notes(self) -> dict[str, Any]:
        """What the stage noted for its log and report, beside the output; empty without any."""
        path = self.file(NOTES)
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return noted


class StageWriter:
    """Writes into the temporary folder of a stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def array(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Write ``values`` as ``<name>.npy``. A map that ``memmap`` returned under this name is only flushed."""
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
        """Return a writable map of ``<name>.npy``, to be filled block by block. Its disk space is reserved now."""
        path = self.folder / f"{name}.npy"
        mapped: np.memmap[Any, Any] = open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        # The file is sparse so far. On a full disk, writing to one of its pages would kill the process with SIGBUS.
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

    def notes(self, values: Mapping[str, Any]) -> None:
        """Write what the log and the report say of the output, as ``notes.json``."""
        (self.folder / NOTES).write_text(json.dumps(values, indent=1, allow_nan=False), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class StageStore:
    """All stage outputs under one folder. ``runner`` computes shards."""

    root: Path
    runner: Runner = field(default=LocalRunner(), compare=False)

    def once(self, kind: str, inputs: tuple[Any, ...], build: Callable[[StageWriter], None]) -> Ref:
        """Return the output of ``kind`` for these inputs (refs, configs, plain values): the existing one, or one built now."""
        begin_stage(kind)
        ref = self._once(kind, inputs, build)
        spent = StageSpent(seconds=ref.seconds, cpu_seconds=ref.cpu_seconds, peak_memory=ref.peak_memory)
        end_stage(kind, spent)
        return ref

    def _once(self, kind: str, inputs: tuple[Any, ...], build: Callable[[StageWriter], None]) -> Ref:
        start, cpu_start, key = time.monotonic(), time.process_time(), stage_key(kind, inputs)
        output = self.find(kind, key)
        if output is not None:
            return replace(output, reused=True, seconds=time.monotonic() - start)
        with watch_memory() as peak, self._writing(kind, key) as writer:
            build(writer)
        output = self.find(kind, key)
        if output is None:
            raise StorageError(
                f"stage {kind}: its output vanished from {self.root} while the run was using it; run again"
            )
        wall, cpu = time.monotonic() - start, time.process_time() - cpu_start
        return replace(output, seconds=wall, cpu_seconds=cpu, peak_memory=peak.size)

    def find(self, kind: str, key: str) -> Ref | None:
        """Return the output under this key if it is complete: every file of its manifest, at its size."""
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
                    # Runs of two tables may share this store. The other run was first with the same output.
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
        """Share the store for the block. While anyone does, ``sweep`` deletes no complete output. The lock ends with its process."""
        self.root.mkdir(parents=True, exist_ok=True)
        with held(self.root / IN_USE, fcntl.LOCK_SH, os.O_RDWR | os.O_CREAT):
            yield

    def sweep(self, *, keep_seconds: float, keep: Container[str] = ()) -> int:
        """Delete what dead processes left, and outputs unused for ``keep_seconds`` whose folder is not in ``keep``. Return how many.

        Two tables may share a store, so complete outputs stay while another run uses it. Call this outside ``in_use``.
        """
        if not self.root.is_dir():
            return 0
        horizon = time.time() - keep_seconds
        folders = [path for path in self.root.iterdir() if path.is_dir()]
        old = [path for path in folders if path.name.startswith(TEMPORARY) and is_abandoned(path)]
        outputs = [path for path in folders if not path.name.startswith(TEMPORARY) and str(path) not in keep]
        with held(self.root / IN_USE, flags=os.O_RDWR | os.O_CREAT) as alone:
            if alone:
                old += [path for path in outputs if path.stat().st_mtime <= horizon]
            for folder in old:
                shutil.rmtree(folder, ignore_errors=True)
        return len(old)


def whole_digest(folder: Path) -> str | None:
    """Return the digest of the output in ``folder``, None unless every file of its manifest has its size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        complete = all((folder / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
        return str(manifest["digest"]) if complete else None
    except (OSError, ValueError, KeyError):
        return None


def folder_name(kind: str, key: str) -> str:
    """Return the folder name of an output."""
    return f"{kind.replace('/', '-')}-{key}"


def stage_key(kind: str, inputs: tuple[Any, ...]) -> str:
    """Return a key over what an output depends on: its kind, its inputs, and the code of ``rectifier_core``."""
    text = json.dumps([kind, code_digest(), [plain(x) for x in inputs]], sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def plain(value: Any) -> Any:
    """Convert to JSON types: a ref to its digest, a dataclass to its fields, an enum to its name."""
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
    digest, files = flushed_files(folder, xxhash.xxh3_128, apart=NOTES)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"digest": digest, "files": files}, indent=1, sort_keys=True))
    fsync(manifest)
    flush_folders(folder)
