"""Rows that cannot be used: written with a reason to a Parquet file and counted. Too many of them stop the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.source.columns.vectors import USABLE

ROW_GROUP = 1 << 16


class ParquetSink:
    """Writes a Parquet file in row groups of exactly ``ROW_GROUP`` rows, so that its bytes do not depend on how the rows were batched."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._pending = schema.empty_table()

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        self._pending = pa.concat_tables([self._pending, table])
        whole = len(self._pending) - len(self._pending) % ROW_GROUP
        if whole:
            self._write(self._pending.slice(0, whole))
            self._pending = self._pending.slice(whole)

    def _write(self, table: pa.Table) -> None:
        self._writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Write the remaining rows and close the file."""
        if kind is None and len(self._pending):
            self._write(self._pending)
        self._writer.close()


class Quarantine(ParquetSink):
    """Unusable rows with a ``reason`` column; ``counts`` has every reason, also those that never occurred."""

    def __init__(self, path: Path, schema: pa.Schema, reasons: Sequence[str]) -> None:
        super().__init__(path, schema.append(pa.field("reason", pa.string())))
        self._reasons = pa.array(reasons, pa.string())
        self.counts = dict.fromkeys(reasons, 0)

    def judge(self, table: pa.Table, codes: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Keep the rows whose code is a reason's index, and return which are ``USABLE`` [N] bool."""
        usable: NDArray[np.bool_] = codes == USABLE
        if not usable.all():
            bad = np.flatnonzero(~usable)
            for reason, count in zip(self.counts, np.bincount(codes[bad], minlength=len(self.counts)), strict=True):
                self.counts[reason] += int(count)
            rows = table.take(pa.array(bad)).append_column("reason", self._reasons.take(pa.array(codes[bad])))
            self.add(rows.cast(self.schema))
        return usable


def stop_if_too_many(what: str, counts: Mapping[str, int], read: int, limit: float, remedy: Callable[[], str]) -> None:
    """Raises InputError if more than ``limit`` of the ``read`` things called ``what`` were quarantined. ``remedy`` says what to do."""
    bad = sum(counts.values())
    if bad <= limit * read:
        return
    worst = max(counts, key=lambda reason: counts[reason])
    # Where most is wrong, another bound is no way out.
    way = f"{remedy()}, or raise source.max_quarantined" if 2 * bad <= read else remedy()
    raise InputError(
        f"{what}: {bad:,} of {read:,} ({bad / read:.1%}) cannot be used, most often {worst} ({counts[worst]:,}); "
        f"source.max_quarantined = {limit:g} allows {limit:.1%}: {way}"
    )
