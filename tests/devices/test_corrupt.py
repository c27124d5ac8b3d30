"""Whatever a machine's files say, its devices are listed."""

import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from openclaw.devices.device import Device
from openclaw.devices.inventory import read_devices
from openclaw.devices.tree import MOST_BYTES, Folder, natural
from support.recorded import NAMES, files, put

junk = st.one_of(
    st.binary(max_size=64),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
    st.integers(0, 2**70).map(lambda number: hex(number).encode()),
    st.sampled_from([b"", b"\n", b"max", b"-1", b"nan", b"1e9", b"0x", b"1_000", "²".encode(), b"\0", b"9" * 5000]),
)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, bytes | None]:
    """A recorded machine of which some files say something else, are gone, or are folders (None)."""
    found: dict[str, bytes | None] = dict(files(draw(st.sampled_from(NAMES))))
    paths = sorted(found)
    for path in draw(st.lists(st.sampled_from(paths), max_size=8, unique=True)):
        damage = draw(st.sampled_from(["junk", "gone", "folder", "cut", "line"]))
        content = found[path] or b""
        if damage == "junk":
            found[path] = draw(junk)
        elif damage == "gone":
            del found[path]
        elif damage == "folder":
            found[path] = None
        elif damage == "cut":
            found[path] = content[: draw(st.integers(0, len(content)))]
        else:
            lines = content.splitlines(keepends=True)
            lines.insert(draw(st.integers(0, len(lines))), draw(junk) + b"\n")
            found[path] = b"".join(lines)
    return found


def sane(device: Device) -> bool:
    numbers = (device.memory, device.memory_free)
    return (
        all(each is None or 0 <= each < 2**64 for each in numbers)
        and (device.memory is None or device.memory_free is None or device.memory_free <= device.memory)
        and (device.load is None or 0 <= device.load <= 1)
        and (device.cores is None or device.cores > 0)
        and bool(device.name and device.vendor and device.address)
        and all(text.isprintable() for text in (device.name, device.vendor, device.address, *device.notes))
    )


@given(machines())
def test_any_damage_leaves_a_list_that_makes_sense(machine: dict[str, bytes | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, content in machine.items():
            put(root, path.rstrip("/") + "/" if content is None else path, content or b"")
        devices = read_devices(root, installed=frozenset({"CPUExecutionProvider"}))
        assert [each for each in devices if not sane(each)] == []
        assert devices[-1].type == "CPU"
        assert devices[-1].obstacle is None


@given(junk, st.integers(0, 2**64))
def test_a_number_is_read_or_noted_but_never_larger_than_can_be(content: bytes, most: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "value").write_bytes(content)
        folder = Folder(Path(name))
        value = folder.number("value", most=most)
        assert (value is None) == bool(folder.notes)
        assert value is None or 0 <= value <= most


@given(st.lists(st.text(max_size=8)))
def test_names_can_always_be_sorted(names: list[str]) -> None:
    keys = [natural(name) for name in sorted(names, key=natural)]
    assert all(first <= second for first, second in pairwise(keys))


def test_numbers_in_names_count_as_numbers() -> None:
    assert sorted(["card10", "card2", "card"], key=natural) == ["card", "card2", "card10"]


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    assert Folder(tmp_path).text("pipe") is None


def test_only_the_beginning_of_a_huge_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"7" * (MOST_BYTES * 4))
    assert len(Folder(tmp_path).text("huge") or "") == MOST_BYTES
