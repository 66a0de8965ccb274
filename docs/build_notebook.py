"""Write docs/notebook.ipynb from the code of docs/notebook.md, with what it prints and draws.

PYTHONPATH=. python docs/build_notebook.py docs/notebook.ipynb      (in a folder that holds the demo as `shop`; make notebook)
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "notebook.md"


def cells_of(page: str) -> list[str]:
    """The code of the page's cells."""
    return [x.strip() for x in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]


def run(code: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell as a notebook does; its outputs: what it printed, and the value of a last line that is an expression."""
    tree, printed, value = ast.parse(code), io.StringIO(), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, str(PAGE), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append(
            {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)}
        )
    if value is not None:
        outputs.append({"output_type": "display_data", "metadata": {}, "data": _shown(value)})
    return outputs


def notebook(cells: list[str], outputs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The notebook's document."""
    title = {
        "cell_type": "markdown",
        "id": "title",
        "metadata": {},
        "source": ["# In a notebook\n", "Files: `catalog-rectifier demo shop`"],
    }
    code = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "execution_count": number,
            "source": cell.splitlines(keepends=True),
            "outputs": output,
        }
        for number, (cell, output) in enumerate(zip(cells, outputs, strict=True), 1)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": [title, *code], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _shown(value: Any) -> dict[str, Any]:
    if hasattr(value, "savefig"):
        picture = io.BytesIO()
        value.savefig(picture, format="png", dpi=80, metadata={"Software": None})
        return {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["<Figure>"]}
    return {"text/plain": str(value).splitlines(keepends=True)}


if __name__ == "__main__":
    names: dict[str, Any] = {}
    cells = cells_of(PAGE.read_text(encoding="utf-8"))
    text = json.dumps(notebook(cells, [run(x, names) for x in cells]), indent=1, ensure_ascii=False)
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
