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

container=$(b from --name trial-$$ "$IMAGE")
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

# Prefect's server with its pages, as a user that may write neither to its package nor to the root of the image.
port=$((20000 + RANDOM % 20000))
run prefect server start --host 127.0.0.1 --port "$port" > "$WORK/server.log" 2>&1 &
server=$!
for _ in $(seq 60); do
  curl --silent --fail "http://127.0.0.1:$port/api/health" > /dev/null && break
  sleep 1
done
page=$(curl --silent --fail --location "http://127.0.0.1:$port/" || true)
run env "HEALTH_URL=http://127.0.0.1:$port/api/health" python docker/healthcheck.py || { tail "$WORK/server.log"; fail "the server is not well"; }
kill "$server"; wait "$server" || true
grep -qi '<title>' <<< "$page" || { tail "$WORK/server.log"; fail "the server shows no page"; }
echo "the image does what it is for"
