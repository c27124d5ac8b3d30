"""Kubeconfig files, self-contained: certificates are embedded, so a file may be copied anywhere."""

import base64
from pathlib import Path

import yaml

from testcluster.pki import Pair


def write_kubeconfig(path: Path, server: str, *, authority: Path, identity: Pair | str) -> Path:
    """Write a kubeconfig for `server` whose user is a client certificate or, given a string, a token."""
    if isinstance(identity, Pair):
        user = {
            "client-certificate-data": _embedded(identity.certificate),
            "client-key-data": _embedded(identity.key),
        }
    else:
        user = {"token": identity}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": server, "certificate-authority-data": _embedded(authority)}}
        ],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _embedded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
