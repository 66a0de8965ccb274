"""What a disk may hold after a power cut: the calls of a trace replayed on a model that keeps only what was flushed.

The model promises what POSIX does and no more. A file's bytes are safe once that file was flushed; a name made, changed or removed in a
folder is safe once that folder was flushed. At a cut any of the other names may be there or not, whatever their order, and of bytes that
were not flushed there are all, none, half, or zeros in their place. Real file systems keep more; none may be relied on to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tests.support.table.faults import CLASS_OF, Call

FOLDER = -1
MODES = ("kept", "dropped", "torn", "zeroed")
Names = dict[str, int]


@dataclass(slots=True)
class File:
    """The bytes written, and those of them that were flushed."""

    written: bytes = b""
    safe: bytes = b""

    def after(self, mode: str) -> bytes:
        """What of it a cut may leave."""
        if self.written == self.safe or mode == "kept":
            return self.written
        if mode == "dropped":
            return self.safe
        if mode == "zeroed":
            return self.safe + bytes(max(0, len(self.written) - len(self.safe)))
        return self.written[: (len(self.safe) + len(self.written)) // 2]


class Change(NamedTuple):
    """Names that change at once: those that go and those that come, and the folders whose flush makes it safe."""

    gone: tuple[str, ...]
    come: tuple[tuple[str, int], ...]

    @property
    def folders(self) -> set[str]:
        return {path.rpartition("/")[0] for path in (*self.gone, *(path for path, _ in self.come))}

    def apply(self, names: Names) -> None:
        for path in self.gone:
            names.pop(path, None)
        names.update(self.come)


@dataclass(slots=True)
class Disk:
    """The model: files by number, the names that are safe, and the changes of names that are not, oldest first."""

    files: list[File] = field(default_factory=list)
    safe: Names = field(default_factory=dict)
    names: Names = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> Disk:
        """All that lies under a folder, safe; and the folder itself."""
        disk = cls(safe={str(root): FOLDER})
        for path in sorted(root.rglob("*")):
            if path.is_file():
                disk.files.append(File(path.read_bytes(), path.read_bytes()))
            disk.safe[str(path)] = len(disk.files) - 1 if path.is_file() else FOLDER
        disk.names = dict(disk.safe)
        return disk

    def _change(self, gone: Iterable[str], come: Iterable[tuple[str, int]]) -> None:
        self.pending.append(Change(tuple(gone), tuple(come)))
        self.pending[-1].apply(self.names)

    def replay(self, call: Call) -> None:
        """Take one call that succeeded."""
        path, kind = (call.paths[0] if call.paths else ""), CLASS_OF[call.name]
        if call.name in ("unlinkat", "rmdir") or kind == "unlink":
            self._change([path if call.name != "unlinkat" else _in_folder(call)], [])
        elif kind == "open" and "O_CREAT" in call.arguments and path not in self.names:
            self.files.append(File())
            self._change([], [(path, len(self.files) - 1)])
        elif kind == "open" and "O_TRUNC" in call.arguments:
            self.files[self.names[path]].written = b""
        elif kind == "mkdir":
            self._change([], [(path, FOLDER)])
        elif kind == "link":
            self._change([], [(call.paths[1], self.names[path])])
        elif kind == "rename":
            self._change([path], [(call.paths[1], self.names[path])])
        elif kind == "write":
            self._write(call, self.files[self.names[path]])
        elif kind == "ftruncate":
            file, size = self.files[self.names[path]], int(call.arguments.rpartition(", ")[2])
            file.written = file.written[:size].ljust(size, b"\0")
        elif kind == "fsync":
            self._flush(path)

    @staticmethod
    def _write(call: Call, file: File) -> None:
        data = call.data[: call.result]
        at = int(call.arguments.rpartition(", ")[2]) if call.name == "pwrite64" else len(file.written)
        file.written = file.written[:at].ljust(at, b"\0") + data + file.written[at + len(data) :]

    def _flush(self, path: str) -> None:
        if self.names[path] != FOLDER:
            self.files[self.names[path]].safe = self.files[self.names[path]].written
            return
        for change in self.pending:
            if path in change.folders:
                change.apply(self.safe)
        self.pending = [x for x in self.pending if path not in x.folders]

    def after_cuts(self, depth: int = 1) -> Iterator[dict[str, bytes | None]]:
        """What may be there after a cut now: paths with their bytes, None for folders; ``depth`` as in ``_choices``."""
        for chosen in _choices(self.pending, depth):
            names = dict(self.safe)
            for change in chosen:
                change.apply(names)
            there = {path: number for path, number in names.items() if _reachable(path, names, self.safe)}
            for mode in MODES:
                yield {
                    path: None if number == FOLDER else self.files[number].after(mode) for path, number in there.items()
                }
                if all(self.files[x].written == self.files[x].safe for x in there.values() if x != FOLDER):
                    break


def _in_folder(call: Call) -> str:
    name = call.arguments.split('"')[1]
    return name if name.startswith("/") else f"{call.paths[0]}/{name}"


def _reachable(path: str, names: Names, safe: Names) -> bool:
    """Whether every folder above is there; the topmost one is."""
    top = min(safe, key=len)
    while path != top:
        path = path.rpartition("/")[0]
        if path not in names:
            return False
    return True


def _choices(pending: list[Change], depth: int) -> Iterator[tuple[Change, ...]]:
    """Subsets of the changes: those that lack or hold at most ``depth`` of them, and each beginning."""
    count = len(pending)
    few, many = range(min(depth, count) + 1), range(max(count - depth, depth + 1), count + 1)
    for size in (*few, *many):
        yield from combinations(pending, size)
    yield from (tuple(pending[:size]) for size in range(few.stop, many.start))


def digest(state: dict[str, bytes | None]) -> str:
    """What tells one state from another."""
    found = hashlib.blake2b(digest_size=16)
    for path, data in sorted(state.items()):
        found.update(f"{path}\0{-1 if data is None else len(data)}\0".encode() + (data or b""))
    return found.hexdigest()


def put(state: dict[str, bytes | None]) -> None:
    """Make the files of a state; none may be there before."""
    for path, data in sorted(state.items()):
        if data is None:
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
