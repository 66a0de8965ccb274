"""The record of the served version, and what a refresh to another version must do.

The record lies in Feast's registry beside the views, so one rename changes both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Self

from pydantic import TypeAdapter

from tasks.errors import InputError
from tasks.feature_store.config import FeatureStoreConfig, Older
from tasks.feature_store.views import ServedSchema
from tasks.table.log import LogEntry
from tasks.table.snapshot import Snapshot

LAYOUT = 2
"""Increase it when the same rows must be served in another way. Older stores are then filled again."""

Step = Literal["unchanged", "links", "rows", "superseded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(ServedSchema):
    """Rows that one refresh wrote online, of table version ``version``, and the folder of that version's files.

    ``tags`` name by modality the embedding model, and the first day of its rows in the files, where the config names it.
    """

    number: int
    version: int
    files: str
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What readers get: table ``version``, whose newest day ``as_of`` was published by ``run_id`` in data files of digest ``rows_digest``.

    ``generation`` are its rows online; their version is an earlier one if it had the same rows. ``previous`` stays online for readers that
    have not yet seen the switch. ``table`` is Delta's id of the table. ``online`` is the kind of the online store.
    """

    version: int
    as_of: str
    run_id: str
    rows: int
    rows_digest: str
    table: str
    online: str
    generation: Generation
    previous: Generation | None = None
    layout: int = LAYOUT

    def to_json(self) -> str:
        """As it is kept in the registry."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that ``to_json`` wrote. Raises ValueError for other text."""
        return TypeAdapter(cls).validate_json(text)

    def linked(self, version: int, files: str, tags: Mapping[str, Mapping[str, str]]) -> Self:
        """The same rows as part of another version, whose offline files lie in ``files``."""
        return replace(self, version=version, generation=replace(self.generation, files=files, tags=tags))


def rows_digest(snapshot: Snapshot) -> str:
    """A digest of the names of a day's data files, which never change."""
    return hashlib.blake2b("\n".join([snapshot.day, *snapshot.paths]).encode(), digest_size=16).hexdigest()


def next_step(config: FeatureStoreConfig, served: Served | None, snapshot: Snapshot, older: Older) -> Step:
    """What a refresh must do to serve ``snapshot``. Raises InputError for an older version or day if ``older`` is "refuse".

    After a rollback of the table an older day is right. A day that was published again remains the newest.
    """
    if served is None:
        return "rows"
    if served.online != config.online:
        raise InputError(
            f"feature_store.online: {config.folder} serves from {served.online}; give {config.online} a folder of its own, and"
            " move readers to it when it is refreshed"
        )
    same_table = served.table == snapshot.table_id
    if not same_table and older != "serve":
        raise InputError(
            f"feature store {config.folder}: it serves version {served.version} of another table than {snapshot.uri}; nothing was pushed;"
            " choose another feature_store.folder, or serve this table with --allow-older"
        )
    same = same_table and served.rows_digest == rows_digest(snapshot) and served.layout == LAYOUT
    if same and served.version == snapshot.version:
        return "unchanged"
    back = same_table and (snapshot.version < served.version or snapshot.day < served.as_of)
    rolled_back = snapshot.version > served.version and any(
        _rolls_back(x) for x in snapshot.log if served.version < x.version <= snapshot.version
    )
    if back and not rolled_back and older != "serve":
        if older == "skip":
            return "superseded"
        raise InputError(
            f"feature store {config.folder}: it serves version {served.version} as of {served.as_of}; version {snapshot.version} as of"
            f" {snapshot.day} is older: nothing was pushed; roll the table back and refresh, or serve it with --allow-older"
        )
    return "links" if same else "rows"


def _rolls_back(entry: LogEntry) -> bool:
    return "restored_version" in entry.info or entry.info.get("operation") == "RESTORE"
