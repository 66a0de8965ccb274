"""What a time is: a timestamp, a date, a whole number in some unit, or ISO text; read as whole seconds since 1970, UTC.

A timestamp without a zone, and a text without an offset, is UTC. Dates, compact dates (20260630) and days since 1970 begin at midnight in
`source.time_zone`. Times outside ``FIRST_YEAR`` to ``LAST_YEAR`` are damage: no log has them, a wrong unit does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Int64
from tasks.errors import InputError
from tasks.object_store import StoredFile
from tasks.source.columns.arrow import is_number, is_text

DAY_SECONDS = 86_400
EPOCH = date(1970, 1, 1).toordinal()
INT64_MIN = int(np.iinfo(np.int64).min)
FIRST_YEAR, LAST_YEAR = 1990, 2100
FIRST = (date(FIRST_YEAR, 1, 1).toordinal() - EPOCH) * DAY_SECONDS
LAST = (date(LAST_YEAR, 1, 1).toordinal() - EPOCH) * DAY_SECONDS
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
Unit = Literal["date", "days", "hours", "minutes", "s", "ms", "us", "ns"]
UNIT_NAMES: dict[str, str] = {
    "date": "dates written as 20260630",
    "days": "days since 1970",
    "hours": "hours since 1970",
    "minutes": "minutes since 1970",
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
}
COARSE = {"days": DAY_SECONDS, "hours": 3_600, "minutes": 60}
Seconds = tuple[Int64, Bool]


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How a time column is read: the ``unit`` of its whole numbers, None where no file has any, and the ``zone`` of its days."""

    unit: Unit | None = None
    zone: ZoneInfo | None = None

    def seconds(self, column: pa.Array) -> tuple[Int64, Bool, Bool]:
        """Whole seconds since 1970, UTC [N] int64 (0 where there is none); which rows are not null; and which can be read, [N] bool."""
        kind, valid = column.type, np.asarray(column.is_valid())
        if pa.types.is_null(kind):
            return np.zeros(len(column), np.int64), valid, valid
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            values, readable = self._of_instants(column), valid
        elif is_text(kind):
            values, readable = self._of_text(column)
        else:
            numbers, readable = whole_numbers(column)
            values, known = self._of_numbers(numbers)
            readable = readable & known
        readable = readable & valid & (values >= FIRST) & (values < LAST)
        return np.where(valid, values, 0), valid, readable

    def days(self, seconds: Int64) -> Int64:
        """The day of each time in the zone, days since 1970."""
        return (seconds if self.zone is None else seconds + self._offsets(seconds)) // DAY_SECONDS

    def midnight(self, day: date) -> int:
        """The second at which a day begins in the zone."""
        local = (day.toordinal() - EPOCH) * DAY_SECONDS
        return int(self._to_utc(np.array([local], np.int64))[0])

    def _of_instants(self, column: pa.Array) -> Int64:
        kind = column.type
        if pa.types.is_date32(kind):
            days = np.asarray(column.cast(pa.int32()).fill_null(0)).astype(np.int64)
            return self._to_utc(days * DAY_SECONDS)
        numbers = np.asarray(column.cast(pa.int64()).fill_null(0))
        if pa.types.is_date64(kind):
            return self._to_utc(numbers // UNITS["ms"])
        return numbers // UNITS[kind.unit]

    def _of_numbers(self, numbers: Int64) -> tuple[Int64, Bool]:
        if self.unit == "date":
            days, known = calendar_days(numbers)
            return self._to_utc(days * DAY_SECONDS), known
        everything = np.ones(len(numbers), np.bool_)
        if self.unit in COARSE:
            scale = COARSE[self.unit]
            # Beyond this the product would not fit. It is out of every range all the same.
            values = np.clip(numbers, -(2**40), 2**40) * scale
            return (self._to_utc(values) if self.unit == "days" else values), everything
        return numbers // UNITS[self.unit or "s"], everything

    def _of_text(self, column: pa.Array) -> Seconds:
        encoded = column.dictionary_encode()
        words = [x.strip() for x in encoded.dictionary.to_pylist()]
        values, readable = np.zeros(len(words), np.int64), np.zeros(len(words), np.bool_)
        for at, word in enumerate(words):
            moment = iso_moment(word)
            if moment is not None:
                values[at], readable[at] = moment, True
        digits = np.array([x.lstrip("-").isdecimal() and x.isascii() and len(x) < 20 for x in words], np.bool_)
        if digits.any():
            numbers = np.array([int(x) for x, whole in zip(words, digits, strict=True) if whole], np.object_)
            fits = np.array([abs(x) < 2**63 for x in numbers], np.bool_)
            found, known = self._of_numbers(np.where(fits, numbers, 0).astype(np.int64))
            values[digits], readable[digits] = found, known & fits
        if not len(words):
            return np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
        codes = np.asarray(encoded.indices.fill_null(0))
        return values[codes], readable[codes]

    def _to_utc(self, local: Int64) -> Int64:
        """The instants of wall-clock seconds in the zone. A time that a clock change skips or repeats is its earlier reading."""
        if self.zone is None:
            return local
        safe = np.clip(local, FIRST - DAY_SECONDS, LAST + DAY_SECONDS)
        naive = pa.array(safe, pa.timestamp("s"))
        moved = pc.assume_timezone(naive, self.zone.key, ambiguous="earliest", nonexistent="earliest")
        utc: Int64 = local + np.asarray(moved.cast(pa.int64())) - safe
        return utc

    def _offsets(self, seconds: Int64) -> Int64:
        safe = np.clip(seconds, FIRST - DAY_SECONDS, LAST + DAY_SECONDS)
        local = pc.local_timestamp(pa.array(safe, pa.timestamp("s", tz=self.zone.key if self.zone else "UTC")))
        offsets: Int64 = np.asarray(local.cast(pa.int64())) - safe
        return offsets


def check_time(kind: pa.DataType, file: StoredFile, key: str) -> None:
    """Raises InputError unless the type can hold times."""
    tests = (
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_null,
        is_number,
        is_text,
    )
    if not any(test(kind) for test in tests):
        raise InputError(
            f"{file.uri}: {key} is {kind}; wanted a timestamp, a date, a number of seconds (or of another source.time_unit) since 1970,"
            " or text such as 2026-06-30T12:00:00Z"
        )


def whole_numbers(column: pa.Array) -> tuple[Int64, Bool]:
    """The whole part of each number [N] int64, and which of them there are and fit [N] bool."""
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        numbers = np.asarray(column.cast(pa.int64()).fill_null(0))
        return numbers, np.asarray(column.is_valid())
    doubles = np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan))
    fits = np.isfinite(doubles) & (np.abs(doubles) < 2.0**63)
    if pa.types.is_floating(column.type):
        return np.floor(np.where(fits, doubles, 0)).astype(np.int64), fits
    # Large integers and decimals must not lose digits to a double.
    kept = column.filter(pa.array(fits))
    exact = pc.floor(kept) if pa.types.is_decimal(kept.type) else kept
    numbers = np.zeros(len(column), np.int64)
    numbers[fits] = np.asarray(exact.cast(pa.int64(), safe=False))
    return numbers, fits


def iso_moment(word: str) -> int | None:
    """Seconds since 1970 of an ISO 8601 text, None for any other. A whole date is its midnight; no offset is UTC.

    Digits alone are a number, although ISO allows dates such as 20260630.
    """
    if len(word) < 10 or not (word[4] == "-" or "T" in word):
        return None
    try:
        moment = datetime.fromisoformat(word.removesuffix(" UTC"))
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def calendar_days(numbers: Int64) -> Seconds:
    """The days since 1970 of numbers such as 20260630 [N] int64, and which of them are dates of ``FIRST_YEAR`` to ``LAST_YEAR`` [N]."""
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    likely = (year >= FIRST_YEAR) & (year < LAST_YEAR) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    safe = np.where(likely, numbers, FIRST_YEAR * 10_000 + 101)
    months = ((safe // 10_000 - 1970) * 12 + safe // 100 % 100 - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (safe % 100 - 1).astype("timedelta64[D]")
    # The 31st of a month that has 30 days falls into the next one.
    known = likely & (days.astype("datetime64[M]") == months)
    return days.astype(np.int64), known


def units_of(numbers: Int64, latest: int) -> NDArray[np.int8]:
    """The index in ``UNIT_NAMES`` of the unit in which each number is a time from ``FIRST_YEAR`` to ``latest``, -1 for none [N] int8.

    The ranges do not overlap, except that dates such as 20260630 are also minutes of 2008. Those are dates here.
    """
    found = np.full(len(numbers), -1, np.int8)
    for index, unit in enumerate(UNIT_NAMES):
        if unit == "date":
            inside = calendar_days(numbers)[1]
        elif unit in COARSE:
            inside = (numbers >= FIRST // COARSE[unit]) & (numbers <= latest // COARSE[unit])
        else:
            inside = (numbers >= FIRST * UNITS[unit]) & (numbers <= latest * UNITS[unit])
        found[(found < 0) & inside] = index
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Event times to read, in whole seconds since 1970, UTC: ``start`` included, ``stop`` not."""

    start: int
    stop: int

    @classmethod
    def of_days(cls, last: date, num_days: int | None, reading: TimeReading) -> Window:
        """The ``num_days`` days of the reading's zone that end with ``last``, or all days up to it."""
        stop = reading.midnight(date.fromordinal(min(last.toordinal() + 1, date.max.toordinal())))
        if last == date.max:
            stop += DAY_SECONDS
        if num_days is None:
            return cls(start=INT64_MIN, stop=stop)
        first = last.toordinal() + 1 - num_days
        start = reading.midnight(date.fromordinal(first)) if first >= 1 else (first - EPOCH) * DAY_SECONDS
        return cls(start=start, stop=stop)

    def contains(self, seconds: Int64) -> Bool:
        """Which of these times lie in the window."""
        inside: Bool = (seconds >= self.start) & (seconds < self.stop)
        return inside
