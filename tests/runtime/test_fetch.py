"""Models brought over HTTP and from files: through the cache, within limits, with clear failures."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from aiohttp import web

from openclaw.errors import (
    ConfigInvalid,
    ModelAccessDenied,
    ModelDigestMismatch,
    ModelDownloadFailed,
    ModelDownloadTimeout,
    ModelNotFound,
    ModelTooLarge,
)
from openclaw.storage.cache import Cache, default_folder, key_of
from openclaw.storage.fetch import Limits, fetch
from openclaw.storage.uri import parse

CONTENT = os.urandom(3 * 2**20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FAST = Limits(timeout_seconds=20, stall_seconds=0.5, retry_seconds=0.02)


@dataclass
class Store:
    """A web server with one way to fail per path."""

    url: str = ""
    content: bytes = field(default=CONTENT, repr=False)
    etag: str | None = '"one"'
    failures: int = 0
    seen: list[tuple[str, str | None]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.raw_path, request.headers.get("If-None-Match")))
        headers = {} if self.etag is None else {"ETag": self.etag}
        if self.etag is not None and request.headers.get("If-None-Match") == self.etag:
            return web.Response(status=304)
        match request.path.split("/")[1]:
            case "ok":
                return web.Response(body=self.content, headers=headers)
            case "moved":
                raise web.HTTPFound("/ok/model.onnx")
            case "flaky" if self.failures > 0:
                self.failures -= 1
                return web.Response(status=503)
            case "flaky":
                return web.Response(body=self.content, headers=headers)
            case "hangs":
                await asyncio.sleep(30)
            case "stalls" | "truncates" | "chunked" as how:
                return await self._stream(request, how)
            case "status":
                return web.Response(status=int(request.path.split("/")[2]), text="see http://x/?secret=1")
        return web.Response(status=404)

    async def _stream(self, request: web.Request, how: str) -> web.StreamResponse:
        response = web.StreamResponse()
        if how != "chunked":
            response.content_length = len(self.content)
        await response.prepare(request)
        await response.write(self.content if how == "chunked" else self.content[:100_000])
        if how == "stalls":
            await asyncio.sleep(30)
        if how == "truncates":
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield store
    await runner.cleanup()


async def get(url: str, cache: Path, *, sha256: str | None = None, limits: Limits = FAST) -> Path:
    return await fetch(parse(url), cache_dir=cache, sha256=sha256, limits=limits)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("path", ["ok/model.onnx", "moved/model.onnx", "chunked/model.onnx", "ok/m.onnx?sig=a%2Fb&x=1"])
async def test_a_model_is_downloaded_whole(store: Store, tmp_path: Path, path: str) -> None:
    assert (await get(f"{store.url}/{path}", tmp_path)).read_bytes() == CONTENT
    assert files(tmp_path / "parts") == []
    assert store.seen[0][0] == f"/{path}"


async def test_an_unchanged_model_is_not_downloaded_again(store: Store, tmp_path: Path) -> None:
    first = await get(f"{store.url}/ok/model.onnx", tmp_path)
    inode = first.stat().st_ino
    second = await get(f"{store.url}/ok/model.onnx", tmp_path)
    assert (second, second.stat().st_ino) == (first, inode)
    assert store.seen[-1] == ("/ok/model.onnx", '"one"')


async def test_a_changed_model_is_downloaded_again(store: Store, tmp_path: Path) -> None:
    await get(f"{store.url}/ok/model.onnx", tmp_path)
    store.content, store.etag = b"another", '"two"'
    assert (await get(f"{store.url}/ok/model.onnx", tmp_path)).read_bytes() == b"another"


async def test_a_store_that_names_no_version_is_asked_for_the_whole_model(store: Store, tmp_path: Path) -> None:
    store.etag = None
    await get(f"{store.url}/ok/model.onnx", tmp_path)
    store.content = os.urandom(len(CONTENT))
    assert (await get(f"{store.url}/ok/model.onnx", tmp_path)).read_bytes() == store.content


async def test_with_a_digest_the_store_is_not_asked_twice(store: Store, tmp_path: Path) -> None:
    await get(f"{store.url}/ok/model.onnx", tmp_path, sha256=DIGEST)
    await get(f"{store.url}/ok/elsewhere.onnx", tmp_path, sha256=DIGEST)
    assert len(store.seen) == 1


@pytest.mark.parametrize("sha256", [None, DIGEST])
async def test_a_damaged_cached_model_is_downloaded_again(store: Store, tmp_path: Path, sha256: str | None) -> None:
    path = await get(f"{store.url}/ok/model.onnx", tmp_path, sha256=sha256)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert (await get(f"{store.url}/ok/model.onnx", tmp_path, sha256=sha256)).read_bytes() == CONTENT
    assert len(store.seen) == 2


async def test_a_damaged_note_counts_as_none(store: Store, tmp_path: Path) -> None:
    await get(f"{store.url}/ok/model.onnx", tmp_path)
    for note in (tmp_path / "refs").iterdir():
        note.write_text('{"sha256": 1, "validators": {"x": 2}}')
    assert (await get(f"{store.url}/ok/model.onnx", tmp_path)).read_bytes() == CONTENT


async def test_the_cached_model_is_used_while_the_store_is_down(store: Store, tmp_path: Path) -> None:
    await get(f"{store.url}/flaky/model.onnx", tmp_path)
    store.failures, store.etag = 99, '"two"'
    assert (await get(f"{store.url}/flaky/model.onnx", tmp_path)).read_bytes() == CONTENT
    assert store.failures < 99


async def test_a_store_that_recovers_within_three_attempts_is_enough(store: Store, tmp_path: Path) -> None:
    store.failures = 2
    assert (await get(f"{store.url}/flaky/model.onnx", tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("missing/model.onnx", ModelNotFound, "(HTTP 404)"),
        ("status/410", ModelNotFound, "(HTTP 410)"),
        ("status/401", ModelAccessDenied, "refuses access to /status/401 (HTTP 401)"),
        ("status/403?token=secret", ModelAccessDenied, "(HTTP 403)"),
        ("status/500", ModelDownloadFailed, "answered HTTP 500"),
        ("truncates/model.onnx", ModelDownloadFailed, "was cut short"),
        ("hangs/model.onnx", ModelDownloadTimeout, "no bytes came for 0.5 s"),
        ("stalls/model.onnx", ModelDownloadTimeout, "no bytes came for 0.5 s"),
    ],
)
async def test_a_failing_store_is_reported_by_its_kind(
    store: Store, tmp_path: Path, path: str, *, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as failure:
        await get(f"{store.url}/{path}", tmp_path)
    assert says in str(failure.value)
    assert "secret" not in str(failure.value)
    assert files(tmp_path / "parts") == []
    assert files(tmp_path / "blobs") == []


async def test_nobody_listening_is_a_failure_that_may_heal(tmp_path: Path, unused_tcp_port: int) -> None:
    with pytest.raises(ModelDownloadFailed, match="cannot be read"):
        await get(f"http://127.0.0.1:{unused_tcp_port}/model.onnx", tmp_path)


async def test_the_whole_download_has_a_limit_of_its_own(store: Store, tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=0.3, stall_seconds=30)
    with pytest.raises(ModelDownloadTimeout, match=r"was not downloaded within 0\.3 s"):
        await get(f"{store.url}/stalls/model.onnx", tmp_path, limits=limits)


async def test_another_digest_is_refused_and_not_kept(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelDigestMismatch, match=f"has the SHA-256 {DIGEST}, not {'0' * 64}"):
        await get(f"{store.url}/ok/model.onnx", tmp_path, sha256="0" * 64)
    assert files(tmp_path / "blobs") == []


@pytest.mark.parametrize("path", ["ok", "chunked"])
async def test_a_model_above_the_limit_is_refused(store: Store, tmp_path: Path, path: str) -> None:
    with pytest.raises(ModelTooLarge, match=r"maxBytes allows 1,000,000"):
        await get(f"{store.url}/{path}/model.onnx", tmp_path, limits=Limits(max_bytes=1_000_000))
    assert files(tmp_path / "parts") == []


async def test_simultaneous_starters_download_once(store: Store, tmp_path: Path) -> None:
    paths = await asyncio.gather(*(get(f"{store.url}/ok/model.onnx", tmp_path, sha256=DIGEST) for _ in range(5)))
    assert {path.read_bytes() == CONTENT for path in paths} == {True}
    assert len(store.seen) == 1


async def test_a_waiting_starter_gives_up_in_time(store: Store, tmp_path: Path) -> None:
    uri = parse(f"{store.url}/ok/model.onnx")
    Cache(tmp_path)
    with (tmp_path / "locks" / f"{key_of(uri)}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ModelDownloadTimeout):
            await fetch(uri, cache_dir=tmp_path, limits=Limits(timeout_seconds=0.3))
    assert (await fetch(uri, cache_dir=tmp_path)).read_bytes() == CONTENT


async def test_what_a_killed_download_left_is_removed_but_not_what_lives(store: Store, tmp_path: Path) -> None:
    url = f"{store.url}/stalls/model.onnx"
    script = (
        "import asyncio, pathlib, sys;"
        "from openclaw.storage.fetch import fetch; from openclaw.storage.uri import parse;"
        "asyncio.run(fetch(parse(sys.argv[1]), cache_dir=pathlib.Path(sys.argv[2])))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, url, str(tmp_path), stderr=subprocess.DEVNULL
    )
    part = tmp_path / "parts"
    async with asyncio.timeout(20):
        while not (part.exists() and files(part)):  # noqa: ASYNC110 - the state is another process's
            await asyncio.sleep(0.02)
    await get(f"{store.url}/ok/model.onnx", tmp_path)
    assert len(files(part)) == 1, "the part of a download under way must stay"
    process.kill()
    await process.wait()
    await get(f"{store.url}/ok/model.onnx", tmp_path)
    assert files(part) == []


async def test_a_folder_that_cannot_be_written_is_a_wrong_setting(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match="set OPENCLAW_CACHE_DIR"):
        await get(f"{store.url}/ok/model.onnx", tmp_path / "file" / "cache")


async def test_a_disk_that_refuses_the_model_is_reported(store: Store, tmp_path: Path) -> None:
    Cache(tmp_path)
    (tmp_path / "blobs").rmdir()
    (tmp_path / "blobs").symlink_to("/proc", target_is_directory=True)
    with pytest.raises(ModelDownloadFailed, match=f"cannot be kept in the cache folder {tmp_path}"):
        await get(f"{store.url}/ok/model.onnx", tmp_path)
    assert files(tmp_path / "parts") == []


def test_the_cache_folder_is_the_one_named_else_the_users_else_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(number: int) -> NoReturn:
        raise KeyError(number)

    for name in ("OPENCLAW_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "openclaw"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert default_folder() == Path(tempfile.gettempdir()) / "openclaw"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_folder() == Path("/xdg/openclaw")
    monkeypatch.setenv("OPENCLAW_CACHE_DIR", "/var/cache/openclaw")
    assert default_folder() == Path("/var/cache/openclaw")


async def test_a_file_is_opened_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a model.onnx"
    path.write_bytes(CONTENT)
    assert await get(path.as_uri(), tmp_path / "cache", sha256=DIGEST) == path
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "limits", "sha256", "error"),
    [
        ("missing.onnx", FAST, None, ModelNotFound),
        ("", FAST, None, ModelNotFound),
        ("model.onnx/x", FAST, None, ModelNotFound),
        ("model.onnx", Limits(max_bytes=10), None, ModelTooLarge),
        ("model.onnx", FAST, "0" * 64, ModelDigestMismatch),
    ],
)
async def test_a_wrong_file_is_reported_by_its_kind(
    tmp_path: Path, name: str, limits: Limits, *, sha256: str | None, error: type[Exception]
) -> None:
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    with pytest.raises(error):
        await get(f"file://{tmp_path}/{name}", tmp_path / "cache", sha256=sha256, limits=limits)
