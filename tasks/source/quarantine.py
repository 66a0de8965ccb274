"""Rows that cannot be used: kept with a reason in a Parquet file, counted, and too many of them stop the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import InputError

ROW_GROUP = 1 << 16
USABLE = -1


class ParquetSink:
    """Writes a Parquet file in row groups of exactly ``ROW_GROUP`` rows, so that its bytes do not depend on how the rows were batched."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._held: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        if not table.num_rows:
            return
        self._held.append(table)
        self._rows += table.num_rows
        if self._rows >= ROW_GROUP:
            self._write(whole_groups_only=True)

    def _write(self, *, whole_groups_only: bool) -> None:
        table = pa.concat_tables(self._held).combine_chunks()
        rows = self._rows - self._rows % ROW_GROUP if whole_groups_only else self._rows
        self._writer.write_table(table.slice(0, rows), row_group_size=ROW_GROUP)
        self._held, self._rows = [table.slice(rows)], self._rows - rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left and close the file."""
        if kind is None and self._rows:
            self._write(whole_groups_only=False)
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


def stop_if_too_many(what: str, counts: Mapping[str, int], read: int, limit: float, remedy: str) -> None:
    """Raises InputError if more than ``limit`` of the ``read`` things called ``what`` were quarantined."""
    bad = sum(counts.values())
    if bad <= limit * read:
        return
    worst = max(counts, key=lambda reason: counts[reason])
    raise InputError(
        f"{what}: {bad:,} of {read:,} ({bad / read:.1%}) cannot be used, most often {worst} ({counts[worst]:,}); "
        f"source.max_quarantined = {limit:g} allows {limit:.1%}: {remedy}, or raise source.max_quarantined"
    )
