"""The runtime folder: what one instance of local mode keeps on disk, and who may run in it.

daemon.lock   held while a daemon runs; tells its process      control.sock   its control API
daemon.log    what it logs                                      envoy/         the gateway's configuration
pods/         files of each pod                                 logs/          their output
"""

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from openclaw_operator.local.failures import HomeError
from openclaw_operator.local.launch import MARKER, Room
from openclaw_operator.local.liveness import have_ended
from openclaw_operator.local.moments import clock

_MAX_SOCKET_PATH = 100  # bytes; the kernel allows 107, unix(7), macOS 103
_KEPT_LOGS = 8
_END_SECONDS = 5.0
_ATTEMPTS = 5
_POLL_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon."""

    pid: int
    port: int


class Home:
    """One runtime folder. The lock is the kernel's, so it cannot outlive the process that holds it."""

    def __init__(self, folder: Path, *, cache: Path) -> None:
        """
        Args:
            folder: The folder; made when first needed.
            cache: The user's cache of models.
        """
        self.folder = folder
        self.cache = cache
        self.envoy = folder / "envoy"
        self.control = folder / "control.sock"
        self.daemon_log = folder / "daemon.log"
        self._lock_file = folder / "daemon.lock"
        self._lock: int | None = None

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> Self:
        """The user's own, by the XDG base directories; `OPENCLAW_LOCAL_DIR` names another.

        Raises:
            HomeError: its path is too long to hold a socket.
        """
        user = Path(environment.get("HOME") or Path.home())
        state = Path(environment.get("XDG_STATE_HOME") or user / ".local" / "state")
        caches = Path(environment.get("XDG_CACHE_HOME") or user / ".cache")
        folder = Path(environment.get("OPENCLAW_LOCAL_DIR") or state / "openclaw" / "local").absolute()
        cache = Path(environment.get("OPENCLAW_CACHE_DIR") or caches / "openclaw").absolute()
        if len(os.fsencode(folder / "envoy" / "admin.sock")) > _MAX_SOCKET_PATH:
            raise HomeError(
                f"{folder}: the path is too long for a socket in it: set OPENCLAW_LOCAL_DIR to one of at most "
                f"{_MAX_SOCKET_PATH - len('/envoy/admin.sock')} bytes, as in OPENCLAW_LOCAL_DIR=/tmp/openclaw"
            )
        return cls(folder, cache=cache)

    def room(self, namespace: str, pod: str) -> Room:
        """The folders of a pod."""
        return Room(folder=self.folder / "pods" / f"{namespace}.{pod}", cache=self.cache, marker=self.folder)

    def logs(self, namespace: str, service: str) -> Path:
        """The folder with the output of a service's pods, a file each."""
        return self.folder / "logs" / f"{namespace}.{service}"

    def log(self, namespace: str, service: str, pod: str) -> Path:
        """The file with the output of a pod. Files of pods long gone are removed."""
        folder = self.logs(namespace, service)
        running = {path.name for path in (self.folder / "pods").glob("*")}
        gone = [
            file for file in folder.glob("*.log*") if f"{namespace}.{file.name.partition('.log')[0]}" not in running
        ]
        for file in sorted(gone, key=lambda each: each.stat().st_mtime)[:-_KEPT_LOGS]:
            file.unlink(missing_ok=True)
        return folder / f"{pod}.log"

    def discard(self, room: Room) -> None:
        """Removes the files of a pod that is gone."""
        shutil.rmtree(room.folder, ignore_errors=True)

    def prepare(self) -> None:
        """Makes the folder, for this user alone.

        Raises:
            HomeError: it cannot be made, is open to others, or holds files of somebody else's.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = self.folder.stat()
            foreign = not self._lock_file.exists() and any(self.folder.iterdir())
        except OSError as error:
            raise HomeError(
                f"{self.folder} cannot be used: {error.strerror}: set OPENCLAW_LOCAL_DIR to a folder of yours"
            ) from error
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise HomeError(f"{self.folder} is open to other users: chmod 700 it, or set OPENCLAW_LOCAL_DIR to another")
        if foreign:
            raise HomeError(f"{self.folder} holds other files: set OPENCLAW_LOCAL_DIR to an empty folder")
        self._lock_file.touch(mode=0o600)

    async def acquire(self) -> bool:
        """Takes the folder for this process until it ends or cleans it. Returns False where a daemon has it."""
        for _ in range(_ATTEMPTS):
            if self._try_to_acquire():
                return True
            await asyncio.sleep(_POLL_SECONDS)  # somebody may merely have asked whether it is held
        return False

    def _try_to_acquire(self) -> bool:
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file since it was opened here.
            held = self._lock_file.exists() and os.path.samestat(os.fstat(lock), self._lock_file.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        if held:
            self._lock = lock
        else:
            os.close(lock)
        return held

    def announce(self, port: int) -> None:
        """Writes who holds the folder, and the gateway's port."""
        assert self._lock is not None
        told = json.dumps({"pid": os.getpid(), "port": port, "since": clock()}).encode()
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, told, 0)

    def daemon(self) -> Daemon | None:
        """The daemon that holds the folder, None where there is none: a file that nobody holds is stale."""
        try:
            lock = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            told = json.loads(os.pread(lock, 4096, 0) or b"{}")
            return Daemon(int(told.get("pid", 0)), int(told.get("port", 0)))
        finally:
            os.close(lock)
        return None

    @property
    def is_left(self) -> bool:
        """Whether a daemon's files are there; without a daemon they are those of one that was killed."""
        return self._lock_file.exists()

    def members(self) -> list[psutil.Process]:
        """Processes that were started for this folder: servers, their children, the gateway."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARKER) == str(self.folder):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    async def clean(self) -> int:
        """Ends what a daemon that is gone has left behind, and removes the folder's files.

        Does nothing where another process holds the folder, or where it is none of local mode's.

        Returns:
            How many processes had to be ended.
        """
        if not self._lock_file.exists() or (self._lock is None and not await self.acquire()):
            return 0
        orphans = await asyncio.to_thread(self.members)
        for process in orphans:
            _kill(process)
        await have_ended(orphans, within=_END_SECONDS)
        await asyncio.to_thread(self._remove)
        return len(orphans)

    def _remove(self) -> None:
        for name in ("envoy", "pods", "logs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        # The lock last: until then nobody else begins here.
        for file in (self.control, self.daemon_log, self._lock_file):
            file.unlink(missing_ok=True)
        assert self._lock is not None
        os.close(self._lock)
        self._lock = None
        # The folder above is ours only where we named it.
        ours = [self.folder.parent] if self.folder.parent.name == "openclaw" else []
        for folder in (self.folder, *ours):
            try:
                folder.rmdir()
            except OSError:  # somebody else's files are in it
                break


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
