"""The files of the published table, on a local disk or in S3: list, write, read, delete.

On a local disk a file is flushed before it gets its name, and its folder is flushed after that. So a name always holds the complete file,
also after a power cut. In S3 an object appears when its upload completes. Credentials and endpoint come from the ``AWS_*`` variables,
which delta-rs reads too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa
from deltalake.exceptions import DeltaError
from pyarrow import fs

from tasks.errors import StorageError
from tasks.masking import masked
from tasks.object_store import resolve
from tasks.store.atomic_files import fsync

RUN_AGAIN = "nothing was published; free or fix the storage, then run again"


class TableFiles:
    """The files under one table's uri. Every path is relative to it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.root = Path(uri) if Path(uri).is_absolute() else None
        filesystem, path = resolve(uri)
        self.filesystem = fs.SubTreeFileSystem(path, filesystem)

    def walk(self, folder: str = "") -> list[fs.FileInfo]:
        """Return every file under ``folder``, sorted by path, hidden ones too. A missing folder has none."""
        infos = self.filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        return sorted((x for x in infos if x.type == fs.FileType.File), key=lambda x: x.path)

    def names(self) -> list[str]:
        """Return the names directly in the table's folder, sorted."""
        return sorted(x.base_name for x in self.filesystem.get_file_info(fs.FileSelector("", allow_not_found=True)))

    def entries(self, paths: Iterable[str]) -> dict[str, fs.FileInfo]:
        """Return those of ``paths`` that exist."""
        infos = self.filesystem.get_file_info(list(paths))
        return {x.path: x for x in infos if x.type == fs.FileType.File}

    @contextmanager
    def create(self, path: str) -> Iterator[Path]:
        """Yield a local path to write. The file appears under ``path``, complete and flushed, if the block raises nothing."""
        if self.root is None:
            with TemporaryDirectory() as folder:
                temporary = Path(folder) / "file"
                yield temporary
                fs.copy_files(
                    str(temporary),
                    path,
                    source_filesystem=fs.LocalFileSystem(),
                    destination_filesystem=self.filesystem,
                )
            return
        final = self.root / path
        make_folders(final.parent)
        temporary = final.with_name(f".{final.name}.{os.getpid()}-{token_hex(4)}.tmp")
        try:
            yield temporary
            fsync(temporary)
            temporary.rename(final)
            fsync(final.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def open(self, path: str) -> Any:
        """Open a file for random reads. The result is a context manager."""
        return self.filesystem.open_input_file(path)

    def read_text(self, path: str) -> str:
        """Return the whole text of a small file."""
        with self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.read()).decode()

    def delete(self, path: str) -> None:
        """Delete one file, and its local folder if that is empty then. A missing file is no error."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(path)
        if self.root is not None and "/" in path:
            with suppress(OSError):
                (self.root / path).parent.rmdir()


def make_folders(folder: Path) -> None:
    """Make a local folder and its parents, and flush the entry of each new one."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)


def one_line(error: BaseException) -> str:
    """Return an error's message on one line without colours and credentials, at most 300 characters."""
    text = masked(re.sub(r"\x1b\[[0-9;]*m", "", str(error) or type(error).__name__))
    text = " ".join(text.replace("↳", "").split())
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def storage_errors(uri: str, doing: str, remedy: str = RUN_AGAIN) -> Iterator[None]:
    """Raise what the storage, Arrow, Polars or delta-rs raise in the block as one StorageError with the table and the remedy."""
    try:
        yield
    except (OSError, DeltaError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise StorageError(f"table {uri}: {doing} failed: {one_line(error)}; {remedy}") from error
