"""Which unit the whole numbers of a time column are in, by the range of their values over all files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float64, Int64
from tasks.errors import InputError
from tasks.source.columns.arrow import is_number, is_text, plain_type
from tasks.source.columns.times import (
    EPOCH,
    FIRST_YEAR,
    LAST_YEAR,
    UNIT_NAMES,
    TimeReading,
    check_time,
    iso_moment,
    units_of,
    whole_numbers,
)
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles
from tasks.source.footers import Footer, sample

TIME_KEY = "source.time_column"
SAMPLED_FILES, SAMPLED_ROWS = 24, 10_000
NO_UNIT = len(UNIT_NAMES)


@dataclass(slots=True)
class _Votes:
    """How many values of which unit were seen, and one example of each; the last entry is for values of no unit."""

    counts: Float64
    examples: dict[int, str]

    def add(self, units: NDArray[np.int8], values: Int64, weight: float, uri: str) -> None:
        of_unit = np.where(units < 0, NO_UNIT, units)
        self.counts += np.bincount(of_unit, minlength=NO_UNIT + 1) * weight
        for unit in np.unique(of_unit):
            self.examples.setdefault(int(unit), f"{values[of_unit == unit][0]} in {uri}")


def read_time_column(files: ParquetFiles, footers: Sequence[Footer], config: SourceConfig) -> TimeReading:
    """How the time column is to be read. ``footers`` are those of ``files`` with rows.

    Raises InputError where the values are in two units, or in none that gives a time from 1990 to tomorrow.
    """
    column = config.time_column
    if column is None:
        return TimeReading(zone=config.zone)
    for footer in footers:
        check_time(plain_type(footer.types[column]), footer.file, f"{TIME_KEY} {column!r}")
    numeric = [x for x in footers if _needs_unit(x, column)]
    if config.time_unit is not None:
        if not numeric and footers:
            raise InputError(
                f"{footers[0].file.uri}: {TIME_KEY} {column!r} is {footers[0].types[column]}, so source.time_unit ="
                f' "{config.time_unit}" does not apply; take it out'
            )
        return _checked(TimeReading(config.time_unit, config.zone), files, footers, config)
    return _checked(_by_range(files, numeric, config), files, footers, config)


def _by_range(files: ParquetFiles, numeric: Sequence[Footer], config: SourceConfig) -> TimeReading:
    column = str(config.time_column)
    votes = _counted(files, numeric, column)
    total, seen = votes.counts.sum(), votes.counts[:NO_UNIT]
    if not total:
        return TimeReading(zone=config.zone)
    best = int(seen.argmax())
    others = votes.counts.copy()
    others[best] = 0
    if seen[best] and others.sum() <= config.max_quarantined * total:
        return TimeReading(list(UNIT_NAMES)[best], config.zone)  # type: ignore[arg-type]
    where = f"{files.uri}: {TIME_KEY} {column!r}"
    if not seen[best] or others.argmax() == NO_UNIT:
        example = votes.examples[NO_UNIT]
        raise InputError(
            f"{where} holds {example}, which is no time from {FIRST_YEAR} to tomorrow in any unit; mend the log, or say what it is by"
            f" source.time_unit ({', '.join(UNIT_NAMES)})"
        )
    names = list(UNIT_NAMES.values())
    second = int(others.argmax())
    raise InputError(
        f"{where} holds two units: {votes.examples[best]} ({names[best]}) and {votes.examples[second]} ({names[second]}); write one"
    )


def _checked(reading: TimeReading, files: ParquetFiles, footers: Sequence[Footer], config: SourceConfig) -> TimeReading:
    """``reading``, if it makes times of most values. Raises InputError with an example otherwise."""
    column, bad, example = str(config.time_column), 0.0, ""
    unclear = [x for x in footers if _out_of_range(x, column, reading)]
    step = max(1, -(-len(unclear) // SAMPLED_FILES))
    chosen = unclear[::step]
    for footer, (file, values) in zip(chosen, sample(files, chosen, column, SAMPLED_ROWS), strict=True):
        _, valid, readable = reading.seconds(values)
        wrong = valid & ~readable
        bad += wrong.sum() / max(1, len(values)) * footer.rows * step
        if wrong.any() and not example:
            example = f"{_shown(values[int(wrong.argmax())])} in {file.uri}"
    total = sum(x.rows for x in footers)
    if bad <= config.max_quarantined * total:
        return reading
    unit = f' with source.time_unit = "{config.time_unit}"' if config.time_unit else ""
    raise InputError(
        f"{files.uri}: {TIME_KEY} {column!r} holds {example}{unit}, which is no time from {FIRST_YEAR} to {LAST_YEAR}; wanted a timestamp,"
        " a number since 1970, or ISO text such as 2026-06-30 or 2026-06-30T12:00:00Z"
    )


def _shown(value: pa.Scalar) -> str:
    try:
        return repr(str(value.as_py())[:60])
    except (OverflowError, ValueError):
        # A time that Python has no date for.
        return str(value.cast(pa.int64()).as_py())


def _out_of_range(footer: Footer, column: str, reading: TimeReading) -> bool:
    """Whether some value of a file may be no time: an end of its range is none, or there is no range, or text lies between."""
    ends, kind = footer.ranges.get(column), plain_type(footer.types[column])
    if ends is None or is_text(kind):
        return not pa.types.is_null(kind)
    return not reading.seconds(ends)[2].all()


def _needs_unit(footer: Footer, column: str) -> bool:
    kind = plain_type(footer.types[column])
    # Text may be digits.
    return is_number(kind) or is_text(kind)


def _counted(files: ParquetFiles, footers: Sequence[Footer], column: str) -> _Votes:
    """The units of all numbers: by the range of a file where both ends agree, else by its first rows."""
    votes = _Votes(np.zeros(NO_UNIT + 1), {})
    latest = int((datetime.now(UTC) + timedelta(days=2)).timestamp())
    unclear = []
    for footer in footers:
        ends = footer.ranges.get(column)
        if ends is not None and pa.types.is_integer(ends.type):
            values, fits = whole_numbers(ends)
            units = units_of(values, latest)
            # Two dates may be two minutes between which no date lies, so dates are looked at one by one.
            if fits.all() and units[0] == units[1] > 0:
                votes.add(units, values, footer.rows / 2, footer.file.uri)
                continue
        unclear.append(footer)
    step = max(1, -(-len(unclear) // SAMPLED_FILES))
    chosen = unclear[::step]
    for footer, (file, values) in zip(chosen, sample(files, chosen, column, SAMPLED_ROWS), strict=True):
        numbers = _numbers(values)
        if len(numbers):
            units = units_of(numbers, latest)
            votes.add(units, numbers, footer.rows / len(numbers) * step, file.uri)
    return votes


def _numbers(values: pa.Array) -> Int64:
    """The whole numbers of a sample; of text those that are digits."""
    if is_text(values.type):
        words = [x.strip() for x in values.drop_null().to_pylist()]
        digits = [int(x) for x in words if x.isascii() and x.isdecimal() and len(x) < 19 and iso_moment(x) is None]
        return np.array(digits, np.int64)
    numbers, there = whole_numbers(values)
    return numbers[there]


def time_range(
    files: ParquetFiles, footers: Sequence[Footer], column: str, reading: TimeReading
) -> tuple[date, date, bool] | None:
    """The first and the last day of a column, and whether the footers tell them; else the first rows of some files do. None for no day."""
    days: list[int] = []
    unclear = []
    for footer in footers:
        seconds, _, readable = reading.seconds(footer.ranges.get(column, pa.nulls(2)))
        if readable.all():
            days += reading.days(seconds).tolist()
        else:
            unclear.append(footer)
    for _, values in sample(files, unclear[:SAMPLED_FILES], column, SAMPLED_ROWS):
        seconds, _, readable = reading.seconds(values)
        days += np.unique(reading.days(seconds[readable])).tolist()
    if not days:
        return None
    return date.fromordinal(EPOCH + min(days)), date.fromordinal(EPOCH + max(days)), not unclear
