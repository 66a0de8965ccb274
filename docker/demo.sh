#!/bin/sh
# The demo catalog on the volume, its table in the object store, one night of it.
set -eu
folder=/data/demo
test -f "$folder/run.toml" || {
  python -m flows demo "$folder"
  sed -i 's#^uri = .*#uri = "s3://catalog-rectifier/demo/item_features"#' "$folder/run.toml"
}
python docker/make_bucket.py catalog-rectifier
exec python -m flows rectify --config "$folder/run.toml"
