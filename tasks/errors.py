"""Failures that a user can act on: one line each, and the exit status that the command line gives for it."""

from __future__ import annotations

from tasks.masking import masked

INTERRUPTED = 130


class RectifierError(Exception):
    """Base of every failure with a message meant for a user; ``exit_code`` is the process's exit status.

    The message travels far, into logs, events and the states of flow runs: what looks like a credential is masked in it from the start.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class InputError(RectifierError):
    """Bad config or bad input; the message names the file, column or key, and the way out."""

    exit_code = 2


class ClusterError(RectifierError):
    """The cluster that shards should go to cannot be reached, or cannot do them: nothing was published, and a rerun resumes."""


class GateRefusedError(RectifierError):
    """The quality gate refused: nothing was published."""

    exit_code = 3


class TableHeldError(RectifierError):
    """Another run holds the table, or committed to it first."""

    exit_code = 4


class StorageError(RectifierError):
    """Writing failed (disk full, no permission): nothing was published, and a rerun resumes where this one stopped."""


class OnlineStoreError(RectifierError):
    """The online store cannot be reached or written: readers keep the version that was served, and a repeated refresh starts over."""


def exit_code_of(error: BaseException) -> int:
    """The exit status of a process that ends by ``error``: what is no Exception is somebody's wish to stop it, but for Polars' panics."""
    if isinstance(error, RectifierError):
        return error.exit_code
    return 1 if isinstance(error, Exception) or type(error).__name__ == "PanicException" else INTERRUPTED


class InterruptedBackfillError(RectifierError):
    """Stopped by hand: what was done stays done."""

    exit_code = INTERRUPTED
