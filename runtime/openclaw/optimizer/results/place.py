"""Where results are shared: a folder, or the part of an object store that begins with a prefix."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions as store_errors
from obstore.store import LocalStore

from openclaw.errors import ConfigInvalid
from openclaw.storage import uri as uris
from openclaw.storage.buckets import open_store

FAILURES = (store_errors.BaseError, OSError)
"""What a store raises that does not answer, or refuses."""


@dataclass(frozen=True)
class Place:
    """One place.

    Attributes:
        store: as obstore has it.
        prefix: of every object's name in it; empty, or ends in a slash.
    """

    store: Any
    prefix: str = ""

    def path(self, name: str) -> str:
        """The name of an object of ours in the store."""
        return self.prefix + name


def open_place(where: str | Path, *, timeout: float = 86400.0) -> Place:
    """Opens a folder (made where it is missing) or a URI; nothing is asked of an object store yet.

    Args:
        where: the folder or URI.
        timeout: seconds for one request to a store; it is tried up to three times.

    Raises:
        ConfigInvalid: it is no folder that can be made, or no URI of a store that takes files.
    """
    text = str(where).rstrip("/")
    if isinstance(where, Path) or "://" not in text:
        return Place(_local(Path(text).expanduser()))
    try:
        uri = uris.parse(f"{text}/entry")
    except ConfigInvalid as error:
        raise ConfigInvalid(f"cache: {error}") from error
    folder = uri.path.removesuffix("entry")
    if uri.scheme == "file":
        return Place(_local(Path(folder)))
    if uri.scheme in uris.BUCKETS:
        return Place(open_store(uri, os.environ, timeout=timedelta(seconds=timeout)), folder)
    raise ConfigInvalid(
        f"cache: {uri.scheme}:// cannot be written to; allowed: a folder, file://, "
        f"{', '.join(f'{scheme}://' for scheme in uris.BUCKETS)}"
    )


def is_there(place: Place, name: str) -> bool:
    """Whether a place has an object of this name; raises one of ``FAILURES`` where it does not tell."""
    try:
        obstore.head(place.store, place.path(name))
    except FileNotFoundError:
        return False
    return True


def brief(error: Exception) -> str:
    """A store's error on one line, cut to what a log shows."""
    return " ".join(str(error).split())[:300]


def _local(folder: Path) -> LocalStore:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"cache: the folder {folder} cannot be made: {error.strerror}") from error
    return LocalStore(folder)
