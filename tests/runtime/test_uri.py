"""Model URIs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.errors import ConfigInvalid
from openclaw.storage.uri import SCHEMES, from_argument, parse


@pytest.mark.parametrize(
    ("text", "scheme", "authority", "path", "shown"),
    [
        ("s3://models/a/b c.onnx", "s3", "models", "a/b c.onnx", "s3://models/a/b c.onnx"),
        ("S3://models/a?b#c", "s3", "models", "a?b#c", "s3://models/a?b#c"),
        ("gs://m/x.onnx", "gs", "m", "x.onnx", "gs://m/x.onnx"),
        ("az://container/x.onnx", "az", "container", "x.onnx", "az://container/x.onnx"),
        ("https://u:p@host:8443/x.onnx?sig=1", "https", "host:8443", "x.onnx", "https://host:8443/x.onnx?..."),
        ("http://[::1]:80/x.onnx", "http", "[::1]:80", "x.onnx", "http://[::1]:80/x.onnx"),
        ("file:///a%20b/x.onnx", "file", "", "/a b/x.onnx", "file:///a b/x.onnx"),
        ("file://localhost/x.onnx", "file", "", "/x.onnx", "file:///x.onnx"),
    ],
)
def test_a_uri_is_taken_apart_and_shown_without_secrets(
    text: str, scheme: str, authority: str, *, path: str, shown: str
) -> None:
    uri = parse(text)
    assert (uri.scheme, uri.authority, uri.path, str(uri)) == (scheme, authority, path, shown)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no scheme; write s3://BUCKET/MODEL.onnx"),
        ("models/digits.onnx", "has no scheme"),
        ("ftp://host/x", "has the scheme 'ftp'; allowed: s3, gs, az, http, https, file"),
        ("s3://models", "names no object; write s3://BUCKET/FOLDER/MODEL.onnx"),
        ("s3:///x.onnx", "names no object"),
        ("s3://models/folder/", "names no object"),
        ("s3://key:secret@models/x", "names no object"),
        ("https:///x.onnx", "names no host or no file"),
        ("https://host/", "names no host or no file"),
        ("https://host:port/x", "is not a URL"),
        ("https://[::1/x", "is not a URL"),
        ("file://./x.onnx", "is not absolute; write file:///folder/model.onnx"),
        ("file://x.onnx", "is not absolute"),
        ("s3://models/a\nb", "holds a control character"),
    ],
)
def test_a_wrong_uri_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ConfigInvalid) as refusal:
        parse(text)
    assert says in str(refusal.value)


@given(st.text(max_size=60), st.sampled_from(["", *(f"{scheme}://" for scheme in SCHEMES)]))
def test_any_text_is_a_uri_or_a_sentence(text: str, prefix: str) -> None:
    try:
        uri = parse(prefix + text)
    except ConfigInvalid as refusal:
        sentence = str(refusal)
    else:
        assert uri.path
        assert uri.scheme in SCHEMES
        sentence = f"model uri {uri}"
    assert "model uri" in sentence


def test_a_path_is_seen_from_its_folder(tmp_path: Path) -> None:
    assert from_argument("a/x.onnx", tmp_path).path == f"{tmp_path}/a/x.onnx"
    assert from_argument("/a/x.onnx", tmp_path).path == "/a/x.onnx"
    assert from_argument("~/x.onnx", tmp_path).path == str(Path.home() / "x.onnx")
    assert from_argument("s3://m/x", tmp_path).scheme == "s3"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20))
def test_a_path_survives_being_a_uri(name: str) -> None:
    uri = from_argument(f"/models/{name}", Path("/"))
    if any(character < " " or character == "\x7f" for character in name) or "://" in uri.path:
        return
    assert parse(uri.text).path == uri.path
