"""Naming what delta-rs wrote only once it is on the disk: a version is there whole or not at all, also after a power cut.

delta-rs writes a commit, links it to its name and flushes nothing. A power cut after that can leave the name without the bytes, and then
no reader opens the table. So on a local disk it commits to a copy of the log, made of links, under a hidden name in the table's folder;
what it wrote there is flushed and then takes its name in the log by one link, which fails where another process has the name. S3 shows an
object once its upload completed, and there delta-rs commits to the table itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from tasks.store.atomic_files import fsync, held, is_abandoned
from tasks.table.files import TableFiles, make_folders
from tasks.table.log import LOG, commit_path

_COPY = ".commit-"


@dataclass(frozen=True, slots=True)
class LogCopy:
    """Where delta-rs is to write; ``uri`` is a table with the very log of ``files``, or that table itself in S3."""

    files: TableFiles
    uri: str

    def reveal_commit(self, version: int) -> None:
        """Give the commit of ``version`` its name. Raises FileExistsError where another process committed that version first.

        Whoever calls it flushes the log's folder then.
        """
        if self.files.root is None:
            return
        made = Path(self.uri) / commit_path(version)
        # What delta-rs says of the place is to be said of the table.
        made.write_text(made.read_text().replace(f"/{Path(self.uri).name}/", "/"))
        fsync(made)
        make_folders(self.files.root / LOG)
        os.link(made, self.files.root / commit_path(version))

    def reveal_checkpoint(self) -> None:
        """Give a checkpoint, and then the hint at it, their names, flushed."""
        if self.files.root is None:
            return
        made, log = Path(self.uri) / LOG, self.files.root / LOG
        fresh = [x for x in sorted(made.iterdir(), key=lambda x: x.name == "_last_checkpoint") if not _is_shown(x, log)]
        for path in fresh:
            fsync(path)
            path.rename(log / path.name)
            fsync(log)


def _is_shown(path: Path, log: Path) -> bool:
    try:
        return path.samefile(log / path.name)
    except FileNotFoundError:
        return False


@contextmanager
def log_copy(files: TableFiles) -> Iterator[LogCopy]:
    """A copy of the table's log as it is now, for the block. Raises OSError."""
    if files.root is None:
        yield LogCopy(files, files.uri)
        return
    make_folders(files.root)
    folder = files.root / f"{_COPY}{os.getpid()}-{token_hex(4)}"
    folder.mkdir()
    try:
        with held(folder):
            log = folder / LOG
            log.mkdir()
            for name in _log_names(files.root / LOG):
                os.link(files.root / LOG / name, log / name)
            yield LogCopy(files, str(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _log_names(log: Path) -> list[str]:
    # Newest last: whoever commits meanwhile may be missing here and is then met at the link, but there is no gap.
    return (
        sorted(x.name for x in log.iterdir() if "#" not in x.name and not x.name.startswith("."))
        if log.is_dir()
        else []
    )


def sweep_copies(files: TableFiles) -> list[str]:
    """Remove the copies that killed processes left, and return their paths."""
    if files.root is None:
        return []
    left = [x for x in sorted(files.root.glob(f"{_COPY}*")) if is_abandoned(x)]
    for folder in left:
        shutil.rmtree(folder)
    return [x.name for x in left]
