"""Models in buckets, through obstore."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore import exceptions as store_errors
from obstore.store import from_url

from openclaw.errors import ConfigInvalid, ModelAccessDenied, ModelDownloadFailed, ModelNotFound, StartupError
from openclaw.storage.download import CHUNK_BYTES, CONNECT_SECONDS, Download, Validators, brief, nothing, same
from openclaw.storage.uri import ModelUri


@asynccontextmanager
async def open_bucket(uri: ModelUri, known: Validators | None) -> AsyncIterator[Download]:
    """See :func:`openclaw.storage.sources.open_source`."""
    store = open_store(uri, os.environ)
    condition: Any = {"if_none_match": known.etag} if known and known.etag else {}
    try:
        answer = await obstore.get_async(store, uri.path, options=condition)
    except store_errors.NotModifiedError:
        assert known is not None
        yield Download(nothing(), known, unchanged=True)
        return
    except (store_errors.BaseError, OSError) as error:
        raise _from_store(uri, error) from error
    meta = answer.meta
    validators = Validators(meta["e_tag"], meta["last_modified"].isoformat(), meta["size"])
    yield Download(_chunks(uri, answer), validators, same(known, validators))


async def _chunks(uri: ModelUri, answer: obstore.GetResult) -> AsyncIterator[memoryview]:
    try:
        async for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
            yield memoryview(chunk)
    except (store_errors.BaseError, OSError) as error:
        raise _from_store(uri, error) from error


def open_store(uri: ModelUri, environment: Mapping[str, str], *, timeout: timedelta = timedelta(days=1)) -> Any:
    """The bucket that ``uri`` is in; credentials are read by obstore. Raises ConfigInvalid.

    Args:
        uri: of an object in it.
        environment: where an endpoint may be named.
        timeout: of one request with all that comes of it; by default none that a large model could meet.
    """
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    options: Any = {"connect_timeout": timedelta(seconds=CONNECT_SECONDS), "timeout": timeout}
    if uri.scheme == "s3" and endpoint.startswith("http://"):
        options["allow_http"] = True
    retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
    try:
        return from_url(f"{uri.scheme}://{uri.authority}/", client_options=options, retry_config=retries)
    except (store_errors.BaseError, ValueError) as error:
        raise ConfigInvalid(f"the store of {uri} cannot be set up: {brief(error)}") from error


def _from_store(uri: ModelUri, error: Exception) -> StartupError:
    if isinstance(error, FileNotFoundError | store_errors.NotFoundError):
        return ModelNotFound(f"there is no object {uri}, or no such bucket")
    if isinstance(error, store_errors.PermissionDeniedError | store_errors.UnauthenticatedError | PermissionError):
        return ModelAccessDenied(
            f"{uri.scheme}://{uri.authority} refuses access to {uri.path}; "
            "check the credentials (in Kubernetes: spec.model.credentials.secretName) and what they allow"
        )
    return ModelDownloadFailed(f"{uri} cannot be read: {brief(error)}")
