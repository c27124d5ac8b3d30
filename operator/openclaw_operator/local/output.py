"""The output of a service's pods, from the files that it is written to."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

_POLL_SECONDS = 0.2


class Output:
    """The output of all pods of a service, oldest pod first."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: Where the pods' files lie.
        """
        self._folder = folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[str]:
        """Whole lines written since the last call; with the pod's name in front where there are several."""
        files = sorted(self._folder.glob("*.log"), key=lambda file: (file.stat().st_ctime, file.name))
        for file in files:
            prefix = f"{file.stem} | " if len(files) > 1 else ""
            for line in self._lines(file):
                yield prefix + line

    async def follow(self) -> AsyncIterator[str]:
        """Lines as they are written, until the folder is removed."""
        while self._folder.exists():
            for line in self.news():
                yield line
            await asyncio.sleep(_POLL_SECONDS)

    def _lines(self, file: Path) -> Iterator[str]:
        try:
            with file.open("rb") as opened:
                opened.seek(self._read.get(file, 0))
                written = opened.read()
        except FileNotFoundError:
            return
        whole = written[: written.rfind(b"\n") + 1]
        self._read[file] = self._read.get(file, 0) + len(whole)
        yield from whole.decode(errors="replace").splitlines()
