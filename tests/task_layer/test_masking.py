"""Credentials are masked in errors, reports and logs."""

from __future__ import annotations

import pytest

from tasks.errors import InputError, StorageError
from tasks.masking import mask_credentials, masked


@pytest.mark.parametrize(
    ("given_value", "wanted"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "x", "region": "eu"}, {"AWS_SECRET_ACCESS_KEY": "•••", "region": "eu"}),
        (
            {"credentials": {"id": "x"}, "api_key": None, "use_token": True},
            {"credentials": "•••", "api_key": None, "use_token": True},
        ),
        (["s3://a:b@host/path", "s3://host/a@b"], ["s3://•••@host/path", "s3://host/a@b"]),
        ("account_key=abc; rating >= 4", "account_key=•••; rating >= 4"),
        ("redis:6379,password=abc,ssl=true", "redis:6379,password=•••"),
        ({"item_column": "item_id", "num_neighbours": 20}, {"item_column": "item_id", "num_neighbours": 20}),
    ],
)
def test_credentials_are_masked(given_value: object, wanted: object) -> None:
    assert mask_credentials(given_value) == wanted


def test_values_of_secret_environment_variables_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:long-enough")
    monkeypatch.setenv("SHOP_TOKEN", "short")
    monkeypatch.setenv("SHOP_NAME", "a shop of kettles")
    assert (
        masked("admin:long-enough failed in a short while at a shop of kettles")
        == "••• failed in a short while at a shop of kettles"
    )


@pytest.mark.parametrize("kind", [InputError, StorageError])
def test_error_messages_are_masked(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    assert str(kind("s3://a:b@host wJalrXUtnFEMI token=abc")) == "s3://•••@host ••• token=•••"
