"""Rows of ids, against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rectifier_core.base.row_lookup import RowLookup

IDS = st.one_of(*(st.lists(x, max_size=20) for x in (st.integers(-5, 30), st.text("ab\xe9", min_size=1, max_size=3))))


@given(IDS, IDS)
def test_each_id_has_its_row_and_any_other_has_none(ids: list[int] | list[str], wanted: list[int] | list[str]) -> None:
    distinct = list(dict.fromkeys(ids))
    rows = {x: row for row, x in enumerate(distinct)}
    found = RowLookup(np.array(distinct)).rows_of(np.array(wanted))
    assert found.dtype == np.int64
    assert found.tolist() == [rows.get(x, -1) for x in wanted]
