#!/bin/sh
# Passwords for compose.yaml, drawn once. The folder is its owner's alone; the files in it are read by the containers' own users.
set -eu
folder=$(dirname "$0")/secrets
mkdir -p -m 700 "$folder"
for name in postgres storage; do
  test -s "$folder/$name" || python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")' > "$folder/$name"
  chmod 644 "$folder/$name"
done
