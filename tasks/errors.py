"""Errors that a user can act on: a message of one line, and the exit status of the command."""

from __future__ import annotations

from tasks.masking import masked

INTERRUPTED = 130


class RectifierError(Exception):
    """Base of every error with a message for the user. Credentials in the message are masked."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class InputError(RectifierError):
    """Bad config or bad input. The message names the file, column or key, and the remedy."""

    exit_code = 2


class ClusterError(RectifierError):
    """The cluster cannot be reached or cannot run the shards. Nothing was published, and a rerun resumes."""


class GateRefusedError(RectifierError):
    """The quality gate refused. Nothing was published."""

    exit_code = 3


class TableHeldError(RectifierError):
    """Another run holds the table, or committed to it first."""

    exit_code = 4


class StorageError(RectifierError):
    """Writing failed (disk full, no permission). Nothing was published, and a rerun resumes where this one stopped."""


class OnlineStoreError(RectifierError):
    """The online store cannot be reached or written. Readers keep the served version, and a repeated refresh starts over."""


def exit_code_of(error: BaseException) -> int:
    """Return the exit status for ``error``. What is no Exception interrupts the process, except a panic of Polars."""
    if isinstance(error, RectifierError):
        return error.exit_code
    return 1 if isinstance(error, Exception) or type(error).__name__ == "PanicException" else INTERRUPTED


class InterruptedBackfillError(RectifierError):
    """Stopped by hand. Finished days stay published."""

    exit_code = INTERRUPTED
