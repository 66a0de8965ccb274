"""The offline store's files: the table's Parquet files of one version, linked under folders that name version, time and day.

``offline/v<version>-<digest>/<view>/table_version=N/event_timestamp=D/as_of=D/part-*.parquet``. DuckDB reads the folder names as
columns. The table never changes a file, so a link is as good as a copy, and it outlives the table's clean-up. Where no link is possible
(another disk, S3) the file is copied. The folder of a version appears by one rename.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StorageError
from tasks.feature_store.config import OFFLINE, FeatureStoreConfig
from tasks.feature_store.views import EVENT, VERSION
from tasks.source.config import BEHAVIOUR
from tasks.store.atomic_files import fsync, whole_folder
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import DataFile
from tasks.table.snapshot import modality_names

_KEEP_TRYING = "nothing was served; ask for a version whose files are still there, or try again"


def link_files(config: FeatureStoreConfig, uri: str, version: int, shown: Sequence[DataFile]) -> str:
    """Make the folder of a version's files unless it exists. Return its name below ``offline``.

    Raises StorageError where a file cannot be read or linked.
    """
    digest = hashlib.blake2b("\n".join([uri, *(x.path for x in shown)]).encode(), digest_size=6).hexdigest()
    name = f"v{version}-{digest}"
    final = config.root / OFFLINE / name
    if final.is_dir():
        return name
    files = TableFiles(uri)
    try:
        with whole_folder(final) as folder:
            for file in shown:
                _link(files, file, version, folder)
    except OSError as error:
        raise StorageError(
            f"feature store {config.folder}: linking the files of version {version} failed: {error.strerror or error};"
            " readers keep the version that was served; free or fix the disk, then refresh again"
        ) from error
    return name


def files_pattern(config: FeatureStoreConfig, name: str, view: str) -> str:
    """The glob of one view's files."""
    return str(config.root / OFFLINE / name / view / f"{VERSION}=*" / f"{EVENT}=*" / "as_of=*" / "*.parquet")


def drop_files(config: FeatureStoreConfig, kept: Iterable[str]) -> None:
    """Remove the folders of all versions except ``kept``, and those of a killed refresh. The caller holds the store's lock."""
    wanted = set(kept)
    root = config.root / OFFLINE
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in wanted:
            shutil.rmtree(folder, ignore_errors=True)


def _link(files: TableFiles, file: DataFile, version: int, folder: Path) -> None:
    with storage_errors(files.uri, f"reading {file.path}", _KEEP_TRYING), files.open(file.path) as stream:
        schema = pa.schema(pq.read_schema(stream))
    views = [*modality_names(files.uri, schema), *({BEHAVIOUR} & set(schema.names))]
    below = Path(f"{VERSION}={version}", f"{EVENT}={file.day}", f"as_of={file.day}", Path(file.path).name)
    first: Path | None = None
    for view in views:
        place = folder / view / below
        place.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            _take(files, file, place)
            first = place
        else:
            os.link(first, place)


def _take(files: TableFiles, file: DataFile, place: Path) -> None:
    if files.root is not None:
        try:
            os.link(files.root / file.path, place)
        except OSError:
            shutil.copyfile(files.root / file.path, place)
            fsync(place)
        return
    with (
        storage_errors(files.uri, f"reading {file.path}", _KEEP_TRYING),
        files.open(file.path) as stream,
        place.open("wb") as sink,
    ):
        shutil.copyfileobj(stream, sink, 8 << 20)
    fsync(place)
