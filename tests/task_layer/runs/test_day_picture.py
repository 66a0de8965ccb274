"""The picture of days."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from tasks.errors import InputError, StorageError
from tasks.runs.day_picture import LOOKS, draw_days
from tasks.runs.day_status import STATES, DayStatus

DAYS = [
    DayStatus(day=date(2024, 2, 26) + timedelta(days=at), state=STATES[at % len(STATES)], why="") for at in range(45)
]


def test_the_picture_has_a_colour_a_letter_and_a_count_for_each_state(tmp_path: Path) -> None:
    assert tuple(LOOKS) == STATES
    draw_days(DAYS, tmp_path / "days.svg")
    text = (tmp_path / "days.svg").read_text()
    for state, (colour, letter) in LOOKS.items():
        assert colour in text
        assert f"{letter} {state} (5)".strip() in text
    assert "2024-02-26 to 2024-04-10" in text
    draw_days(DAYS, tmp_path / "days.png")
    assert (tmp_path / "days.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_is_no_picture_or_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"days\.txt: wanted a file that ends in \.png or \.svg"):
        draw_days(DAYS, tmp_path / "days.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written: "):
        draw_days(DAYS, tmp_path / "file" / "days.png")
