"""Tensors in shared memory: regions, their bounds, and clients that cut them short."""

from __future__ import annotations

import gc
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import shared_memory

from openclaw.errors import InvalidRequest, OverBudget, RequestTooLarge
from openclaw.execute.session import Model
from openclaw.memory.accounting import Account, Level, State
from openclaw.memory.pool.objects import ObjectPool
from openclaw.serving.protocol import InferResponse, Tensor, bind, decode_request, encode_response
from openclaw.serving.sharedmemory import FOLDER, Regions

LIMIT = 1 << 20


@pytest.fixture
def regions() -> Regions:
    return Regions(max_bytes=LIMIT, max_regions=4)


@pytest.fixture
def make() -> Iterator[Callable[[bytes], str]]:
    """Makes a shared memory object with some content; gives its key."""
    paths: list[Path] = []

    def create(content: bytes) -> str:
        paths.append(FOLDER / f"openclaw-test-{secrets.token_hex(8)}")
        paths[-1].write_bytes(content)
        return f"/{paths[-1].name}"

    yield create
    for path in paths:
        path.unlink(missing_ok=True)


def tensor_in(region: str, **parameters: object) -> dict[str, object]:
    names = {f"shared_memory_{key}": value for key, value in {"region": region, **parameters}.items()}
    return {"parameters": names}


def request_of(parameters: dict[str, object], **fields: object) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], **parameters}
    return orjson.dumps({"inputs": [tensor], **fields})


def test_a_model_reads_its_input_from_shared_memory_and_writes_its_output_there(models: Any, regions: Regions) -> None:
    """With the shared memory that tritonclient makes."""
    numbers = np.array([[1.5, -2.0]], np.float32)
    segment = shared_memory.create_shared_memory_region("both", f"/openclaw-test-{secrets.token_hex(8)}", 64)
    try:
        shared_memory.set_shared_memory_region(segment, [numbers])
        regions.register("both", key=segment._shm_key, byte_size=64)
        output = {"name": "y", **tensor_in("both", offset=16, byte_size=48)}
        body = request_of(tensor_in("both", byte_size=8), outputs=[output])
        request = decode_request(body, regions=regions)
        model = Model.from_file(models.identity(1))
        arrays, (wanted,) = bind(request, model.signature)
        (result,) = model.infer([wanted.name], arrays)
        tensor = Tensor(wanted.name, "FP32", result, wanted.binary, region=wanted.region)
        encoded = encode_response(InferResponse("m", "1", (tensor,)))
        got = shared_memory.get_contents_as_numpy(segment, np.float32, (1, 2), 16).copy()
    finally:
        shared_memory.destroy_shared_memory_region(segment)
    np.testing.assert_array_equal(got, numbers)
    assert encoded.header_length is None
    assert orjson.loads(encoded.body)["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], **tensor_in("both", offset=16, byte_size=8)}
    ]


def test_an_input_does_not_change_once_it_is_read(regions: Regions, make: Callable[[bytes], str]) -> None:
    key = make(b"\0" * 8)
    regions.register("r", key=key, byte_size=8)
    array = decode_request(request_of(tensor_in("r", byte_size=8)), regions=regions).inputs[0].array
    (FOLDER / key[1:]).write_bytes(b"\x01" * 8)
    np.testing.assert_array_equal(array, np.zeros((1, 2), np.float32))


def test_an_object_that_was_cut_short_is_refused_and_does_not_end_the_process(
    regions: Regions, make: Callable[[bytes], str]
) -> None:
    key = make(b"\0" * 8)
    regions.register("r", key=key, byte_size=8)
    output = {"name": "y", **tensor_in("r", byte_size=8)}
    request = decode_request(request_of(tensor_in("r", byte_size=8), outputs=[output]), regions=regions)
    os.truncate(FOLDER / key[1:], 4)
    with pytest.raises(InvalidRequest, match='region "r" ends early'):
        decode_request(request_of(tensor_in("r", byte_size=8)), regions=regions)
    assert request.outputs is not None
    tensor = Tensor("y", "FP32", np.zeros((1, 2), np.float32), region=request.outputs[0].region)
    with pytest.raises(InvalidRequest, match='region "r" ends early'):
        encode_response(InferResponse("m", "1", (tensor,)))
    assert (FOLDER / key[1:]).stat().st_size == 4


def test_an_output_larger_than_its_window_is_refused_and_nothing_is_written(
    regions: Regions, make: Callable[[bytes], str]
) -> None:
    key = make(b"\x07" * 16)
    regions.register("r", key=key, byte_size=16)
    window = regions.window("r", offset=4, size=4, where="output")
    tensor = Tensor("y", "FP32", np.zeros(2, np.float32), region=window)
    with pytest.raises(InvalidRequest, match='tensor "y" has 8 bytes; shared_memory_byte_size in region "r" is 4'):
        encode_response(InferResponse("m", "1", (tensor,)))
    assert (FOLDER / key[1:]).read_bytes() == b"\x07" * 16


def test_regions_are_listed_and_forgotten(regions: Regions, make: Callable[[bytes], str]) -> None:
    key = make(b"\0" * 16)
    regions.register("a", key=key, offset=8, byte_size=8)
    regions.register("b", key=key.removeprefix("/"), byte_size=16)
    a = {"name": "a", "key": key, "offset": 8, "byte_size": 8}
    b = {"name": "b", "key": key[1:], "offset": 0, "byte_size": 16}
    assert regions.status() == [a, b]
    assert regions.status("a") == [a]
    regions.unregister("a")
    regions.unregister("a")
    assert regions.status() == [b]
    regions.unregister()
    assert regions.status() == []
    with pytest.raises(InvalidRequest, match='there is no shared memory region "b"'):
        regions.status("b")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_file_stays_open_after_a_refusal_or_once_a_region_is_forgotten(
    regions: Regions, make: Callable[[bytes], str]
) -> None:
    key = make(b"\0" * 16)
    gc.collect()
    before = open_files()
    with pytest.raises(InvalidRequest):
        regions.register("r", key=key, byte_size=17)
    with pytest.raises(InvalidRequest):
        regions.register("r", key=".", byte_size=17)
    regions.register("r", key=key, byte_size=16)
    window = regions.window("r", offset=0, size=4, where="x")
    regions.unregister()
    assert bytes(window.read()) == b"\0" * 4
    del window
    gc.collect()
    assert open_files() == before


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"key": 7}, "key is 7; the name of a shared memory object"),
        ({"key": ""}, 'key is ""; allowed: 1 to 255 bytes without a slash'),
        ({"key": "/"}, "without a slash"),
        ({"key": "//x"}, "without a slash"),
        ({"key": "../../etc/passwd"}, "without a slash"),
        ({"key": ".."}, "without a slash"),
        ({"key": "a\0b"}, "without a slash"),
        ({"key": "é" * 128}, "without a slash"),
        ({"key": "sem.x"}, "names that begin with sem. are semaphores"),
        ({"key": "openclaw-is-not-there"}, "cannot be opened: No such file or directory"),
        ({"byte_size": None}, "byte_size is missing; a number of bytes from 1"),
        ({"byte_size": 0}, "byte_size is 0"),
        ({"byte_size": True}, "byte_size is true"),
        ({"byte_size": 17}, "has 16 bytes; offset 0 and byte_size 17 exceed them"),
        ({"byte_size": 2**63 - 1, "offset": 2**63 - 1}, "exceed them"),
        ({"byte_size": 2**63}, "byte_size is 9223372036854775808"),
        ({"offset": -1}, "offset is -1; a number of bytes from 0"),
        ({"offset": 1.0}, "offset is 1.0"),
        ({"name": ""}, "name has 0 characters; allowed: 1 to 255"),
        ({"name": "n" * 256}, "name has 256 characters"),
    ],
)
def test_a_wrong_registration_is_refused(
    regions: Regions, make: Callable[[bytes], str], fields: dict[str, Any], says: str
) -> None:
    given_ = {"name": "r", "key": make(b"\0" * 16), "offset": 0, "byte_size": 16, **fields}
    with pytest.raises(InvalidRequest) as refusal:
        regions.register(given_.pop("name"), **given_)
    assert says in str(refusal.value)
    assert regions.status() == []


def test_a_name_is_taken_once_and_there_are_not_too_many(regions: Regions, make: Callable[[bytes], str]) -> None:
    key = make(b"\0" * 8)
    regions.register("0", key=key, byte_size=8)
    with pytest.raises(InvalidRequest, match='region "0" is registered already'):
        regions.register("0", key=key, byte_size=8)
    for number in range(1, 4):
        regions.register(str(number), key=key, byte_size=8)
    with pytest.raises(InvalidRequest, match="4 shared memory regions are registered; no more"):
        regions.register("4", key=key, byte_size=8)


def test_what_is_no_shared_memory_object_is_refused(tmp_path: Path) -> None:
    regions = Regions(max_bytes=LIMIT, folder=tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(b"12345678")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for key in ("folder", "link", "pipe"):
        with pytest.raises(InvalidRequest, match=r"cannot be opened|is not a shared memory object"):
            regions.register("r", key=key, byte_size=4)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (tensor_in("s", byte_size=8), 'there is no shared memory region "s"'),
        (tensor_in("r"), 'input "x": shared_memory_byte_size is missing'),
        (tensor_in("r", byte_size=9), "exceed region"),
        (tensor_in("r", byte_size=8, offset=1), "shared_memory_offset 1 and shared_memory_byte_size 8 exceed region"),
        (tensor_in("r", byte_size=8, offset=-1), "shared_memory_offset is -1"),
        (tensor_in("r", byte_size=4), "binary_data_size is 4; FP32 of shape [1, 2] takes 8 bytes"),
        (tensor_in(7, byte_size=8), "shared_memory_region is 7; a string"),  # type: ignore[arg-type]
        ({"data": [1, 2], **tensor_in("r", byte_size=8)}, "both data and parameters.shared_memory_region"),
    ],
)
def test_a_wrong_window_is_refused(
    regions: Regions, make: Callable[[bytes], str], parameters: dict[str, object], says: str
) -> None:
    regions.register("r", key=make(b"\0" * 8), byte_size=8)
    with pytest.raises(InvalidRequest) as refusal:
        decode_request(request_of(parameters), regions=regions)
    assert says in str(refusal.value)


def test_an_object_that_claims_to_be_huge_takes_no_memory(regions: Regions, make: Callable[[bytes], str]) -> None:
    key = make(b"")
    os.truncate(FOLDER / key[1:], LIMIT + 4)
    regions.register("r", key=key, byte_size=LIMIT + 4)
    body = request_of({"shape": [1, LIMIT // 4 + 1], **tensor_in("r", byte_size=LIMIT + 4)})
    with pytest.raises(RequestTooLarge, match=f"shared_memory_byte_size is {LIMIT + 4}; at most {LIMIT} are allowed"):
        decode_request(body, regions=regions)


JSONISH = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())


@given(JSONISH, JSONISH | st.integers(0, 20), JSONISH | st.integers(0, 20))
def test_any_registration_is_refused_or_lies_in_the_object(key: Any, offset: Any, size: Any) -> None:
    regions = Regions(max_bytes=LIMIT)
    path = FOLDER / f"openclaw-test-{os.getpid()}-{threading.get_ident()}"
    path.write_bytes(bytes(range(16)))
    try:
        regions.register("r", key=path.name if key is None else key, offset=offset, byte_size=size)
    except InvalidRequest:
        assert regions.status() == []
    else:
        window = regions.window("r", offset=0, size=size, where="x")
        assert bytes(window.read()) == bytes(range(16))[offset : offset + size]
    finally:
        path.unlink()


def test_regions_and_what_is_read_of_them_are_on_the_account(make: Callable[[bytes], str]) -> None:
    size = 128 * 1024
    account = Account(2 * size)
    regions = Regions(max_bytes=LIMIT, pool=ObjectPool(account))
    regions.register("one", key=make(bytes(size)), byte_size=size)
    assert account.used(Level.SHARED) == size
    with pytest.raises(OverBudget):
        regions.register("two", key=make(bytes(size + 1)), byte_size=size + 1)
    assert [region["name"] for region in regions.status()] == ["one"]
    window = regions.window("one", offset=0, size=size, where="input x")
    data = np.frombuffer(window.read(), np.uint8)
    assert account.used(Level.OBJECTS, state=State.USED) == size
    with pytest.raises(OverBudget):
        window.read()
    del data, window
    regions.unregister("one")
    gc.collect()
    assert account.used(Level.SHARED) == 0
    regions.register("two", key=make(bytes(size + 1)), byte_size=size + 1)
    assert account.used() == size + 1
