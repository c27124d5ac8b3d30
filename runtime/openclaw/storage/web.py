"""Models on plain web servers, through aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from openclaw.errors import ModelAccessDenied, ModelDownloadFailed, ModelNotFound
from openclaw.storage.download import CHUNK_BYTES, CONNECT_SECONDS, Download, Validators, brief, nothing, same
from openclaw.storage.uri import ModelUri


@asynccontextmanager
async def open_web(uri: ModelUri, known: Validators | None) -> AsyncIterator[Download]:
    """See :func:`openclaw.storage.sources.open_source`."""
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
                yield Download(nothing(), known, unchanged=True)
                return
            _check_status(uri, answer.status)
            validators = Validators(
                answer.headers.get("ETag"), answer.headers.get("Last-Modified"), answer.content_length
            )
            yield Download(_chunks(uri, answer), validators, same(known, validators))
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ModelDownloadFailed(f"{uri} cannot be read: {brief(error)}") from error


async def _chunks(uri: ModelUri, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            yield chunk
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ModelDownloadFailed(f"{uri} was cut short: {brief(error)}") from error


def _check_status(uri: ModelUri, status: int) -> None:
    if status in (404, 410):
        raise ModelNotFound(f"there is no model at {uri} (HTTP {status})")
    if status in (401, 403, 407):
        raise ModelAccessDenied(
            f"{uri.authority} refuses access to /{uri.path} (HTTP {status}); check the URL and its rights"
        )
    if status != 200:
        raise ModelDownloadFailed(f"{uri.authority} answered HTTP {status} for /{uri.path}")
