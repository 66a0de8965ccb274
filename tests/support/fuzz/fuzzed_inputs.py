"""Two hundred malformed inputs, always the same: what a night may meet, each with the exit statuses that would be right."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.fuzz import fuzzed_columns as columns
from tests.support.fuzz import fuzzed_files as files
from tests.support.fuzz.fuzzed_shop import Case, Spoil

# How a spoilt input may end: published, refused as input, refused by the gate; what an error has to name; how many are drawn.
OF_CATALOG, OF_LOG, ANY = ("catalog",), ("log",), ("catalog", "log", "source.", "run.toml")
BAD, EITHER, SOUND = (2,), (0, 2, 3), (0, 3)
KINDS: dict[Spoil, tuple[tuple[int, ...], tuple[str, ...], int]] = {
    columns.drop_column: (BAD, ANY, 5),
    columns.rename_column: (BAD, ANY, 5),
    columns.double_column: (BAD, ANY, 4),
    columns.id_type: (EITHER, ANY, 20),
    columns.user_type: (EITHER, ANY, 8),
    columns.embedding_type: (EITHER, ANY, 16),
    columns.time_type: (EITHER, ANY, 12),
    columns.label_type: (EITHER, ANY, 10),
    columns.rating_type: (EITHER, ANY, 10),
    columns.feature_values: (EITHER, ANY, 12),
    columns.feature_shapes: (EITHER, ANY, 8),
    columns.alike_features: (EITHER, ANY, 4),
    columns.few_items: (EITHER, ANY, 6),
    columns.few_rows: (EITHER, ANY, 6),
    columns.null_values: (EITHER, ANY, 8),
    columns.strange_ids: (SOUND, ANY, 4),
    columns.long_strings: (EITHER, ANY, 4),
    columns.bad_utf8: (BAD, ANY, 4),
    columns.bad_utf8_shown: (SOUND, ANY, 3),
    columns.absurd_times: (EITHER, ANY, 4),
    columns.repeated_rows: (EITHER, ANY, 3),
    columns.sequences: (EITHER, ANY, 4),
    columns.blank_features: (SOUND, ANY, 4),
    columns.written_vectors: (EITHER, ANY, 6),
    columns.anonymous_rows: (EITHER, ANY, 3),
    columns.spelt_otherwise: (EITHER, ANY, 4),
    files.broken_file: (EITHER, ANY, 10),
    files.written_otherwise: (SOUND, ANY, 4),
    files.odd_neighbours: (EITHER, ANY, 7),
    files.odd_names: (EITHER, ANY, 5),
    files.odd_partitions: (EITHER, ANY, 6),
    files.day_folders: (SOUND, ANY, 8),
    files.two_snapshots: (BAD, ("stand in two files",), 4),
    files.empty_files: (SOUND, ANY, 4),
    files.table_formats: (EITHER, ANY, 8),
    files.broken_toml: (EITHER, ("run.toml", "source"), 7),
    files.wrong_value: (EITHER, ("run.toml", "source", "resources", "publish", "run.", "evaluation", "anchors"), 16),
    files.modality_name: (EITHER, ANY, 5),
    files.predicate: (EITHER, ("source.positive", "no interactions left"), 8),
    files.odd_place: (EITHER, ("source.", "publish.", "run.", "catalog", "log", "s3://", "/"), 10),
    files.odd_arguments: (BAD, ("--as-of", "--set", "run.toml", "source", "no interactions", "no catalog"), 5),
    files.vanished: (BAD, ("catalog", "log", "run.toml"), 4),
}


def _cases() -> Iterator[Case]:
    for spoil, (allowed, names, number) in KINDS.items():
        for seed in range(number):
            yield Case(f"{spoil.__name__}-{seed}", seed, spoil, allowed, names)


CASES = tuple(_cases())
