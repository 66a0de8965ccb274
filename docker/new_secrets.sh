#!/bin/sh
# Passwords for compose.yaml, drawn once. The folder is its owner's alone; the files in it are read by the containers' own users.
set -eu
folder=$(dirname "$0")/secrets
mkdir -p -m 700 "$folder"
for name in postgres storage redis; do
  test -s "$folder/$name" || python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")' > "$folder/$name"
done
# What Feast's Redis store is told, as tasks and readers find it in CATALOG_RECTIFIER_REDIS.
printf 'redis:6379,password=%s' "$(cat "$folder/redis")" > "$folder/redis_connection"
chmod 644 "$folder"/*
