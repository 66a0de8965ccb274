"""The image's recipe and the compose file, as far as they can be judged without an engine; docker/build_on_debian.sh builds and runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
ONE_OFF = {"register", "demo-catalog", "demo"}
OURS = {"server", "worker", *ONE_OFF}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return found


def test_hadolint_finds_nothing() -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [tool, "--failure-threshold", "style", str(DOCKER / "Dockerfile")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_has_no_root_no_compiler_and_no_secret() -> None:
    last = (DOCKER / "Dockerfile").read_text().split("\nFROM ")[-1]
    instructions = [x for x in last.splitlines() if not x.startswith("#")]
    assert [x for x in instructions if x.startswith("USER ")] == ["USER 10001"]
    installed = (
        next(x for x in instructions if "apt-get install" in x)
        .split("--no-install-recommends")[1]
        .replace("\\", "")
        .split()
    )
    assert installed == ["tini"]
    assert not [
        x
        for x in instructions
        if x.startswith(("ARG", "ENV")) and any(y in x.upper() for y in ("SECRET", "PASSWORD", "TOKEN"))
    ]


def test_only_what_runs_is_copied() -> None:
    let_in = [x[1:] for x in (ROOT / ".dockerignore").read_text().splitlines() if x.startswith("!")]
    assert set(let_in) - {x for x in let_in if (ROOT / x).exists()} <= {"deployments"}
    assert not [x for x in let_in if x.startswith(("tests", "docs", ".git", "benchmarks", "docker/secrets"))]


def test_the_compose_file_is_one(compose: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "tests" / "compose-spec.json").read_text())
    wrong = [
        f"{'.'.join(map(str, x.absolute_path))}: {x.message}" for x in Draft7Validator(schema).iter_errors(compose)
    ]
    assert not wrong


def test_nothing_is_published_beyond_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_watched_restarted_and_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["restart"] == ("on-failure" if name in ONE_OFF else "unless-stopped"), name
        # The application's healthcheck is in its image.
        assert name in OURS or service["healthcheck"]["test"], name
        tag = service["image"].rsplit(":", 1)[1]
        assert tag not in ("", "latest"), name
        assert "no-new-privileges:true" in service["security_opt"], name
    for name in OURS:
        service = compose["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name


def test_passwords_are_files(compose: dict[str, Any]) -> None:
    secrets = compose["secrets"]
    assert all(set(x) == {"file"} for x in secrets.values())
    for name, service in compose["services"].items():
        shown = {
            key: value
            for key, value in (service.get("environment") or {}).items()
            if "PASSWORD" in key or "SECRET" in key
        }
        assert all(key.endswith("_FILE") and value.startswith("/run/secrets/") for key, value in shown.items()), name
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in secrets


def test_volumes_and_dependencies_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert {x.split(":")[0] for x in service.get("volumes", [])} <= set(compose["volumes"]), name
        for other, how in (service.get("depends_on") or {}).items():
            wanted = "service_completed_successfully" if other in ONE_OFF else "service_healthy"
            assert how["condition"] == wanted, f"{name} waits for {other}"


def test_secrets_become_variables_of_the_command_alone(tmp_path: Path) -> None:
    script = (DOCKER / "with_secrets.sh").read_text().replace("/run/secrets", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "TRIED_PASSWORD").write_text("a b'$(x)\"c")
    (tmp_path / "secrets" / "lower").write_text("no variable")
    (tmp_path / "script.sh").write_text(script)
    done = subprocess.run(
        ["sh", str(tmp_path / "script.sh"), "sh", "-c", 'printf "%s" "$TRIED_PASSWORD"'],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "a b'$(x)\"c")


def test_secrets_are_drawn_once(tmp_path: Path) -> None:
    script = Path(shutil.copy(DOCKER / "new_secrets.sh", tmp_path))
    drawn = []
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, timeout=30)
        drawn.append({x.name: x.read_text() for x in (tmp_path / "secrets").iterdir()})
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0].values())) == 4
    assert all(len(x) >= 32 for x in drawn[0].values())
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("script", sorted(x.name for x in DOCKER.glob("*.sh")))
def test_scripts_parse(script: str) -> None:
    shell = "bash" if (DOCKER / script).read_text().startswith("#!/usr/bin/env bash") else "sh"
    assert subprocess.run([shell, "-n", str(DOCKER / script)], timeout=30).returncode == 0
