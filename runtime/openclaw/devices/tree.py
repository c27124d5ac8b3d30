"""A machine's files (sysfs, procfs, device nodes) below one root, none of them trusted.

Drivers leave files out, refuse to be read while a device sleeps, and sometimes say nonsense. What is missing is None;
what is there and cannot be read, or makes no sense, is None too and leaves a sentence in the notes.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 1 << 16
"""Read of one file. An attribute of sysfs has a page at most (Linux: Documentation/filesystems/sysfs.rst)."""

MOST_NAMES = 4096
"""Entries of one folder that are looked at."""

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


@dataclass(frozen=True)
class Machine:
    """What devices are looked for in.

    Attributes:
        root: folder that holds ``sys``, ``proc`` and ``dev``.
        environ: variables that hide devices from this process, as CUDA_VISIBLE_DEVICES.
        architecture: that this process runs on, as uname(2) has it; empty: another machine's files do not tell.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""

    @property
    def is_this(self) -> bool:
        """Whether it is the machine that this process runs on, which can be asked in other ways than by files."""
        return self.root == Path("/")

    def folder(self, path: str) -> Folder:
        """A folder by its path without the leading slash; it need not exist."""
        return Folder(self.root / path)


class Folder:
    """The files of one device.

    Attributes:
        path: where they are.
        notes: sentences on what could not be understood, for whoever looks at the device.
    """

    def __init__(self, path: Path, notes: list[str] | None = None) -> None:
        self.path = path
        self.notes: list[str] = [] if notes is None else notes

    def inside(self, name: str) -> Folder:
        """A folder below, which writes into the same notes."""
        return Folder(self.path / name, self.notes)

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder is there, whatever it holds."""
        try:
            return os.path.exists(self.path / name)
        except ValueError:  # a NUL in the name
            return False

    def text(self, name: str) -> str | None:
        """What a file says, printable and on one line; None if it is missing, empty or unreadable."""
        data = self._read(name)
        if data is None:
            return None
        return printable(data.decode("utf-8", "replace")) or None

    def lines(self, name: str, most: int = MOST_BYTES) -> list[str]:
        """The lines of a file as far as its first ``most`` bytes go; none if it is missing or unreadable."""
        data = self._read(name, most)
        return [] if data is None else [printable(line) for line in data.decode("utf-8", "replace").splitlines()]

    def words(self, name: str) -> list[str]:
        """Strings of a property of the device tree, which a NUL ends (Devicetree Specification 2.2.4)."""
        data = self._read(name)
        words = [] if data is None else [printable(word) for word in data.decode("utf-8", "replace").split("\0")]
        return [word for word in words if word]

    def number(self, name: str, *, most: int) -> int | None:
        """A file's whole number, decimal or ``0x``; None and a note where it is not one up to ``most``.

        Args:
            name: the file.
            most: the largest that can be true.
        """
        data = self._read(name)
        if data is None:
            return None
        text = printable(data.decode("utf-8", "replace"))
        if _NUMBER.fullmatch(text):
            value = int(text, 16 if text[:2].lower() == "0x" else 10)
            if value <= most:
                return value
        self._note(f"{name} says {text[:40]!r}, which cannot be true")
        return None

    def fields(self, name: str, separator: str = "=") -> dict[str, str]:
        """``KEY=value`` lines, as in ``uevent``; lines of another form are passed over."""
        pairs = (line.partition(separator) for line in self.lines(name))
        return {key.strip(): value.strip() for key, found, value in pairs if found}

    def names(self, pattern: str = ".*") -> list[str]:
        """Entries that match the whole pattern, by their numbers where they have some: card2 before card10."""
        try:
            with os.scandir(self.path) as entries:
                found = [entry.name for entry, _ in zip(entries, range(MOST_NAMES), strict=False)]
        except (OSError, ValueError):
            return []
        return sorted((name for name in found if re.fullmatch(pattern, name)), key=natural)

    @property
    def driver(self) -> str | None:
        """The kernel's driver that has the device; None if none has."""
        return self.fields("uevent").get("DRIVER") or None

    def _read(self, name: str, most: int = MOST_BYTES) -> bytes | None:
        try:
            # A pipe in place of a file must not be waited for.
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            self._unreadable(name, error)
            return None
        try:
            return _upto(descriptor, most)
        except OSError as error:
            self._unreadable(name, error)
            return None
        finally:
            os.close(descriptor)

    def _unreadable(self, name: str, error: OSError) -> None:
        # A node without hardware behind it is as good as missing.
        if error.errno not in (errno.ENXIO, errno.ENODEV):
            self._note(f"{name} cannot be read: {error.strerror}")

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if position % 2 else (-1, part) for position, part in enumerate(parts)]


def _upto(descriptor: int, most: int) -> bytes:
    # procfs hands out a page or so at a time, whatever is asked for.
    data = b""
    while len(data) < most and (chunk := os.read(descriptor, most - len(data))):
        data += chunk
    return data


def printable(text: str) -> str:
    """The text on one line, with a space in place of whatever would move a cursor or cannot be seen."""
    flat = " ".join(text.split())
    if flat.isprintable():
        return flat
    return " ".join("".join(sign if sign.isprintable() else " " for sign in flat).split())
