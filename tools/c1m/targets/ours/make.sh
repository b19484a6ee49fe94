#!/bin/sh
# make.sh DIR [BUILD]: target directory with this server, from BUILD (default: target/release of
# this source tree, which is built first), and the libraries that its programs need.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../../../.." && pwd)
out=$1
build=${2:-}
if [ -z "$build" ]; then
    (cd "$tree" && ${CARGO:-cargo} build --release --quiet --package pushpin)
    build=${CARGO_TARGET_DIR:-$tree/target}/release
fi
mkdir -p "$out/root/usr/bin" "$out/root/usr/lib/pushpin" "$out/root/etc/pushpin"
for program in pushpin pushpin-connmgr pushpin-proxy pushpin-handler; do
    cp "$build/$program" "$out/root/usr/bin/"
done
cp "$tree/etc/internal.conf" "$out/root/usr/lib/pushpin/"
"$here/../../bundle.sh" "$out/root" "$out"/root/usr/bin/*
cp "$here/start" "$out/start"
chmod 755 "$out/start"
version=$("$build/pushpin" --version | cut -d' ' -f2)
cat >"$out/target.json" <<EOF
{"name": "ours $version", "control": "127.0.0.1:5561", "stats": "ipc:///run/pushpin/pushpin-stats",
 "ports": [8000, 8001, 8002, 8003, 8004, 8005, 8006, 8007], "split": true}
EOF
