#!/usr/bin/env bash
# Run what the image is for in a container made of it: docker/try_image.sh WORK IMAGE, called by build_on_debian.sh.
set -euo pipefail
WORK=$1 IMAGE=$2
b() { buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
said() { b inspect --type image --format "{{.Docker.Config.$1}}" "$IMAGE"; }
export BUILDAH_ISOLATION=chroot

test "$(said User)" = 10001 || fail "the image runs as $(said User)"
test "$(said Entrypoint)" = '[tini -g -- python -m flows]' || fail "entrypoint $(said Entrypoint)"
said Healthcheck | grep -q healthcheck.py || fail "no healthcheck"

container=$(b from --name "trial-$$" "$IMAGE")
root=$(b mount "$container")
trap 'b rm "$container" > /dev/null' EXIT
install --directory --owner 10001 --group 10001 "$WORK/data"
run() { b run --volume "$WORK/data:/data" "$container" -- "$@"; }
flows() { run tini -g -- python -m flows "$@"; }

echo "image: $(du -sm "$root" | cut -f1) MB, packages $(du -sm "$root/opt/venv" | cut -f1) MB, code $(du -sm "$root/app" | cut -f1) MB"
test "$(run id -u)" = 10001 || fail "a container runs as $(run id -u)"
run sh -c '! touch /app/x /opt/venv/x /usr/bin/x 2> /dev/null' || fail "the container can write to its own code"
for tool in cc gcc c++ ld make /opt/venv/bin/pip; do
  run sh -c "! command -v $tool > /dev/null" || fail "$tool is in the image"
done
test ! -s "$root/etc/pip.conf" || fail "pip.conf is in the image"
test ! -s "$root/etc/apt/apt.conf.d/90-host" || fail "apt's settings are in the image"
run python -c 'import torch; assert torch.version.cuda is None'
run python docker/healthcheck.py || fail "the healthcheck fails in a container that is well"
if run env HEALTH_URL=http://127.0.0.1:9/health python docker/healthcheck.py 2> /dev/null; then fail "the healthcheck passes with nothing there"; fi

touch "$WORK/before"
flows demo /data/demo --items 800 --users 1200
started=$SECONDS
flows rectify --config /data/demo/run.toml 2> "$WORK/rectify.log" || { tail -20 "$WORK/rectify.log"; fail "rectify"; }
echo "rectified in $((SECONDS - started)) s"
flows rectify --config /data/demo/run.toml 2>> "$WORK/rectify.log" | grep -q "nothing new" || fail "a repeat published again"
flows versions --config /data/demo/run.toml
flows export --config /data/demo/run.toml --format parquet --out /data/export
flows score --config /data/demo/run.toml --truth /data/demo/truth
status=0; flows rectify --config /data/none.toml 2> "$WORK/none.log" || status=$?
test "$status" = 2 || fail "a missing config ended with $status: $(cat "$WORK/none.log")"
written=$(find "$root" -xdev -newer "$WORK/before" -type f ! -path "$root/home/app/*" ! -path "$root/tmp/*" ! -path "$root/run/*" ! -path "$root/etc/*" | head)
test -z "$written" || fail "written outside /data, /tmp and the home folder: $written"

# What compose.yaml starts of this image: a server with its pages, the deployments registered, a worker, and a night given to it.
# Each with what it starts is a process group, so that it can be ended whole.
set -m
port=$((20000 + RANDOM % 20000)) health=$((40000 + RANDOM % 20000))
api=http://127.0.0.1:$port/api
run prefect server start --host 127.0.0.1 --port "$port" > "$WORK/server.log" 2>&1 &
server=$!
stop() { for group in ${worker:-} $server; do kill -- "-$group" 2> /dev/null || true; done; wait; b rm "$container" > /dev/null; }
trap stop EXIT
wait_for() { for _ in $(seq 180); do "$@" > /dev/null 2>&1 && return; sleep 1; done; return 1; }
well() { run env "HEALTH_URL=$1" PREFECT_API_URL="$api" python docker/healthcheck.py; }
wait_for curl --silent --fail "$api/health" || { tail "$WORK/server.log"; fail "the server does not come up"; }
grep -qi '<title>' <<< "$(curl --silent --fail --location "http://127.0.0.1:$port/")" || { tail "$WORK/server.log"; fail "the server shows no page"; }
run env PREFECT_API_URL="$api" python -m flows server register --config /data/demo/run.toml
run env PREFECT_API_URL="$api" PREFECT_WORKER_WEBSERVER_HOST=127.0.0.1 PREFECT_WORKER_WEBSERVER_PORT="$health" \
  prefect worker start --pool catalog-rectifier --type process --with-healthcheck > "$WORK/worker.log" 2>&1 &
worker=$!
wait_for well "http://127.0.0.1:$health/health" || { tail "$WORK/worker.log"; fail "the worker is not well"; }
run env PREFECT_API_URL="$api" prefect deployment run rectify/nightly --param as_of=2026-06-29 --watch --watch-timeout 580 > "$WORK/nightly.log" 2>&1 ||
  { tail -20 "$WORK/nightly.log" "$WORK/worker.log"; fail "the night that the worker was given"; }
flows versions --config /data/demo/run.toml | grep -q 2026-06-29 || fail "the night is not in the table"
echo "the image does what it is for"
