"""Catalog rectifier, the pure core: finds features that belong to another item, and repairs them.

In a notebook: ``from rectifier_core import audit, rectify``.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from rectifier_core.notebook import audit, rectify
else:
    from rectifier_core import audit, rectify

    class _Stage(ModuleType):
        """A stage's package that can also be called: `rectify(...)` is `rectifier_core.notebook.rectify(...)`."""

        def __call__(self, *args: Any, **options: Any) -> Any:
            # Imported here: the stages load torch, and `import rectifier_core` takes no time.
            from rectifier_core import notebook

            return getattr(notebook, self.__name__.rpartition(".")[2])(*args, **options)

    audit.__class__ = rectify.__class__ = _Stage

__all__ = ["audit", "rectify"]
