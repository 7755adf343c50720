#!/bin/sh
# Builds the image of Debian's packages and runs it as an ordinary user: what `make container-test` does.
# Started by root, it goes on as the user "hyperlax", whom it creates: building needs no rights.
#   containers/test.sh [FOLDER]     FOLDER is where the image stays (default: a temporary one, removed)
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ]; then
    sh containers/get-apptainer.sh
    id hyperlax > /dev/null 2>&1 || useradd --create-home hyperlax  # with subordinate ids, for --fakeroot
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    git clone --quiet . "$copy/hyperlax"  # what is committed: the user may not read the folder it is in
    [ $# = 0 ] || { mkdir -p "$1" && chown hyperlax "$1" && set -- "$(realpath "$1")"; }
    chown -R hyperlax "$copy"
    runuser -u hyperlax -- env HOME="$(getent passwd hyperlax | cut -d: -f6)" sh "$copy/hyperlax/containers/test.sh" "$@"
    exit
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
image=${1:-$temporary}/hyperlax.sif
results=$temporary/results
mkdir -p "$results" "$temporary/cache"
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}  # a network with a certificate of its own names it
nice apptainer build --fakeroot --force --bind "$bundle:/etc/ssl/certs/ca-certificates.crt:ro" \
    "$image" containers/hyperlax-debian.def
echo "image: $(du -m "$image" | cut -f1) MiB"

options="--containall --no-home --bind $temporary --env HYPERLAX_CACHE_DIR=$temporary/cache"
command="sweep-hp-samples --env-config gymnax.pendulum --num-samples 2 --seeds 2 --total-timesteps 60000"
command="$command --checkpoint-seconds 1"
apptainer test --containall --no-home "$image"  # no cache: one line says so
# shellcheck disable=SC2086  # the options are words
apptainer run $options "$image" $command --output-root "$results/whole"
# shellcheck disable=SC2086
apptainer run $options "$image" $command --output-root "$results/stopped" &
running=$!
until ls "$results"/stopped/*/*/checkpoint/state*.bin > /dev/null 2>&1 || ! kill -0 $running; do sleep 0.2; done
kill -TERM $running
status=0
wait $running || status=$?
echo "after SIGTERM: exit code $status"
[ $status = 75 ]
# shellcheck disable=SC2086
apptainer run $options "$image" $command --output-root "$results/stopped" --resume
apptainer exec --containall --no-home --bind "$temporary" "$image" /opt/hyperlax/bin/python - "$results" <<'CHECK'
import sys
from pathlib import Path

import hyperlax

whole, stopped = (hyperlax.read(next(Path(sys.argv[1], name).glob("*/*"))) for name in ("whole", "stopped"))
for table in ("curves", "episodes"):
    one, other = (getattr(results, table).drop("seconds", strict=False) for results in (whole, stopped))
    assert one.equals(other), f"{table}: the stopped run differs from the whole one"
print("stopped and resumed: curves and episodes are those of the uninterrupted run, bit for bit")
CHECK
