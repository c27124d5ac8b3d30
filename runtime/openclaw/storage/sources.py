"""Opens a remote model as a stream of chunks; every store's errors become the errors of this package.

Buckets go through obstore, which signs, retries and resumes. Plain web servers go through aiohttp:
obstore's HTTP store drops the query that a signed URL lives by, and refuses answers without a length.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import obstore
from obstore import exceptions as store_errors
from obstore.store import from_url
from yarl import URL

from openclaw.errors import ConfigInvalid, ModelAccessDenied, ModelDownloadFailed, ModelNotFound, StartupError
from openclaw.storage.uri import BUCKETS, ModelUri

CHUNK_BYTES = 1 << 20
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Validators:
    """What tells two versions of an object apart (RFC 9110, section 8.8); None: the store does not say."""

    etag: str | None
    last_modified: str | None
    size: int | None

    def proves_same(self, other: Validators) -> bool:
        """Whether ``other`` is surely the same version: one strong sign, and no contradiction."""
        if self.etag is not None or other.etag is not None:
            return self.etag == other.etag
        return self.last_modified is not None and self == other


@dataclass(frozen=True)
class Download:
    """An open stream; ``unchanged`` when the store says that the known version still holds."""

    chunks: AsyncIterator[bytes | memoryview]
    validators: Validators
    unchanged: bool = False


def open_source(uri: ModelUri, known: Validators | None) -> AbstractAsyncContextManager[Download]:
    """Opens ``uri`` for reading, asking only for what is newer than ``known``.

    Raises (on entering, and while reading):
        ModelNotFound, ModelAccessDenied, ModelDownloadFailed, ConfigInvalid.
    """
    return _open_bucket(uri, known) if uri.scheme in BUCKETS else _open_web(uri, known)


@asynccontextmanager
async def _open_bucket(uri: ModelUri, known: Validators | None) -> AsyncIterator[Download]:
    store = _store(uri, os.environ)
    condition: Any = {"if_none_match": known.etag} if known and known.etag else {}
    try:
        answer = await obstore.get_async(store, uri.path, options=condition)
    except store_errors.NotModifiedError:
        assert known is not None
        yield Download(_nothing(), known, unchanged=True)
        return
    except (store_errors.BaseError, OSError) as error:
        raise _from_store(uri, error) from error
    meta = answer.meta
    validators = Validators(meta["e_tag"], meta["last_modified"].isoformat(), meta["size"])
    yield Download(_bucket_chunks(uri, answer), validators, _same(known, validators))


async def _bucket_chunks(uri: ModelUri, answer: obstore.GetResult) -> AsyncIterator[memoryview]:
    try:
        async for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
            yield memoryview(chunk)
    except (store_errors.BaseError, OSError) as error:
        raise _from_store(uri, error) from error


def _store(uri: ModelUri, environment: Mapping[str, str]) -> Any:
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    options: Any = {"connect_timeout": timedelta(seconds=CONNECT_SECONDS), "timeout": timedelta(days=1)}
    if uri.scheme == "s3" and endpoint.startswith("http://"):
        options["allow_http"] = True
    retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
    try:
        return from_url(f"{uri.scheme}://{uri.authority}/", client_options=options, retry_config=retries)
    except (store_errors.BaseError, ValueError) as error:
        raise ConfigInvalid(f"the store of {uri} cannot be set up: {_brief(error)}") from error


def _from_store(uri: ModelUri, error: Exception) -> StartupError:
    if isinstance(error, FileNotFoundError | store_errors.NotFoundError):
        return ModelNotFound(f"there is no object {uri}, or no such bucket")
    if isinstance(error, store_errors.PermissionDeniedError | store_errors.UnauthenticatedError | PermissionError):
        return ModelAccessDenied(
            f"{uri.scheme}://{uri.authority} refuses access to {uri.path}; "
            "check the credentials (in Kubernetes: spec.model.credentials.secretName) and what they allow"
        )
    return ModelDownloadFailed(f"{uri} cannot be read: {_brief(error)}")


@asynccontextmanager
async def _open_web(uri: ModelUri, known: Validators | None) -> AsyncIterator[Download]:
    headers = {"Accept-Encoding": "identity"}
    if known and known.etag:
        headers["If-None-Match"] = known.etag
    elif known and known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session,
            session.get(URL(uri.text, encoded=True), headers=headers) as answer,
        ):
            if known and answer.status == 304:
                yield Download(_nothing(), known, unchanged=True)
                return
            _check_status(uri, answer.status)
            validators = Validators(
                answer.headers.get("ETag"), answer.headers.get("Last-Modified"), answer.content_length
            )
            yield Download(_web_chunks(uri, answer), validators, _same(known, validators))
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ModelDownloadFailed(f"{uri} cannot be read: {_brief(error)}") from error


async def _web_chunks(uri: ModelUri, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            yield chunk
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ModelDownloadFailed(f"{uri} was cut short: {_brief(error)}") from error


def _check_status(uri: ModelUri, status: int) -> None:
    if status in (404, 410):
        raise ModelNotFound(f"there is no model at {uri} (HTTP {status})")
    if status in (401, 403, 407):
        raise ModelAccessDenied(
            f"{uri.authority} refuses access to /{uri.path} (HTTP {status}); check the URL and its rights"
        )
    if status != 200:
        raise ModelDownloadFailed(f"{uri.authority} answered HTTP {status} for /{uri.path}")


def _same(known: Validators | None, now: Validators) -> bool:
    return known is not None and known.proves_same(now)


async def _nothing() -> AsyncIterator[bytes]:
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


def _brief(error: Exception) -> str:
    """The first line of an error, without queries: they may be signatures."""
    text = str(error).partition("\n")[0] or type(error).__name__
    return re.sub(r"\?\S+", "?...", text)[:500]
