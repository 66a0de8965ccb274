"""The ``[run]`` section."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Int, NotNegative
from tasks.runs.log import default_format
from tasks.store.store import StageStore

STAGES = "stages"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RunSettings:
    """Where runs keep their files, and for how long."""

    folder: str = Field(description="Folder of all runs, on a disk of every machine that works on a run.")
    keep_runs: Count = Field(default=30, description="Runs whose reports are kept, the newest.")
    keep_days: NotNegative = Field(default=30.0, description="Days after which a run's files are deleted.")
    keep_stages: Int = Field(default=2, ge=0, description="Runs whose large stage outputs are kept, the newest.")
    log: Literal["text", "json"] = Field(
        default_factory=default_format,  # type: ignore[arg-type]
        description="Format of the log on the terminal. By default the environment's CATALOG_RECTIFIER_LOG, else text.",
    )

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError(f"stages are memory maps, and lie on a local or shared disk, got {folder!r}")
        if not Path(folder).is_absolute():
            raise ValueError(f"wanted an absolute path, got {folder!r}")
        return folder

    @property
    def store(self) -> StageStore:
        """The stage outputs of every run."""
        return StageStore(Path(self.folder) / STAGES)

    def run_folder(self, run_id: str) -> Path:
        """The folder of one run."""
        return Path(self.folder) / run_id
