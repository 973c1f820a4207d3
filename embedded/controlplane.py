"""An embedded cluster's control plane, in the router's namespace: etcd, API server, controllers and scheduler.

etcd and the managers listen on that namespace's loopback, which neither pods nor the host reach; the API server
listens on the cluster's bridge, which the host and all nodes reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .builder import Artifacts
from .pki import Authority, signing_key, write_kubeconfig
from .process import Component, start, start_anchor
from .state import ClusterState

ETCD = "https://127.0.0.1:2379"
PEER = "https://127.0.0.1:2380"
PLACE = "control-plane"
"""What stands for a node's name where the control plane runs."""


class ControlPlane:
    """Starts the control plane's processes, one method each; `components` are those that run."""

    def __init__(self, state: ClusterState, artifacts: Artifacts) -> None:
        self.state = state
        self.components: list[Component] = []
        self._artifacts = artifacts
        self._pki = _Pki(state)

    def prepare(self) -> None:
        """The namespace's anchor and etcd; etcd answers when this returns."""
        state = self.state
        state.anchors[PLACE] = start_anchor(f"{state.name}-control-plane", state.control_plane, state.folder)
        self._start("etcd", *self._etcd_flags()).await_said("ready to serve client requests")

    def start_api_server(self) -> None:
        """Start the API server; it answers some seconds later."""
        self._start("kube-apiserver", *self._api_server_flags())

    def start_controllers(self) -> None:
        """Start controller manager and scheduler; both wait for a leader lease first."""
        self._start("kube-controller-manager", *self._controller_manager_flags())
        self._start("kube-scheduler", *self._scheduler_flags())

    def _start(self, name: str, *flags: str) -> Component:
        component = start(self.state, name, [self._artifacts.binary(name), *flags], on=PLACE)
        self.components.append(component)
        return component

    def _etcd_flags(self) -> list[str]:
        server = self._pki.etcd_server
        trusted = self._pki.etcd.pair.certificate
        return [
            f"--data-dir={self.state.folder / 'etcd'}",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={PEER}",
            f"--initial-advertise-peer-urls={PEER}",
            f"--initial-cluster=default={PEER}",
            f"--cert-file={server.certificate}",
            f"--key-file={server.key}",
            f"--peer-cert-file={server.certificate}",
            f"--peer-key-file={server.key}",
            f"--trusted-ca-file={trusted}",
            f"--peer-trusted-ca-file={trusted}",
            "--client-cert-auth",
            "--peer-client-cert-auth",
            "--unsafe-no-fsync",  # a throw-away cluster does not outlive its machine
        ]

    def _api_server_flags(self) -> list[str]:
        state, pki = self.state, self._pki
        return [
            f"--advertise-address={state.api_address}",
            f"--bind-address={state.api_address}",
            "--secure-port=6443",
            f"--service-cluster-ip-range={state.service_network}",
            f"--etcd-servers={ETCD}",
            f"--etcd-cafile={pki.etcd.pair.certificate}",
            f"--etcd-certfile={pki.etcd_client.certificate}",
            f"--etcd-keyfile={pki.etcd_client.key}",
            f"--tls-cert-file={pki.api_server.certificate}",
            f"--tls-private-key-file={pki.api_server.key}",
            f"--client-ca-file={pki.cluster.pair.certificate}",
            f"--kubelet-certificate-authority={pki.cluster.pair.certificate}",
            f"--kubelet-client-certificate={pki.kubelet_client.certificate}",
            f"--kubelet-client-key={pki.kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki.service_accounts.certificate}",
            f"--service-account-signing-key-file={pki.service_accounts.key}",
            f"--requestheader-client-ca-file={pki.front_proxy.pair.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki.front_proxy_client.certificate}",
            f"--proxy-client-key-file={pki.front_proxy_client.key}",
            "--enable-aggregator-routing=true",  # no kube-proxy runs here: webhooks are reached at their endpoints
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
        ]

    def _controller_manager_flags(self) -> list[str]:
        state, pki = self.state, self._pki
        return [
            *manager_flags(state, pki.cluster, "controller-manager", "system:kube-controller-manager"),
            f"--client-ca-file={pki.cluster.pair.certificate}",
            f"--requestheader-client-ca-file={pki.front_proxy.pair.certificate}",
            f"--root-ca-file={pki.cluster.pair.certificate}",
            f"--cluster-signing-cert-file={pki.cluster.pair.certificate}",
            f"--cluster-signing-key-file={pki.cluster.pair.key}",
            f"--service-account-private-key-file={pki.service_accounts.key}",
            "--use-service-account-credentials=true",
            "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
            f"--cluster-cidr={state.pod_network}",
            "--allocate-node-cidrs=false",  # the launcher lays the routes, so it also gives out the ranges
            f"--service-cluster-ip-range={state.service_network}",
            # It asks for a token for each of its controllers before it starts any; at the default rate that takes 5 s.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            # Autoscaling acts on what the metrics server measures every 3 s, not on the 15 s and 5 min
            # of a production cluster.
            "--horizontal-pod-autoscaler-sync-period=3s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        ]

    def _scheduler_flags(self) -> list[str]:
        return manager_flags(self.state, self._pki.cluster, "scheduler", "system:kube-scheduler")


def manager_flags(
    state: ClusterState, authority: Authority, name: str, user: str, groups: Sequence[str] = ()
) -> list[str]:
    """What every manager is told: who it is, where it is asked how it is, and how long its lease lasts."""
    config = kubeconfig(state, authority, name, user, groups, server=("127.0.0.1", "localhost"))
    return [
        "--bind-address=127.0.0.1",
        # Without a certificate it makes two RSA keys before anything else, a sixth of a second of processor time.
        f"--tls-cert-file={state.pki / name}.crt",
        f"--tls-private-key-file={state.pki / name}.key",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        # There is nobody to hand over to: rather than end when a busy machine delays a renewal, it waits longer.
        "--leader-elect-lease-duration=60s",
        "--leader-elect-renew-deadline=45s",
    ]


def kubeconfig(
    state: ClusterState,
    authority: Authority,
    name: str,
    user: str,
    groups: Sequence[str] = (),
    path: Path | None = None,
    server: Sequence[str] = (),
) -> Path:
    """A kubeconfig for a user that the cluster's authority vouches for, by the names `server` if it serves, too."""
    return write_kubeconfig(
        path or state.pki / f"{name}.kubeconfig",
        cluster=f"clusterproof-{state.name}",
        server=state.server,
        authority=authority.pair.certificate,
        user=user,
        identity=authority.issue(name, user=user, groups=list(groups), server=server),
    )


class _Pki:
    """All certificates of the control plane, and the administrator's kubeconfig."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        folder = state.pki
        self.cluster = Authority(folder, "ca")
        self.etcd = Authority(folder, "etcd-ca")
        self.front_proxy = Authority(folder, "front-proxy-ca")
        self.service_accounts = signing_key(folder, "service-accounts")
        self.etcd_server = self.etcd.issue("etcd", user="etcd", server=["127.0.0.1", "localhost"])
        self.etcd_client = self.etcd.issue("etcd-client", user="kube-apiserver")
        self.api_server = self.cluster.issue("apiserver", user="kube-apiserver", server=self._api_server_names())
        self.kubelet_client = self.cluster.issue("kubelet-client", user="kube-apiserver", groups=["system:masters"])
        self.front_proxy_client = self.front_proxy.issue("front-proxy-client", user="front-proxy-client")
        kubeconfig(state, self.cluster, "admin", "kubernetes-admin", ["system:masters"], state.kubeconfig)

    def _api_server_names(self) -> list[str]:
        service = "kubernetes.default.svc.cluster.local"
        names = [".".join(service.split(".")[:count]) for count in (1, 2, 3, 5)]
        return [*names, str(self._state.api_address), str(self._state.service_network[1]), "localhost", "127.0.0.1"]
