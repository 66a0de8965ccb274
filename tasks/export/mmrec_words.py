"""The texts in an exported MMRec dataset: the file for MMRec's ``configs/dataset``, and the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.table.snapshot import Snapshot


def dataset_config(name: str, files: Mapping[str, str]) -> str:
    """What MMRec has to be told of the dataset, YAML; ``files`` are its image and its text features."""
    return f"""USER_ID_FIELD: userID
ITEM_ID_FIELD: itemID
TIME_FIELD: timestamp
filter_out_cod_start_users: True
inter_file_name: '{name}.inter'
vision_feature_file: '{files["image"]}'
text_feature_file: '{files["text"]}'
user_graph_dict_file: 'user_graph_dict.npy'
field_separator: "\\t"
"""


def readme(name: str, snapshot: Snapshot, contents: Mapping[str, Any], *, timed: bool) -> str:
    """What is in the folder and how to use it, Markdown."""
    parts, missing = contents["interactions"], contents["without_feature"]
    features = "\n".join(
        f"| `{x.name}_feat.npy` | float32, {contents['items']:,} x {x.width:,}, one row an itemID"
        f" | `{x.name}_mask.npy` | {missing[x.name]:,} |"
        for x in snapshot.modalities
    )
    named = ", ".join(f"{x.name} by `{x.embedding_model}`" for x in snapshot.modalities if x.embedding_model)
    made = f"\nThe embeddings that were mended were made: {named}.\n" if named else ""
    times = "; `timestamp` is its latest event, in seconds" if timed else ""
    return f"""# {name}

Version {snapshot.version} of `{snapshot.uri}`, features as of {snapshot.day}, as a dataset of the MMRec framework.

    ln -s "$PWD" MMREC/data/{name}
    cp {name}.yaml MMREC/src/configs/dataset/
    cd MMREC/src && python main.py -d {name} -m FREEDOM

`{name}.inter`: {contents["users"]:,} users, {contents["items"]:,} items with interactions; x_label 0 training {parts["training"]:,},
1 validation {parts["validation"]:,}, 2 test {parts["test"]:,}. One row a distinct positive pair, so `rating` is always 1{times}.
Items and users without interactions have no number in MMRec and are not here.
`u_id_mapping.csv` and `i_id_mapping.csv` say which id each number stands for (read the ids as text where they are text).

| features | | which items have one | items without |
|---|---|---|---|
{features}
{made}
An item without a feature has the mean of the others in its row, as in MMRec's own preprocessing, and False in the mask. Zeros would not do:
MMRec divides rows by their length.

**The features have seen these interactions**, those of validation and test among them: they were mended by behaviour up to {snapshot.day}.
That is right for training a recommender to be used, and flatters every comparison of rectified with raw features. To compare, use
`python -m flows evaluate`, which rectifies on the training part alone.

Models keep item graphs (`*.pt`) in this folder, computed from the features. The next export to this folder removes them with the old
features; a copy of the features elsewhere needs its own.
"""
