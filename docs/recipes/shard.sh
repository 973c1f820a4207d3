#!/bin/sh
# One shard of a night: shard.sh SHARD OF. Started again after an interruption, it goes on where it was.
#
# Needs pytest with Clusterproof on the PATH; KUBECONFIG_FILE, the cluster; and NIGHT, the run's id, the same in all shards.
# Reads history/last.json, where it is there, so that all shards take about as long. Writes out/SHARD.
set -eu
shard=$1
of=$2
out="out/$shard"

prove() {
    [ ! -e history/last.json ] || set -- "$@" --shard-by=history/last.json
    pytest suites/ --cluster=external --kubeconfig="$KUBECONFIG_FILE" --retry-broken \
        --run-id="$NIGHT" --shard="$shard/$of" --reports-dir="$out" "$@"
}

code=4 # as pytest's, which could not start: nothing was begun
if [ -e "$out/journal.jsonl" ]; then
    code=0
    prove --resume || code=$?
fi
if [ "$code" -eq 4 ]; then
    code=0
    prove || code=$?
fi
# What is broken (1) is for the verdict to say: this shard has done its work.
[ "$code" -eq 1 ] || exit "$code"
