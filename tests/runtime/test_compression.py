"""Packed bodies: bombs, cuts, garbage, and what clients accept."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.errors import InvalidRequest, RequestError, RequestTooLarge, UnsupportedEncoding
from openclaw.serving.compression import CODINGS, WORTHWHILE, compress, decompress, negotiate

LIMIT = 1 << 20


def bare(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(data) + machine.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    " GZip ": gzip.compress,
    "deflate": zlib.compress,
}


@given(st.lists(st.binary(max_size=300), max_size=4), st.sampled_from(CODINGS))
def test_what_is_packed_unpacks_to_the_same(parts: list[bytes], coding: str) -> None:
    assert decompress(compress(parts, coding), coding, max_bytes=LIMIT) == b"".join(parts)


@given(st.binary(max_size=2000), st.sampled_from(sorted(PACKERS)))
def test_what_others_pack_is_understood(data: bytes, encoding: str) -> None:
    assert decompress(PACKERS[encoding](data), encoding, max_bytes=LIMIT) == data


@given(st.binary(max_size=2000))
def test_others_understand_what_is_packed(data: bytes) -> None:
    assert gzip.decompress(compress([data], "gzip")) == data
    assert zlib.decompress(compress([memoryview(data)], "deflate")) == data


@given(st.binary(max_size=500))
def test_deflate_without_its_wrapper_is_understood(data: bytes) -> None:
    assert decompress(bare(data), "deflate", max_bytes=LIMIT) == data


@given(st.binary(max_size=300), st.sampled_from([*CODINGS, "identity", "br"]), st.integers(0, 400))
def test_any_bytes_are_refused_or_unpacked_within_the_limit(body: bytes, encoding: str, limit: int) -> None:
    try:
        unpacked = decompress(body, encoding, max_bytes=limit)
    except RequestError as error:
        refused = error.status
    else:
        refused = 0
        assert encoding == "identity" or len(unpacked) <= limit
    assert refused in {0, 400, 413, 415}


@pytest.mark.parametrize("encoding", CODINGS)
def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(encoding: str) -> None:
    assert len(decompress(PACKERS[encoding](bytes(LIMIT)), encoding, max_bytes=LIMIT)) == LIMIT
    with pytest.raises(RequestTooLarge, match=f"unpacks to more than {LIMIT} bytes"):
        decompress(PACKERS[encoding](bytes(LIMIT + 1)), encoding, max_bytes=LIMIT)


@pytest.mark.parametrize("encoding", CODINGS)
def test_a_bomb_does_not_take_memory_beyond_the_limit(encoding: str) -> None:
    bomb = PACKERS[encoding](bytes(256 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            decompress(bomb, encoding, max_bytes=LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * LIMIT


@pytest.mark.parametrize("encoding", CODINGS)
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_body_that_is_cut_short_is_refused(encoding: str, size: int) -> None:
    packed = PACKERS[encoding](bytes(size))
    for kept in {0, 1, len(packed) // 2, len(packed) - 1}:
        with pytest.raises(InvalidRequest, match=r"cut short|is not deflate"):
            decompress(packed[:kept], encoding, max_bytes=LIMIT)


@pytest.mark.parametrize("encoding", CODINGS)
@pytest.mark.parametrize("garbage", [b"x", b"x" * 200_000, gzip.compress(b"again")])
def test_what_follows_the_end_is_refused(encoding: str, garbage: bytes) -> None:
    with pytest.raises(InvalidRequest, match=f"follow the end of the body's {encoding} data"):
        decompress(PACKERS[encoding](b"{}") + garbage, encoding, max_bytes=LIMIT)


@pytest.mark.parametrize("encoding", CODINGS)
def test_what_is_not_packed_is_refused(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match=f"the body is not {encoding}, as Content-Encoding says"):
        decompress(b'{"inputs": []}', encoding, max_bytes=LIMIT)


def test_a_damaged_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(b"data"))
    packed[-6] ^= 1
    with pytest.raises(InvalidRequest, match="incorrect data check"):
        decompress(packed, "gzip", max_bytes=LIMIT)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip;q=1", "*", "g" * 1000])
def test_other_codings_are_not_supported(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="allowed: one of gzip, deflate and identity") as refusal:
        decompress(b"", encoding, max_bytes=LIMIT)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip; q=0.5 ,deflate ;q=0.501", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate;q=0.001", "deflate"),
        ("gzip;q=0.5, identity;q=0.4", "gzip"),
        ("gzip;q=0.5, identity;q=0.5", None),
        ("gzip;q=0.5, identity", None),
        ("identity;q=0, *", "gzip"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("br, zstd", None),
        ("gzip;q=2", None),
        ("gzip;q=0.1234", None),
        ("gzip;level=9", None),
        (",,;,gzip", "gzip"),
    ],
)
def test_the_coding_that_the_client_weighs_most_is_chosen(accepted: str | None, coding: str | None) -> None:
    assert negotiate(accepted, content_type="application/json", size=WORTHWHILE + 1) == coding


def test_small_and_binary_answers_stay_as_they_are() -> None:
    assert negotiate("gzip", content_type="application/json", size=WORTHWHILE) is None
    assert negotiate("gzip", content_type="application/octet-stream", size=1 << 20) is None
    assert negotiate("gzip", content_type="text/plain; version=0.0.4", size=1 << 20) == "gzip"


@given(st.text(max_size=40))
def test_any_header_is_read(accepted: str) -> None:
    assert negotiate(accepted, content_type="application/json", size=1 << 20) in {None, *CODINGS}
