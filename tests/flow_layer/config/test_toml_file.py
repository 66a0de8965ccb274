"""Reading a config file as plain values: TOML, overrides, and paths made absolute."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.config.toml_file import read_config
from tasks.errors import InputError


def written(folder: Path, text: str) -> Path:
    """A config file."""
    path = folder / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("3", 3),
        ("-1e-3", -0.001),
        ("true", True),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ("['a', 'b']", ["a", "b"]),
        ("{x = 1}", {"x": 1}),
        ("plain text", "plain text"),
        ("True", "True"),
        ("", ""),
        ("a=b", "a=b"),
        ("[1, 2", "[1, 2"),
    ],
)
def test_an_override_is_toml_or_else_text(tmp_path: Path, text: str, value: Any) -> None:
    found = read_config(written(tmp_path, "[a]\nb = 0\nkept = 1\n"), [f"a.b={text}", f"new.table.key={text}"])
    assert found["a"] == {"b": value, "kept": 1}
    assert found["new"] == {"table": {"key": value}}


@settings(deadline=None)
@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_an_override_gives_back_any_number(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers.toml"
    path.write_text("")
    text = str(value).lower()
    assert read_config(path, [f"a={text}"])["a"] == value == tomllib.loads(f"a = {text}")["a"]


@pytest.mark.parametrize("override", ["a", "=1", "a.=1", ".a=1", "a..b=1", ""])
def test_an_override_that_is_none(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=r"^--set .*: wanted a\.b=value$"):
        read_config(written(tmp_path, ""), [override])


def test_an_override_cannot_make_a_table_of_a_value(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--set a\.b\.c=1: b is a value, not a table"):
        read_config(written(tmp_path, "[a]\nb = 0\n"), ["a.b.c=1"])


def test_only_paths_become_absolute(tmp_path: Path) -> None:
    text = '[source]\ncatalog = "c"\ninteractions = "s3://b/i"\ntitle_column = "t"\n[publish]\nuri = "../u"\n[run]\nfolder = "/r/../s"\n'
    found = read_config(written(tmp_path, text))
    assert found["source"] == {"catalog": str(tmp_path / "c"), "interactions": "s3://b/i", "title_column": "t"}
    assert found["publish"] == {"uri": str(tmp_path.parent / "u")}
    assert found["run"] == {"folder": "/s"}


def test_paths_of_another_type_are_left_to_the_config_to_refuse(tmp_path: Path) -> None:
    found = read_config(written(tmp_path, 'source = 3\nrun = "x"\nfeature_store = 7\n[publish]\nuri = 3\n'))
    assert found == {"source": 3, "run": "x", "feature_store": 7, "publish": {"uri": 3}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = ", "not a TOML file"),
        (b"a = 1\na = 2\n", "not a TOML file"),
        (b"\xff\xfe", "not a TOML file"),
        (None, "the config cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {said}")
