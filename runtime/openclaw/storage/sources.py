"""Opens a remote model as a stream of chunks; every store's errors become the errors of this package.

Buckets go through obstore, which signs, retries and resumes. Plain web servers go through aiohttp:
obstore's HTTP store drops the query that a signed URL lives by, and refuses answers without a length.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from openclaw.storage.download import Download, Validators
from openclaw.storage.uri import BUCKETS, ModelUri


def open_source(uri: ModelUri, known: Validators | None) -> AbstractAsyncContextManager[Download]:
    """Opens ``uri`` for reading, asking only for what is newer than ``known``.

    Raises (on entering, and while reading):
        ModelNotFound, ModelAccessDenied, ModelDownloadFailed, ConfigInvalid.
    """
    # Each client takes longer to import than a local model takes to load.
    if uri.scheme in BUCKETS:
        from openclaw.storage import buckets

        return buckets.open_bucket(uri, known)
    from openclaw.storage import web

    return web.open_web(uri, known)
