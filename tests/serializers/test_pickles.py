"""Pickles: raw, in base64, compressed."""

import base64
import bz2
import lzma
import pickle
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgresults.serializers import CompressedPickleSerializer, CompressedSerializer, PickleSerializer


@given(st.one_of(st.binary(), st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_plain_values_are_pickled_as_cloudpickle_does(obj: Any) -> None:
    assert PickleSerializer().dumps(obj) == cloudpickle.dumps(obj)


def test_payloads_are_raw() -> None:
    content = bytes(range(256)) * 40
    payload = PickleSerializer().dumps(content)
    assert payload.startswith(b"\x80")
    assert content in payload
    assert lzma.decompress(CompressedPickleSerializer().dumps(content)) == payload


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(obj=st.one_of(st.none(), st.integers(), st.text(), st.lists(st.binary())))
def test_pickles_load_raw_and_in_base64(protocol: int, obj: Any) -> None:
    blob = pickle.dumps(obj, protocol=protocol)
    assert PickleSerializer().loads(blob) == obj
    assert PickleSerializer().loads(base64.encodebytes(blob)) == obj
    assert PickleSerializer().loads(base64.b64encode(blob)) == obj


@given(obj=st.one_of(st.none(), st.integers(), st.text(), st.lists(st.binary())))
def test_compressed_payloads_load_with_base64_within_base64(obj: Any) -> None:
    inner = base64.encodebytes(pickle.dumps(obj))
    outer = base64.encodebytes(bz2.compress(inner))
    assert CompressedSerializer(serializer="pickle", compressionlib="bz2").loads(outer) == obj
