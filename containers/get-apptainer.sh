#!/bin/sh
# Installs Apptainer on Debian, as root, unless it is there. Releases that have no package of it get that of
# Debian's unstable distribution with the C library it is linked to, in a folder of their own (/opt/apptainer).
set -eu
prefix=/opt/apptainer
command -v apptainer > /dev/null && exit
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# what builds and runs images for ordinary users
apt-get install -y -qq --no-install-recommends debootstrap fakeroot git squashfs-tools squashfuse fuse-overlayfs \
    uidmap > /dev/null
if apt-get install -y -qq --no-install-recommends apptainer > /dev/null 2>&1; then exit; fi

apt-get install -y -qq --no-install-recommends patchelf > /dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
    > "$work/sources.list"
unstable() {
    apt-get -qq -o Dir::State::lists="$work/lists" -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Cache="$work" -o APT::Sandbox::User=root "$@"
}
unstable update
cd "$work"
unstable download apptainer/sid libc6/sid libseccomp2/sid libsqlite3-0/sid
for package in *.deb; do dpkg -x "$package" "$work/root"; done

triplet=$(basename "$(dirname "$work"/root/usr/lib/*/libc.so.6)")
libraries=$prefix/usr/lib/$triplet
for program in usr/bin/apptainer "usr/lib/$triplet/apptainer/bin/starter"; do
    interpreter=$libraries/$(basename "$(patchelf --print-interpreter "$work/root/$program")")
    patchelf --set-interpreter "$interpreter" --force-rpath --set-rpath "$libraries" "$work/root/$program"
done
# Apptainer looks for its configuration and its mount point beside its programs, in two places.
mv "$work/root/etc" "$work/root/usr/etc"
mkdir -p "$work/root/usr/var/lib/apptainer/mnt/session"
ln -s ../etc ../var "$work/root/usr/lib/"
rm -rf "$prefix"
mv "$work/root" "$prefix"
chmod 755 "$prefix"
ln -sf "$prefix/usr/bin/apptainer" /usr/local/bin/apptainer
apptainer version
