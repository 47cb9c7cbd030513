"""Payloads as strings in Prefect's documents and back, in pieces that may end anywhere; it needs no Prefect."""

import base64
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgresults.integrations.prefect import strings
from pgresults.integrations.prefect.documents import put_together, take_apart
from pgresults.integrations.prefect.strings import from_base64, from_text, joined, to_base64, to_text
from pgresults.records.signing import Trust
from pgresults.serializers import PickleSerializer

MB = 1_000_000
TRUST = Trust(UUID(int=0))
ESCAPED = st.text(st.sampled_from(['"', "\\", "\n", "\x00", "u", "0", "é", "€", "😀", "a"]), max_size=60)
REFUSALS = "Extra data|Invalid|Unterminated|can't decode|not allowed"
LARGE = {
    "words": "words and words, " * 60_000,
    "escapes alone": '\\"' * 500_000,
    "four bytes a character": "😀" * 250_000,
    "characters of three bytes": "€" * 300_000,
    "backslashes": "\\" * 500_001,
    "halves of pairs beside escapes": '😀"\\' * 150_000,
}


@contextmanager
def pieces_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "_PIECE", size)
        yield


def between_quotes(document: str) -> memoryview:
    return memoryview(document.encode())[1:-1]


@pytest.mark.parametrize("ascii_alone", [True, False])
@given(text=ESCAPED, size=st.integers(1, 20))
@example(text="😀" * 10, size=6)
@example(text="\\" * 30, size=1)
def test_texts_come_back(ascii_alone: bool, text: str, size: int) -> None:
    with pieces_of(size):
        assert from_text(between_quotes(json.dumps(text, ensure_ascii=ascii_alone))) == text.encode()
        assert json.loads(b'"' + joined(to_text(text.encode())) + b'"') == text


@pytest.mark.parametrize("ascii_alone", [True, False])
@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_large_texts_come_back(text: str, ascii_alone: bool) -> None:
    assert from_text(between_quotes(json.dumps(text, ensure_ascii=ascii_alone))) == text.encode()
    assert json.loads(b'"' + joined(to_text(text.encode())) + b'"') == text


@given(st.binary(max_size=400), st.integers(1, 5))
def test_bytes_come_back(payload: bytes, third: int) -> None:
    with pieces_of(3 * third):
        encoded = joined(to_base64(payload))
    assert encoded == base64.b64encode(payload)
    for text in (encoded, json.dumps(base64.encodebytes(payload).decode())[1:-1].encode()):
        assert from_base64(memoryview(text)) == payload


@pytest.mark.parametrize(
    "text", [b'a"b', b"\x01", b"\\", b"\\x", b"\\u12", b"\xff", b'a","more":"b', b"\\ud83d", b'a\x00"\x00', b'"']
)
def test_what_is_no_string_is_refused(text: bytes) -> None:
    for size in (1, 2, 3, 1000):
        with pieces_of(size), pytest.raises(ValueError, match=REFUSALS):
            from_text(memoryview(text))


def document(serializer: str, text: str) -> bytes:
    metadata = {
        "storage_key": "k",
        "expiration": None,
        "serializer": {"type": serializer},
        "prefect_version": "3.9.1",
        "storage_block_id": None,
    }
    return json.dumps({"metadata": metadata, "result": text}, separators=(",", ":"), ensure_ascii=False).encode()


def peak_of(call: Callable[[], Any]) -> int:
    """How many bytes a call had allocated at once."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_large_payload_is_there_once(serializer: str) -> None:
    random = os.urandom(8 * MB)
    text = base64.encodebytes(random).decode() if serializer == "pickle" else '"é' * (3 * MB)
    content = document(serializer, text)
    payload, columns, _ = take_apart(content, "k")
    assert payload == (random if serializer == "pickle" else text.encode())
    assert peak_of(lambda: take_apart(content, "k")) < 1.3 * len(payload)
    said = {"provenance": None, **columns}
    assert json.loads(put_together(said, "k", payload, TRUST))["result"].replace("\n", "") == text.replace("\n", "")
    assert peak_of(lambda: put_together(said, "k", payload, TRUST)) < 1.3 * len(content)


def test_what_pgresults_wrote_needs_no_lines() -> None:
    """Base64 with lines is made of a small object for each of them."""
    serializer = PickleSerializer()
    payload = serializer.dumps(os.urandom(8 * MB))
    said = dict.fromkeys(("prefect_version", "expires_at", "storage_key", "storage_block_id", "provenance"))
    columns = {**said, "serializer": serializer.model_dump_json()}
    content = put_together(columns, "k", payload, TRUST)
    assert base64.b64decode(json.loads(content)["result"]) == payload
    assert peak_of(lambda: put_together(columns, "k", payload, TRUST)) < 2.2 * len(content)
