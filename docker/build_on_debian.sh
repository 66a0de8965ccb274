#!/usr/bin/env bash
# Build the image for real where no container engine runs, and run its command in it: buildah with chroot isolation, on a Debian base
# that debootstrap makes. Needs root, buildah, debootstrap and some 12 GB in WORK for the while; takes about ten minutes.
#
#     docker/build_on_debian.sh            # WORK=/var/tmp/… KEEP=1 keeps the storage, to look into the image
#
# Debian's mirror and pip's settings are those of this machine; they reach the build by mounts and a secret, and the image is searched
# for them afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

WORK=${WORK:-$(mktemp -d /var/tmp/catalog-rectifier-image.XXXXXX)}
IMAGE=localhost/catalog-rectifier:tried
BASE=localhost/debian-python3.11:bookworm
b() { buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs "$@"; }
say() { printf '\n== %s\n' "$*"; }
stop() { test -n "${KEEP:-}" || { b umount --all > /dev/null 2>&1 || true; rm -rf "$WORK"; }; }
trap stop EXIT
mkdir -p "$WORK"
export BUILDAH_ISOLATION=chroot

say "base: Debian bookworm with python3.11"
if ! b inspect --type image "$BASE" > /dev/null 2>&1; then
  mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1)}
  container=$(b from scratch)
  debootstrap --variant=minbase --include=ca-certificates,python3.11,python3.11-venv,python3-distutils bookworm "$(b mount "$container")" "$mirror" > "$WORK/debootstrap.log"
  rm "$(b mount "$container")/etc/apt/sources.list"
  b umount "$container" > /dev/null
  b commit --quiet --rm "$container" "$BASE" > /dev/null
fi

say "image: docker/Dockerfile"
settings=$(python3 -m pip config list | sed -nE "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" | sort -u -t= -k1,1)
printf '[global]\n%s\n' "$settings" > "$WORK/pip.conf"
apt-config dump | grep -E '^Acquire::(Check|http|https|Retries)' > "$WORK/apt.conf" || true
mounts=(--volume "$WORK/apt.conf:/etc/apt/apt.conf.d/90-host:ro")
# An index on this disk is a folder "simple" that points to files beside it.
paths=$(grep -oE '(^|[ =/])/[A-Za-z0-9/._-]+' "$WORK/pip.conf" | sed -E 's#^[ =]?/*#/#; s#/simple/?$##' | sort -u)
for path in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources $paths; do
  test ! -e "$path" || mounts+=(--volume "$path:$path:ro")
done
started=$SECONDS
b bud --quiet --format docker --layers=false --build-arg BASE_IMAGE="$BASE" --build-arg REVISION="$(git rev-parse HEAD 2> /dev/null || echo unknown)" \
  --secret "id=pip,src=$WORK/pip.conf" "${mounts[@]}" --tag "$IMAGE" --file docker/Dockerfile .
echo "built in $((SECONDS - started)) s"

bash docker/try_image.sh "$WORK" "$IMAGE"
