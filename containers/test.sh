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

contained() { apptainer "$1" --containall --no-home --bind "$temporary" --env HYPERLAX_CACHE_DIR="$temporary/cache" "$image" $2; }
apptainer test --containall --no-home "$image"  # no home: says that compiled programs are not kept
command="sweep-hp-samples --env-config gymnax.pendulum --num-samples 2 --total-timesteps 20k --checkpoint-seconds 1"
contained run "$command --output-root $results/whole"

contained run "$command --output-root $results/stopped" &
running=$!
until [ -e "$results"/stopped/*/*/checkpoint/state.bin ] || ! kill -0 $running 2> /dev/null; do sleep 0.2; done
kill -TERM $running
status=0; wait $running || status=$?
echo "after SIGTERM: exit code $status"
if [ $status = 75 ]; then contained run "$command --output-root $results/stopped --resume"; else exit 1; fi
for root in whole stopped; do set -- "$@" "$results"/$root/*/*; done
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
