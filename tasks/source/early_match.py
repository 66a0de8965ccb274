"""Refusing a log of other items before the whole of it is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pyarrow as pa

from rectifier_core.base.numerics import silent
from tasks.errors import InputError
from tasks.source.config import SourceConfig
from tasks.source.files import in_blocks
from tasks.source.id_hints import all_ids, no_match_remedy
from tasks.source.inspect import Inspection
from tasks.source.interactions import BLOCK_ROWS, EXAMPLES
from tasks.source.raw_log import ANONYMOUS, REASONS, RawLog

# Of the processor, whatever else it works on, and of the clock, where files come from far away.
CPU_SECONDS, SECONDS = 2.0, 6.0
UNKNOWN = REASONS.index("unknown_item")


def refuse_unknown_items(found: Inspection, config: SourceConfig, as_of: date) -> None:
    """Raise InputError if a part of the log proves that too many of its rows name items that the catalog does not have.

    The newest files are read first, while most rows are unknown and for about two seconds. Rows that were not read count as good, and the
    rows that were read are judged as the run does. So no log is refused here that the run would take.
    """
    log = RawLog(found.log, config, as_of, all_ids(found, config), found.log_schema)
    cpu, clock = time.process_time() + CPU_SECONDS, time.monotonic() + SECONDS
    positive, judged, named, bad = 0, 0, 0, 0
    examples: pa.Array | None = None

    def newest_first() -> Iterator[pa.Table]:
        nonlocal positive
        for _, rows in log.tables(silent, "", replace(found.log, files=found.log.files[::-1])):
            positive += len(rows)
            yield rows

    for block in in_blocks(newest_first(), BLOCK_ROWS):
        _, codes = log.judge(block)
        if examples is None or not len(examples):
            missing = block.column("item").combine_chunks().filter(pa.array(codes == UNKNOWN))
            examples = missing.slice(0, EXAMPLES)
        judged += len(block)
        named += int((codes != ANONYMOUS).sum())
        bad += int((codes == UNKNOWN).sum())
        others = positive - judged + found.log_rows - log.rows_read
        if bad > config.max_quarantined * (named + others):
            break
        if 2 * bad < named or time.process_time() > cpu or time.monotonic() > clock:
            return
    else:
        # Rows outside the window never count as read.
        if bad <= config.max_quarantined * named:
            return
    kind = "positive interactions" if config.positive else "interactions"
    raise InputError(
        f"{found.log.uri}: {bad:,} of the newest {named:,} {kind} cannot be used, because the catalog does not have their items;"
        f" source.max_quarantined = {config.max_quarantined:g} allows fewer:"
        f" {no_match_remedy(examples, log.ids, config)}"
    )
