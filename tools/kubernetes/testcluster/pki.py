"""Certificates of a throw-away cluster, made by `openssl` (3.0 or later), on the P-256 curve.

A leaf takes about ten milliseconds, so whoever needs an identity simply asks for one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster.process import run

_DAYS = "30"
# openssl's own configuration file would add extensions to every certificate; this one adds none.
_PLAIN = "[req]\ndistinguished_name = subject\n[subject]\n"


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one folder."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.pair = Pair(directory / f"{name}.crt", directory / f"{name}.key")

    async def create(self) -> None:
        """Make the authority's own key and certificate."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(_PLAIN)
        await self._request(
            self.pair,
            f"/CN={self.name}",
            extensions=[
                "basicConstraints=critical,CA:TRUE",
                "keyUsage=critical,digitalSignature,keyCertSign,cRLSign",
                "subjectKeyIdentifier=hash",
            ],
        )

    async def issue(
        self, name: str, common_name: str, *, organizations: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> Pair:
        """Issue a certificate for clients, and for servers under `hosts` (as in `DNS:x` and `IP:1.2.3.4`).

        Kubernetes reads `common_name` as the user and `organizations` as the groups of a client.
        """
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        subject = "".join(f"/O={organization}" for organization in organizations) + f"/CN={common_name}"
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=clientAuth,serverAuth",
            "subjectKeyIdentifier=hash",
            "authorityKeyIdentifier=keyid",
        ]
        if hosts:
            extensions.append(f"subjectAltName={','.join(hosts)}")
        signer = ["-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key)]
        await self._request(pair, subject, extensions=extensions, signer=signer)
        return pair

    @property
    def _config(self) -> Path:
        return self.directory / "openssl.cnf"

    async def _request(
        self, pair: Pair, subject: str, *, extensions: Sequence[str], signer: Sequence[str] = ()
    ) -> None:
        command: list[str | Path] = ["openssl", "req", "-x509", "-config", self._config, "-days", _DAYS]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", subject, "-keyout", pair.key, "-out", pair.certificate, *signer]
        for extension in extensions:
            command += ["-addext", extension]
        await run(command)


async def create_signing_key(directory: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair for signing tokens; returns the private and the public key's file."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    await run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private])
    await run(["openssl", "pkey", "-in", private, "-pubout", "-out", public])
    return private, public
