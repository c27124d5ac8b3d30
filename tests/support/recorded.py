"""Machines on record, laid out as folders again: see `tests/devices/trees/README.md`."""

from pathlib import Path

TREES = Path(__file__).parent.parent / "devices" / "trees"
NAMES = sorted(path.stem for path in TREES.glob("*.txt"))


def laid_out(name: str, at: Path) -> Path:
    """A recorded machine's root, made in an empty folder."""
    for path, content in files(name).items():
        put(at, path, content)
    return at


def put(root: Path, path: str, content: bytes) -> None:
    """One file, or a folder where the path ends with a slash."""
    target = root / path
    if path.endswith("/"):
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def files(name: str) -> dict[str, bytes]:
    """What is on record of a machine: path -> content."""
    found: dict[str, bytes] = {}
    for part in (TREES / f"{name}.txt").read_bytes().split(b"== ")[1:]:
        path, _, content = part.partition(b"\n")
        # Properties of the device tree have no line's end behind their last byte.
        found[path.decode()] = content.replace(b"\\0\n", b"\0").replace(b"\\0", b"\0")
    return found
