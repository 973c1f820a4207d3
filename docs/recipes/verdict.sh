#!/bin/sh
# The verdict of a night, when all its shards have ended: exits with 1 when a promise is broken, or something regressed
# since the night before.
#
# Reads out/*/result.json and history/last.json, writes reports/out, and adds to history/, which is to be kept from night
# to night.
set -eu
code=0
clusterproof merge out/*/result.json --output=reports/out || code=$?
[ "$code" -le 1 ] || exit "$code"

if [ -e history/last.json ]; then
    clusterproof diff history/last.json reports/out/result.json --format=markdown --output=reports/out/diff.md || code=$?
fi
mkdir -p history
cp reports/out/result.json "history/$NIGHT.json"
cp reports/out/result.json history/last.json
clusterproof history history --last=30 --format=html --output=reports/out/history.html
exit "$code"
