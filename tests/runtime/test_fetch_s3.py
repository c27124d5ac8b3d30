"""Models brought from a real S3 server."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from openclaw.errors import ConfigInvalid, ModelAccessDenied, ModelDownloadFailed, ModelDownloadTimeout, ModelNotFound
from openclaw.storage.fetch import Limits, fetch
from openclaw.storage.uri import parse

CONTENT = os.urandom(5 * 2**20 + 17)


@pytest.fixture
def account(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3


async def get(uri: str, cache: Path, **options: Any) -> Path:
    return await fetch(parse(uri), cache_dir=cache, **options)


async def test_an_object_is_downloaded_and_revalidated(account: Any, tmp_path: Path) -> None:
    uri = account.put("folder/digits v1.onnx", CONTENT)
    first = await get(uri, tmp_path, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert first.read_bytes() == CONTENT
    inode = (await get(uri, tmp_path)).stat().st_ino
    assert (await get(uri, tmp_path)).stat().st_ino == inode
    account.put("folder/digits v1.onnx", CONTENT[:100])
    assert (await get(uri, tmp_path)).read_bytes() == CONTENT[:100]


async def test_a_missing_object_and_a_missing_bucket_are_not_found(account: Any, tmp_path: Path) -> None:
    for uri in ("s3://models/missing.onnx", "s3://no-such-bucket/model.onnx"):
        with pytest.raises(ModelNotFound, match=f"there is no object {uri}, or no such bucket"):
            await get(uri, tmp_path)


async def test_a_wrong_secret_is_denied(account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = account.put("denied.onnx", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ModelAccessDenied, match=r"s3://models refuses access to denied\.onnx; check the credentials"):
        await get(uri, tmp_path)


async def test_a_server_that_is_away_may_heal(
    account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises((ModelDownloadFailed, ModelDownloadTimeout)):
        await get("s3://models/m.onnx", tmp_path, limits=Limits(timeout_seconds=10))


async def test_a_bucket_that_hangs_is_given_up_in_time(
    account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel takes the connection and the request; nobody ever reads it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        limits = Limits(timeout_seconds=20, stall_seconds=0.5)
        with pytest.raises(ModelDownloadTimeout, match=r"no bytes came for 0\.5 s"):
            await get("s3://models/m.onnx", tmp_path, limits=limits)


async def test_a_store_without_an_account_is_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigInvalid, match=r"az://models/m\.onnx cannot be set up"):
        await get("az://models/m.onnx", tmp_path)


def test_a_server_starts_from_a_bucket_and_again_from_its_cache(s3: Any, start_server: Any, models: Any) -> None:
    uri = s3.put("served/digits.onnx", models.digits().read_bytes())
    digest = hashlib.sha256(models.digits().read_bytes()).hexdigest()
    options = (uri, "--sha256", digest, "--drain-delay", 0)
    first = start_server(*options, **s3.environment()).wait_ready()
    assert "downloaded s3://models/served/digits.onnx" in first.log
    assert first.stop() == 0
    again = start_server(*options, **s3.environment(secret="wrong")).wait_ready()
    assert "downloaded" not in again.log
    assert again.stop() == 0


def test_a_server_that_is_refused_says_so(s3: Any, start_server: Any, models: Any) -> None:
    uri = s3.put("refused/digits.onnx", models.digits().read_bytes())
    server = start_server(uri, **s3.environment(secret="wrong"))
    assert server.wait() == 78
    assert json.loads(server.log.splitlines()[-1])["reason"] == "ModelAccessDenied"
