#!/bin/sh
# Installs hyperlax from /usr/src/hyperlax into /opt/hyperlax, every package as constraints.txt pins it; for
# GPUs, NVIDIA's libraries are the newest that this version of jax allows.
# All images are made by it:  install.sh cpu|cuda12|cuda13 COMMIT
set -eu
device=$1
commit=$2
source=/usr/src/hyperlax

case $device in
    cpu) target=$source ;;
    cuda12 | cuda13) target="$source[$device]" ;;
    *) echo "DEVICE is cpu, cuda12 or cuda13, not \"$device\"" >&2; exit 2 ;;
esac
case $commit in
    *[!0-9a-f]* | "") echo "COMMIT is what \"git rev-parse HEAD\" prints, not \"$commit\"" >&2; exit 2 ;;
esac

echo "$commit" > "$source/src/hyperlax/COMMIT"
export PIP_CONSTRAINT=$source/constraints.txt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
python3 -m venv /opt/hyperlax
/opt/hyperlax/bin/python -m pip install --quiet "$target"
cp "$source/containers/check.py" "$source/constraints.txt" /opt/hyperlax/
rm -r "$source"
