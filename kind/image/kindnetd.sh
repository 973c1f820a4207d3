#!/bin/bash
# Connects the pods of a kind cluster, as kind's own kindnetd does: every node gets a CNI configuration for its range of
# pod addresses, routes to the ranges of the others, and masquerades what leaves the pods' networks. It enforces no
# NetworkPolicy. kind's manifest sets HOST_IP, POD_SUBNET and CONTROL_PLANE_ENDPOINT.
set -euo pipefail
account=/var/run/secrets/kubernetes.io/serviceaccount
configuration=/etc/cni/net.d/10-kindnet.conflist
protocol=201 # marks our routes among the node's

cat >/tmp/kubeconfig <<END
apiVersion: v1
kind: Config
current-context: kind
contexts: [{name: kind, context: {cluster: kind, user: kindnet}}]
clusters: [{name: kind, cluster: {server: "https://$CONTROL_PLANE_ENDPOINT", certificate-authority: $account/ca.crt}}]
users: [{name: kindnet, user: {tokenFile: $account/token}}]
END

# One line for each node: its addresses, then "/", then its ranges of pod addresses.
nodes() {
  kubectl --kubeconfig=/tmp/kubeconfig --request-timeout=10s get nodes -o jsonpath='{range .items[*]}'\
'{.status.addresses[?(@.type=="InternalIP")].address}{" / "}{.spec.podCIDRs[*]}{"\n"}{end}'
}

family() { [[ $1 == *:* ]] && echo -6 || echo -4; }

configure() {
  local ranges="" routes="" range
  for range in "$@"; do
    ranges+="${ranges:+, }[{\"subnet\": \"$range\"}]"
    [[ $range == *:* ]] && routes+="${routes:+, }{\"dst\": \"::/0\"}" || routes+="${routes:+, }{\"dst\": \"0.0.0.0/0\"}"
  done
  cat >"$configuration.new" <<END
{
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": $(cat /sys/class/net/eth0/mtu),
      "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": [$routes], "ranges": [$ranges]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
  cmp -s "$configuration.new" "$configuration" || mv "$configuration.new" "$configuration"
}

masquerade() {
  local subnet iptables
  for subnet in ${POD_SUBNET//,/ }; do
    iptables=iptables
    [[ $subnet != *:* ]] || iptables=ip6tables
    local rule=(POSTROUTING -t nat -s "$subnet" ! -d "$subnet" -m addrtype ! --dst-type LOCAL -j MASQUERADE)
    $iptables -w -C "${rule[@]}" 2>/dev/null || $iptables -w -A "${rule[@]}"
  done
}

connect() {
  local addresses ranges range address wanted="" route
  while IFS=/ read -r -d $'\n' addresses ranges; do
    # The ranges have slashes of their own; `read` leaves them in the last name.
    if [[ " $addresses " == *" $HOST_IP "* ]]; then
      # shellcheck disable=SC2086 # one word for each range
      [ -z "${ranges// /}" ] || configure $ranges
      continue
    fi
    for range in $ranges; do
      for address in $addresses; do
        if [ "$(family "$range")" = "$(family "$address")" ]; then
          ip "$(family "$range")" route replace "$range" via "$address" proto $protocol
          wanted+=" $range "
        fi
      done
    done
  done <<<"$1"
  for route in $({ ip -4 route show proto $protocol; ip -6 route show proto $protocol; } | awk '{print $1}'); do
    [[ $wanted == *" $route "* ]] || ip "$(family "$route")" route del "$route" proto $protocol
  done
}

while :; do
  if listed=$(nodes); then
    masquerade
    connect "$listed"
  fi
  [ -e "$configuration" ] && sleep 5 || sleep 1
done
