"""Which day a file belongs to, by the folders it lies in.

- `key=2026-05-02` with any key, also compact, with a time of day, or URL-encoded: `ds=20260502`, `DT=2026-05-02%2013%3A00%3A00`.
- `year=2026/month=05/day=02`, with or without the keys.
- Plain folders below the input: `2026-05-02/` or `20260502/`.
- Folders of hours below a day are part of the day.
- `key=__HIVE_DEFAULT_PARTITION__` has no day: its rows go to quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import unquote

from tasks.errors import InputError
from tasks.object_store import StoredFile
from tasks.source.columns.times import FIRST_YEAR, LAST_YEAR

# What Hive, Spark, Athena and pandas write for null.
NO_DAY = ("__HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_NULL__", "__DEFAULT_PARTITION__")
# Keys that promise a day, so that another value is a mistake.
DAY_KEYS = ("dt", "ds", "date", "day", "snapshot_date", "event_date", "partition_date", "load_date", "as_of")
PARTS = (("year", "yyyy", "yy", "y"), ("month", "mm", "mon", "m"), ("day", "dd", "d"))
_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})|(\d{4})(\d{2})(\d{2})", re.ASCII)
_TIME = re.compile(r"(?:[T _+-]?\d{2}(?::?\d{2}){0,2}(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?)?", re.ASCII)
_NUMBER = re.compile(r"\d{1,4}", re.ASCII)
PLAIN = "a day folder"


@dataclass(frozen=True, slots=True)
class FoundDay:
    """A day that a path names: by which ``key`` (``PLAIN`` for a folder without one), in which ``text``. ``day`` is None for no day."""

    key: str
    text: str
    day: date | None


def day_of(value: str) -> date | None:
    """The day of a partition value, None if it is none. A time of day after it is ignored."""
    text = unquote(value)
    match = _DAY.match(text)
    if match is None or not _TIME.fullmatch(text[match.end() :]):
        return None
    year, month, day = (int(x) for x in match.groups() if x is not None)
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    # Eight digits are often something else than a date.
    return found if match[1] or FIRST_YEAR <= year < LAST_YEAR else None


def find_days(folders: Sequence[str], own: int) -> list[FoundDay]:
    """Every day that the folders above a file name, outermost first. Plain folders count only after the first ``own`` folders."""
    found: list[FoundDay] = []
    at = 0
    while at < len(folders):
        parts = _parts(folders[at : at + 3], plain=at >= own)
        if parts is not None:
            found.append(parts)
            at += 3
            continue
        name, separator, value = folders[at].partition("=")
        if separator and name:
            text = unquote(value)
            day = day_of(value)
            if day is not None or text in NO_DAY or (name.lower() in DAY_KEYS and not _of_parts(name, value)):
                found.append(FoundDay(name, folders[at], day))
        elif at >= own and day_of(folders[at]) is not None and _DAY.fullmatch(folders[at]):
            found.append(FoundDay(PLAIN, folders[at], day_of(folders[at])))
        at += 1
    return found


def _of_parts(name: str, value: str) -> bool:
    """Whether this may be one of year=, month= and day=."""
    return any(name.lower() in names for names in PARTS) and _NUMBER.fullmatch(value) is not None


def _parts(folders: Sequence[str], *, plain: bool) -> FoundDay | None:
    """A day in three folders: year=2026/month=5/day=2, or 2026/05/02 where ``plain`` folders count."""
    if len(folders) < 3:
        return None
    numbers = []
    keyed = all("=" in folder for folder in folders)
    for folder, names in zip(folders, PARTS, strict=True):
        name, _, value = folder.partition("=") if keyed else ("", "", folder)
        if not _NUMBER.fullmatch(value) or (name.lower() not in names if keyed else not plain):
            return None
        numbers.append(int(value))
    if not keyed and not (len(folders[0]) == 4 and len(folders[1]) == len(folders[2]) == 2):
        return None
    year, month, day = numbers
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    key = "/".join(folder.partition("=")[0] for folder in folders) if keyed else PLAIN
    return FoundDay(key, "/".join(folders), found) if FIRST_YEAR <= year < LAST_YEAR else None


@dataclass(frozen=True, slots=True)
class DayFolders:
    """The files of an input by day, oldest first; those in the partition without a day; and the ``key`` that tells the days."""

    by_day: Mapping[date, tuple[StoredFile, ...]]
    undated: tuple[StoredFile, ...]
    key: str | None

    @property
    def name(self) -> str:
        """How messages call the folders: ``dt=``."""
        return "day" if self.key in (None, PLAIN) else f"{self.key}="

    def label(self, day: date) -> str:
        """How messages call one of them: ``dt=2026-05-02``."""
        return str(day) if self.key in (None, PLAIN) else f"{self.key}={day}"


Folders = Mapping[StoredFile, tuple[Sequence[str], int]]
"""The folders that may tell each file's day, outermost first, and how many of them are the input's own."""


def folders_below(files: Sequence[StoredFile], folder: str) -> Folders:
    """The folders of files as they lie. ``folder`` is the input's own.

    Above the input only those count that it was named by: dt=2026-05-02 of catalog/dt=2026-05-02, but not of /backup/dt=.../catalog.
    """
    own = folder.split("/")
    first = len(own)
    while first and "=" in own[first - 1]:
        first -= 1
    return {file: (file.path.split("/")[first:-1], len(own) - first) for file in files}


def by_days(uri: str, folders: Folders, setting: str, wanted: str | None) -> DayFolders:
    """Sort files by the day of their folders. ``setting`` is the config key that names a partition key, ``wanted`` its value.

    Raises InputError where a value is no day, where two keys or two days stand in one path, or where only some files have a day.
    """
    found = {file: _found(names, own, wanted) for file, (names, own) in folders.items()}
    # A null partition of some other key is no day, so a key must have a day once, or be called like one.
    of_days = {x.key for days in found.values() for x in days if x.day is not None or x.key.lower() in DAY_KEYS}
    keys = {x.key: file for file, days in found.items() for x in days if x.key in of_days or x.key == wanted}
    if wanted is not None and wanted not in keys:
        raise InputError(f"{uri}: {setting} = {wanted!r}, but no folder of it is called {wanted}=...; correct the key")
    if not keys:
        return DayFolders({}, (), None)
    if len(keys) > 1:
        (one, first), (other, second) = list(keys.items())[:2]
        nested = any({one, other} <= {x.key for x in days} for days in found.values())
        way = f'choose one: {setting} = "{one}" or "{other}"' if nested else "keep one kind"
        raise InputError(f"{uri}: {one} and {other} both tell a day ({first.uri}, {second.uri}); {way}")
    key = next(iter(keys))
    by_day: dict[date, list[StoredFile]] = {}
    undated = []
    for file, days in found.items():
        day = _one_day(uri, file, [x for x in days if x.key == key], key)
        if day is None:
            undated.append(file)
        else:
            by_day.setdefault(day, []).append(file)
    if not by_day:
        raise InputError(
            f"{undated[0].uri}: its partition has no day, and no other has; write the rows into {key}=YYYY-MM-DD"
        )
    return DayFolders({day: tuple(by_day[day]) for day in sorted(by_day)}, tuple(undated), key)


def _found(folders: Sequence[str], own: int, wanted: str | None) -> list[FoundDay]:
    days = find_days(folders, own)
    if wanted is None:
        return days
    named = [x for x in folders if x.partition("=")[0] == wanted and "=" in x]
    return [x for x in days if x.key == wanted] or [FoundDay(wanted, x, None) for x in named]


def _one_day(uri: str, file: StoredFile, days: Sequence[FoundDay], key: str) -> date | None:
    if not days:
        shown = "day folders" if key == PLAIN else f"{key}= partitions"
        raise InputError(
            f"{file.uri}: lies outside the {shown} of {uri}; move it into one, or name the folders by a glob"
        )
    wrong = next((x for x in days if x.day is None and unquote(x.text.partition("=")[2]) not in NO_DAY), None)
    if wrong is not None:
        raise InputError(f"{file.uri}: its partition {wrong.text!r} is no day; wanted {wrong.key}=YYYY-MM-DD")
    if len({x.day for x in days}) > 1:
        raise InputError(f"{file.uri}: its path names two days, {days[0].text!r} and {days[1].text!r}; keep one")
    return days[0].day
