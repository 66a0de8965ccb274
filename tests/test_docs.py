"""What the pages say exists: links and anchors, commands and their options, make targets, config keys, messages; and the generated page."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from flows.__main__ import app
from flows.config.run_config import RunConfig
from flows.config.toml_file import read_config

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
PAGES = [ROOT / x for x in LISTED if (ROOT / x).exists()]
WRITTEN = [x for x in PAGES if x.parent.name != "results" and x.relative_to(ROOT).parts[:2] != ("docs", "evidence")]
NAMED_BY_MODALITY = ("source.modalities", "source.embedding_models")
"""The pages that people write; benchmarks and evaluations write the others."""
COMMAND: Any = typer.main.get_command(app)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """A page without its fenced and indented blocks and without code in a line."""
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.append(anchor if anchor not in found else f"{anchor}-{found.count(anchor)}")
    return set(found)


def blocks_of(path: Path) -> list[str]:
    """The code blocks of a page, fenced ones and indented ones, without their indent."""
    text = text_of(path)
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"\n\n((?: {4}.*\n|\n(?= {4}))+)", text)
    return fenced + [re.sub(r"^ {4}", "", x, flags=re.MULTILINE) for x in indented]


def lines_of(path: Path) -> list[str]:
    """Every line of the code blocks of a page, a continued one as one."""
    return [line for block in blocks_of(path) for line in block.replace("\\\n", " ").splitlines()]


def pieces_of(path: Path) -> list[str]:
    """Every piece of code within a page's prose."""
    prose = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(x.split()) for x in re.findall(r"`([^`]+)`", prose)]


@pytest.mark.parametrize("path", WRITTEN, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", WRITTEN, ids=named)
def test_files_that_are_named_exist(path: Path) -> None:
    """A path in backquotes that begins with a folder of the project is one of its files."""
    roots = {x.name for x in ROOT.iterdir() if x.is_dir() and not x.name.startswith(".")}
    wrong = []
    for piece in re.findall(r"`([A-Za-z0-9_./-]+)`", text_of(path)):
        parts = piece.rstrip("/").split("/")
        if len(parts) > 1 and parts[0] in roots and piece != "docker/secrets" and not (ROOT / piece).exists():
            wrong.append(piece)
    assert not wrong


def commands_of(lines: list[str]) -> list[str]:
    """Every ``catalog-rectifier …`` or ``python -m flows …`` in lines of code, without comments and what follows in the shell."""
    found = [
        match[1]
        for line in lines
        if (match := re.search(r"(?:^|[\s/])(?:python -m flows|catalog-rectifier)(?=\s|$)(?! \|)(.*)", line))
    ]
    said = [re.split(r"\s#|\s\||&&|;", x)[0].strip() for x in found]
    return [x for x in said if x and not re.fullmatch(r"[….\s]+", x)]


def commands_in_tables(path: Path) -> list[str]:
    """The first cells of a table whose heading is ``command of `catalog-rectifier```."""
    table = text_of(path).partition("| command of `catalog-rectifier` |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.+?`) \| ", table, re.MULTILINE)
    return [piece for cell in cells for piece in re.findall(r"`([^`]+)`", cell)]


def spellings(command: str) -> Iterator[list[str]]:
    """The words of a synopsis: brackets taken off, of alternatives each."""
    plain = re.sub(r"[\[\]]", " ", command.replace("…", "...")).replace("...", " ")
    options = re.findall(r"(--[a-z-]+(?:[ =]\S+)?) \| (--[a-z-]+(?: \S+)?)", plain)
    for choice in range(2 if options else 1):
        said = plain
        for pair in options:
            said = said.replace(" | ".join(pair), pair[choice])
        yield shlex.split(re.sub(r"\b(\w+)(?:\|\w+)+", r"\1", said))


def parsed(words: list[str]) -> None:
    """Parse a command as the command line would, and do nothing; raises what it does not know."""
    name, command, rest = "flows", COMMAND, list(words)
    while commands := getattr(command, "commands", None):
        name = rest.pop(0)
        if name not in commands:
            raise ValueError(f"there is no command {name}")
        command = commands[name]
    command.make_context(name, rest)


@pytest.mark.parametrize("path", WRITTEN, ids=named)
def test_commands_parse(path: Path) -> None:
    wrong = []
    shown_commands = commands_of(lines_of(path)) + [x for x in commands_in_tables(path) if "--config" in x]
    for shown, commands in ((True, shown_commands), (False, commands_of(pieces_of(path)))):
        for words in (words for command in commands for words in spellings(command)):
            try:
                parsed(words)
            except Exception as error:
                # A command that prose merely names lacks what it would be told; --help ends there.
                if type(error).__name__ not in (("Exit",) if shown else ("Exit", "MissingParameter")):
                    wrong.append(f"{' '.join(words)}: {type(error).__name__} {error}")
    assert not wrong


def test_a_wrong_option_would_be_seen() -> None:
    with pytest.raises(Exception, match="--as-off"):
        parsed(["rectify", "--config", "run.toml", "--as-off", "2026-06-30"])
    with pytest.raises(Exception, match="recitfy"):
        parsed(["recitfy", "--config", "run.toml"])


@pytest.mark.parametrize("path", WRITTEN, ids=named)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))
    said = {x for line in lines_of(path) + pieces_of(path) for x in re.findall(r"(?:^|\s)make ([a-z][a-z-]+)", line)}
    assert said <= targets


def known_keys() -> set[str]:
    """The keys of the configuration page: of each section its own, and the section."""
    section, keys = "", set()
    for line in text_of(ROOT / "docs" / "configuration.md").splitlines():
        if heading := re.fullmatch(r"## \[(.+)\]", line):
            section = f"{heading[1]}."
            keys.add(heading[1])
        elif row := re.match(r"\| `(\w+)` \|", line):
            keys.add(section + row[1])
    return keys


@pytest.mark.parametrize("path", WRITTEN, ids=named)
def test_settings_exist(path: Path) -> None:
    keys = known_keys()
    unknown = []
    for block in blocks_of(path):
        section = ""
        for line in block.splitlines():
            if heading := re.fullmatch(r"\[([a-z_.]+)\]\s*(#.*)?", line.strip()):
                section = heading[1]
                if section not in keys and section not in NAMED_BY_MODALITY:
                    unknown.append(f"[{section}]")
            elif section and section not in NAMED_BY_MODALITY and (key := re.match(r"([a-z_]+) = ", line)):
                unknown += [f"{section}.{key[1]}"] if f"{section}.{key[1]}" not in keys else []
    said = re.findall(r"`\[([a-z_]+)\] ([a-z_]+)", text_of(path)) + re.findall(
        r"--set ([a-z_]+)\.([a-z_]+)=", text_of(path)
    )
    # The changelog also names what is gone.
    said = [] if path.name == "CHANGELOG.md" else said
    unknown += [f"{section}.{key}" for section, key in said if f"{section}.{key}" not in keys and section != "section"]
    assert not unknown


def test_the_readmes_config_is_one(tmp_path: Path) -> None:
    (block,) = [x for x in blocks_of(ROOT / "README.md") if x.startswith("[source]")]
    tomllib.loads(block)
    path = tmp_path / "run.toml"
    path.write_text(block)
    assert RunConfig(**read_config(path)).source.lookback_days == 365


def test_the_configuration_page_is_what_the_code_gives() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "config_reference.py"))["page"]()
    assert page == text_of(ROOT / "docs" / "configuration.md"), "make docs writes it anew"
    assert not re.findall(r"^.*\|  \|$", page, re.MULTILINE), "a key without a description"


def test_messages_that_the_faq_explains_are_said_somewhere() -> None:
    sources = "".join(
        x.read_text() for room in ("flows", "tasks", "rectifier_core") for x in sorted((ROOT / room).rglob("*.py"))
    )
    said = [
        x
        for heading in re.findall(r"^### (.+)$", text_of(ROOT / "docs" / "faq.md"), re.MULTILINE)
        for x in re.findall("`([^`]+)`", heading)
    ]
    assert len(said) > 30
    assert not [x for x in said if any(piece.strip() not in sources for piece in x.split("…"))]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / x.partition("#")[0]).resolve() for x in re.findall(r"\]\(([^)\s]+)\)", text_of(index))}
    here = {x for x in WRITTEN if x.is_relative_to(index.parent) and x.parent.name != "decisions" and x != index}
    assert not {named(x) for x in here if x.resolve() not in linked}


def test_the_changelog_begins_with_the_version_of_the_code() -> None:
    import rectifier_core

    first = re.search(r"^## (?!Unreleased)(.+)$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert re.fullmatch(rf"{re.escape(rectifier_core.__version__)} \(\d{{4}}-\d{{2}}-\d{{2}}\)", first[1])


def test_there_is_something_to_look_at() -> None:
    readme = ROOT / "README.md"
    assert len(commands_in_tables(readme)) >= 8
    assert len(re.findall(r"\]\(([^)\s]+)\)", prose_of(readme))) >= 15
    assert len(known_keys()) > 120
    assert {"on-your-catalog", "what-it-publishes"} <= anchors_of(readme)
