#!/bin/sh
# The demo catalog on the volume, told to publish to the object store and to serve from Redis, and the bucket.
set -eu
folder=/data/demo
test -f "$folder/run.toml" || {
  python -m flows demo "$folder"
  sed -i 's#^uri = .*#uri = "s3://catalog-rectifier/demo/item_features"#' "$folder/run.toml"
  printf '\n[feature_store]\nenabled = true\nonline = "redis"\n' >> "$folder/run.toml"
}
exec python docker/make_bucket.py catalog-rectifier
