#!/bin/bash
# Makes a kind node image: build.sh CONTEXT BASE NODE. Needs docker, and kind and kubeadm in PATH; no network.
set -euo pipefail
context=$1 base=$2 node=$3

docker build --tag "$base" "$context/base"
export TMPDIR="$context/tmp" # kind leaves what it unpacks, close to a gigabyte, where it unpacked it
mkdir "$TMPDIR"
trap 'docker rmi --force "$base" >/dev/null' EXIT
kind build node-image --type file --base-image "$base" --image "$node" "$context/server.tar.gz"
docker save --output "$context/node.tar" "$node"
