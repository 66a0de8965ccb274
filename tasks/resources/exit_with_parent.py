"""A process that is of no use without its parent goes with it, however that ends. This module imports the standard library alone."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable


def leave_with_parent(leave: Callable[[], object]) -> None:
    """Call ``leave``, from a thread, once the parent of this process is gone."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            leave()

    threading.Thread(target=wait, daemon=True).start()
