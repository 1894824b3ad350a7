#!/bin/sh
# Runs systemd-resolved with one file of settings, out of the machine's sight:
#   unshare --mount --propagation private resolved.sh BINARY FILE
# It has a /run and an /etc/systemd of its own, and the user that it wants to become.
set -e
mount -t tmpfs tmpfs /run
mkdir /run/systemd
for file in passwd group; do
    sed '/^systemd-resolve:/d' "/etc/$file" >"/run/$file"
done
echo 'systemd-resolve:x:997:997::/:/usr/sbin/nologin' >>/run/passwd
echo 'systemd-resolve:x:997:' >>/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
mount -t tmpfs tmpfs /etc/systemd
cp "$2" /etc/systemd/resolved.conf
# Of the unpacked package, where the machine has none.
for folder in "${1%/lib/systemd/*}"/usr/lib/*/systemd; do
    export LD_LIBRARY_PATH="$folder"
done
SYSTEMD_LOG_TARGET=console exec "$1"
