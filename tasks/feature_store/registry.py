"""Feast's registry: what it serves, and its replacement by one rename.

Feast truncates its registry and writes it in place, so a reader or a kill in that moment finds it empty. Here a new registry is written
under another name and then renamed.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from tasks.errors import InputError, StorageError
from tasks.feature_store.config import ONLINE, SERVED, FeatureStoreConfig
from tasks.feature_store.feast_api import FeatureStore, FeatureView, Registry
from tasks.feature_store.offline_files import files_pattern
from tasks.feature_store.online import online_errors, repo_config
from tasks.feature_store.served_version import Generation, Served
from tasks.feature_store.views import STATE, feature_names, feature_view, registry_objects, view_name
from tasks.store.atomic_files import TEMPORARY, write_text, write_whole
from tasks.table.embedding_models import EMBEDDING_MODEL

_WAY_OUT = "readers have one whole version; free or fix the disk, then refresh again"
GUARD = "definitions.py"


def read_served(config: FeatureStoreConfig) -> Served | None:
    """The served version of the registry, or None without a registry. Raises InputError for a registry that no refresh wrote."""
    try:
        found = Registry.FromString(config.registry.read_bytes())
        tags = [x.spec.tags[STATE] for x in found.projects if x.spec.name == config.project]
        return Served.from_json(tags[0])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"feature store: {config.registry} cannot be read: {error.strerror}; mend the disk, then try again"
        ) from error
    except (DecodeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"feature store: {config.registry} is no registry of project {config.project} that a refresh wrote;"
            " choose another feature_store.folder, or move it away"
        ) from error


def remove_leftovers(config: FeatureStoreConfig) -> None:
    """Remove what killed refreshes left beside the registry; call it under the store's lock."""
    for left in config.root.glob(f"{TEMPORARY}*"):
        # A file that cannot be removed does no harm.
        with suppress(OSError):
            left.unlink()


def views_of(config: FeatureStoreConfig, generation: Generation) -> dict[str, FeatureView]:
    """The feature views of a generation, by plain name."""
    return {
        name: feature_view(
            name,
            generation,
            generation.number,
            files_pattern(config, generation.files, name),
            generation.tags.get(name, {}),
        )
        for name in generation.views
    }


def kept_online(*generations: Generation | None) -> dict[str, list[str]]:
    """The views of these generations with their features' names, as ``OnlineStore.clear`` wants them."""
    return {
        view_name(name, x.number): list(feature_names(name)) for x in generations if x is not None for name in x.views
    }


def stage_registry(config: FeatureStoreConfig, served: Served) -> Path:
    """Write a registry for ``served`` beside the current one, and create its views in the online store. Return its path."""
    staged = config.root / f"{TEMPORARY}registry-{os.getpid()}"
    previous = [] if served.previous is None else list(views_of(config, served.previous).values())
    generation = served.generation
    objects = registry_objects(config, generation, views_of(config, generation), previous, served.to_json())
    with online_errors(config, "making room in"):
        FeatureStore(config=repo_config(config, staged)).apply(objects)
    return staged


def serve(config: FeatureStoreConfig, served: Served, staged: Path) -> None:
    """Put the staged registry in place, so that readers get ``served``. Raises StorageError."""
    write_text(config.root / "feature_store.yaml", feature_store_yaml(config), way_out=_WAY_OUT)
    write_text(config.root / GUARD, _GUARDED, way_out=_WAY_OUT)
    before = config.registry.stat().st_mtime if config.registry.exists() else 0.0

    def place_registry(place: Path) -> None:
        place.write_bytes(staged.read_bytes())
        # Readers compare modification times, so the new file must be later even if the clock was set back.
        later = max(time.time(), before + 0.01)
        os.utime(place, (later, later))

    write_whole(config.registry, place_registry, way_out=_WAY_OUT)
    remove_leftovers(config)
    write_served(config, served)


def write_served(config: FeatureStoreConfig, served: Served) -> None:
    """Write ``served.json`` for people and monitors."""
    fields = {name: getattr(served, name) for name in ("version", "as_of", "run_id", "rows", "online")} | {
        "modalities": list(served.generation.modalities),
        "generation": served.generation.number,
        "since": since(config),
        "embedding_models": {m: tags[EMBEDDING_MODEL] for m, tags in served.generation.tags.items()},
    }
    write_text(config.root / SERVED, json.dumps(fields, indent=1) + "\n", way_out=_WAY_OUT)


def since(config: FeatureStoreConfig) -> float:
    """When the registry was put in place, in seconds since the epoch; 0 without a registry."""
    # The modification time is earlier than the rename.
    return config.registry.stat().st_ctime if config.registry.exists() else 0.0


def feature_store_yaml(config: FeatureStoreConfig) -> str:
    """Feast's config for readers. For Redis it holds only the name of the environment variable."""
    online = f"  type: sqlite\n  path: {ONLINE}\n"
    if config.online == "redis":
        online = f"  type: redis\n  connection_string: '${{{config.redis_variable}}}'\n"
    return (
        f"project: {config.project}\nprovider: local\n"
        f"registry:\n  path: {config.registry.name}\n  cache_ttl_seconds: {config.cache_seconds}\n"
        f"online_store:\n{online}offline_store:\n  type: duckdb\nentity_key_serialization_version: 3\n"
    )


_GUARDED = '''"""Feast would take a repo without definitions for one whose definitions were all deleted, and clear the registry."""

raise SystemExit("this registry is written by `catalog-rectifier refresh`; do not `feast apply` here")
'''
