"""The files that a running daemon serves: applied, watched, and applied again when they change."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import watchfiles

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.local.documents import Document, read
from openclaw_operator.local.failures import DocumentError
from openclaw_operator.names import Key, Ref

log = logging.getLogger(__name__)

MANAGER = "openclaw-local"
_SETTLE_MS = 200  # an editor writes a file in several steps


class Sources:
    """What the user declares, in files."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.files: tuple[Path, ...] = ()
        self.error = ""
        """Why the files as they are now could not be applied; what they said before stays in force."""
        self._cluster = cluster
        self._declared: frozenset[Key] = frozenset()
        self._more = asyncio.Event()
        self._lock = asyncio.Lock()

    async def add(self, files: Iterable[Path]) -> list[Key]:
        """Applies further files, and from now on watches them. Returns the services that they declare.

        Raises:
            DocumentError: one of all files cannot be used; nothing was changed.
        """
        given = list(files)
        async with self._lock:
            known = tuple(dict.fromkeys((*self.files, *given)))
            documents = await asyncio.to_thread(_read, known, given)
            await self._apply(documents)
            if known != self.files:
                self.files = known
                self._more.set()
        return [document.key for document in documents if document.file in given]

    async def watch(self) -> None:
        """Applies the files whenever they change, until cancelled."""
        while True:
            self._more.clear()
            if self.files:
                await self._watch(self.files)
            else:
                await self._more.wait()

    async def _watch(self, files: tuple[Path, ...]) -> None:
        # Folders, since an editor replaces a file by another one of its name.
        folders = {file.parent for file in files}
        changes = watchfiles.awatch(
            *folders,
            watch_filter=lambda _, path: Path(path) in files,
            recursive=False,
            debounce=_SETTLE_MS,
            step=_SETTLE_MS // 4,
            stop_event=self._more,
        )
        async for _ in changes:
            await self._reload()

    async def _reload(self) -> None:
        async with self._lock:
            try:
                await self._apply(await asyncio.to_thread(_read, self.files, []))
            except DocumentError as error:
                self.error = str(error)
                log.warning("the files are not applied: %s", error)

    async def _apply(self, documents: list[Document]) -> None:
        for document in documents:
            await self._cluster.apply(document.manifest, manager=MANAGER)
        declared = frozenset(document.key for document in documents)
        for key in self._declared - declared:
            service = self._cluster.get(Ref(names.SERVICE_KIND.name, key.namespace, key.name))
            if service:
                log.info("%s is deleted: no file declares it any more", key)
                await self._cluster.delete(service)
        self._declared = declared
        self.error = ""


def _read(files: Iterable[Path], needed: list[Path]) -> list[Document]:
    """The services that files declare. A file that is gone declares none, unless it is needed."""
    return read([file for file in files if file in needed or file.exists()])
