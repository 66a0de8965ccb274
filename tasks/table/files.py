"""The files of the published table, on a local disk or in S3: listing, durable writing, reading, deleting.

Locally a file appears under its name by one rename after it was flushed, and its folder is flushed after that: a name that is there holds
the whole file, also after a power cut. In S3 an object appears when its upload completes. Credentials and endpoint come from the usual
``AWS_*`` variables, the same that delta-rs reads for the log, and never reach a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from tasks.object_store import ATTEMPTS, CONNECT_SECONDS, REQUEST_SECONDS, resolve
from tasks.store.atomic_files import fsync

RUN_AGAIN = "nothing was published; free or fix the storage, then run again"
UPLOADED = 8 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``path`` relative to the table, ``size`` in bytes, ``modified`` in seconds since the epoch."""

    path: str
    size: int
    modified: float


class TableFiles:
    """The files under one table's uri; every path is relative to it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.root = Path(uri) if Path(uri).is_absolute() else None
        filesystem, path = resolve(uri)
        self._filesystem = fs.SubTreeFileSystem(path, filesystem)

    def walk(self, folder: str = "") -> list[FileEntry]:
        """Every file under ``folder``, hidden ones too, by path; none where the folder is missing."""
        found = self._filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        return sorted((_entry(x) for x in found if x.type == fs.FileType.File), key=lambda x: x.path)

    def names(self) -> list[str]:
        """What lies directly in the table's folder, by name."""
        found = self._filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))
        return sorted(x.base_name for x in found)

    def entries(self, paths: Iterable[str]) -> dict[str, FileEntry]:
        """Those of ``paths`` that are there."""
        found = self._filesystem.get_file_info(list(paths))
        return {x.path: _entry(x) for x in found if x.type == fs.FileType.File}

    @contextmanager
    def create(self, path: str) -> Iterator[Any]:
        """A binary sink for a new file that appears, whole and flushed, when the block ends well; a failed block leaves nothing."""
        if self.root is None:
            try:
                with self._filesystem.open_output_stream(path) as sink:
                    yield sink
            except BaseException:
                # Leaving the stream completed the upload of a part of the file.
                with suppress(OSError):
                    self._filesystem.delete_file(path)
                raise
            return
        with self._arriving(self.root / path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
            yield sink

    @contextmanager
    def place(self, path: str) -> Iterator[Path]:
        """A path on this machine to write a new file at, which appears as ``create``'s does when the block ends well."""
        if self.root is not None:
            with self._arriving(self.root / path) as temporary:
                yield temporary
            return
        with TemporaryDirectory() as folder:
            temporary = Path(folder) / "file"
            yield temporary
            with self.create(path) as sink, temporary.open("rb") as stream:
                while chunk := stream.read(UPLOADED):
                    sink.write(chunk)

    @staticmethod
    @contextmanager
    def _arriving(final: Path) -> Iterator[Path]:
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
        """A file to read at random; a context manager."""
        return self._filesystem.open_input_file(path)

    def read_text(self, path: str) -> str:
        """A small file's whole text."""
        with self._filesystem.open_input_stream(path) as stream:
            return bytes(stream.read()).decode()

    def delete(self, path: str) -> None:
        """Delete one file; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def delete_empty_folder(self, folder: str) -> None:
        """Drop a local folder that holds nothing; S3 has none."""
        if self.root is not None:
            with suppress(OSError):
                (self.root / folder).rmdir()

    def flush(self, *paths: str) -> None:
        """Flush files and folders to a local disk, in this order; S3 needs none."""
        if self.root is not None:
            for path in paths:
                fsync(self.root / path)


def _entry(info: fs.FileInfo) -> FileEntry:
    return FileEntry(info.path, info.size, info.mtime.timestamp() if info.mtime else 0.0)


def storage_options() -> dict[str, str]:
    """What delta-rs must be told beside the environment, to find the very store that pyarrow writes to, and to be as patient with it."""
    patience = {
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{REQUEST_SECONDS}s",
        "max_retries": "6",
        "backoff_config.init_backoff": "500ms",
        "backoff_config.max_backoff": "8s",
        "retry_timeout": f"{ATTEMPTS * REQUEST_SECONDS}s",
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3")
    return patience | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})


def make_folders(folder: Path) -> None:
    """Make a local folder and those above it, each one's entry flushed."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        fsync(new.parent)


def one_line(error: BaseException) -> str:
    """An error's message on one line, no colours, no credentials, at most 300 characters."""
    text = masked(re.sub(r"\x1b\[[0-9;]*m", "", str(error) or type(error).__name__))
    text = " ".join(text.replace("↳", "").split())
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def storage_errors(uri: str, doing: str, remedy: str = RUN_AGAIN) -> Iterator[None]:
    """Turn what the storage, Arrow, Polars or delta-rs raise inside the block into one StorageError naming the table and the way out."""
    try:
        yield
    except (OSError, DeltaError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise StorageError(f"table {uri}: {doing} failed: {one_line(error)}; {remedy}") from error
