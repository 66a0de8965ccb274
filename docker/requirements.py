"""What the image installs: the requirements that pyproject.toml names, so that a change of source code leaves the layer of packages alone.

``list EXTRA …`` prints them; ``cpu`` fails where the torch that is installed was built for CUDA; ``any`` does nothing.
"""

import sys
import tomllib
from pathlib import Path


def listed(extras: list[str]) -> str:
    """The project's own requirements and those of its extras, one a line."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return "\n".join(
        [*project["dependencies"], *(x for extra in extras for x in project["optional-dependencies"][extra])]
    )


def refuse_cuda() -> None:
    """Fail in one line where torch is a CUDA build."""
    import torch

    if torch.version.cuda is not None:
        sys.exit(
            f"torch {torch.__version__} is a CUDA build: give --build-arg TORCH_INDEX= with the CPU index that PyTorch's install page"
            " names, TORCH= with a wheel's address, or TORCH_BUILD=any to keep it"
        )


if __name__ == "__main__":
    what, *extras = sys.argv[1:]
    if what == "list":
        print(listed(extras))
    elif what == "cpu":
        refuse_cuda()
    elif what != "any":
        sys.exit(f"TORCH_BUILD={what}: wanted cpu or any")
