#!/bin/sh
# Run a command with every file in /run/secrets whose name is that of a variable as that variable: what reads no NAME_FILE of its own
# (Prefect, the AWS clients) gets its password without its standing in compose.yaml or in `docker inspect`.
set -eu
for file in /run/secrets/[A-Z]*; do
  test -f "$file" || continue
  export "$(basename "$file")=$(cat "$file")"
done
exec "$@"
