"""The certificates, keys and kubeconfigs of a control plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster.kubeconfig import write_kubeconfig
from testcluster.pki import Authority, Pair, create_signing_key

FRONT_PROXY = "front-proxy-client"
"""Common name under which the API server calls aggregated APIs."""


@dataclass(frozen=True)
class Identities:
    """Who is who in one control plane; everything lies in one folder."""

    authority: Authority
    server: Pair
    front_proxy_authority: Authority
    front_proxy: Pair
    token_key: Path
    token_public_key: Path

    @property
    def authority_certificate(self) -> Path:
        """Certificate that every server and client certificate is checked against."""
        return self.authority.pair.certificate

    async def kubeconfig(self, path: Path, server: str, *, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig at `path` for `user` in `groups`."""
        pair = await self.authority.issue(path.stem, user, organizations=groups)
        return write_kubeconfig(path, server, authority=self.authority_certificate, identity=pair)

    def token_kubeconfig(self, path: Path, server: str, *, token: str) -> Path:
        """Write a kubeconfig at `path` for whoever `token` stands for."""
        return write_kubeconfig(path, server, authority=self.authority_certificate, identity=token)


async def create_identities(directory: Path, *, addresses: Sequence[str]) -> Identities:
    """Make the identities of a control plane whose servers are reached under the IP `addresses`."""
    authority = Authority(directory, "ca")
    await authority.create()
    # An authority of its own, as its holder may claim to be any user.
    front_proxy_authority = Authority(directory, "front-proxy-ca")
    await front_proxy_authority.create()
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    hosts = [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)]
    server = await authority.issue("server", "kube-apiserver", organizations=["system:masters"], hosts=hosts)
    front_proxy = await front_proxy_authority.issue("front-proxy", FRONT_PROXY)
    token_key, token_public_key = await create_signing_key(directory, "service-account")
    return Identities(authority, server, front_proxy_authority, front_proxy, token_key, token_public_key)
