#!/bin/bash
# The two crictl commands that kind calls, by ctr: which image has a name or an id, and what images there are.
set -euo pipefail
ctr=(ctr --namespace=k8s.io)

# One line for each name: the name, and the image's id, which is the digest of its configuration.
listed() {
  "${ctr[@]}" images list --quiet | grep -v '^sha256:' | while read -r name; do
    manifest=$("${ctr[@]}" images list "name==$name" | awk 'NR == 2 {print $3}')
    content=$("${ctr[@]}" content get "$manifest" 2>/dev/null || true)
    id=$(jq -r '.config.digest // empty' <<<"$content")
    [ -z "$id" ] || echo "$name $id"
  done
}

case ${1:-} in
inspecti)
  id=$(listed | awk -v asked="$2" '$1 == asked || $2 == asked {print $2; exit}')
  [ -n "$id" ] || { echo "no such image $2" >&2; exit 1; }
  listed | awk -v id="$id" '$2 == id {print $1}' |
    jq --raw-input --slurp --arg id "$id" '{status: {id: $id, repoTags: split("\n") | map(select(. != ""))}}'
  ;;
images)
  listed
  ;;
*)
  echo "crictl: only inspecti and images are known here" >&2
  exit 2
  ;;
esac
