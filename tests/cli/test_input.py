"""What comes in by standard input and by arguments: texts are UTF-8 in every locale, bytes are not taken for one."""

import os
import subprocess
from typing import Any

import pytest

from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, Cli, refused, succeeded

BINARY = {"latin": b"\xe4\xff", "PNG": b"\x89PNG\r\n\x1a\n", "UTF-16": "hi".encode("utf-16"), "half": b"\xed\xa0\x80"}
LOCALES = {
    "C": {"LC_ALL": "C"},
    "POSIX, no UTF-8 mode": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LC_ALL": "POSIX"},
    "Latin": {"PYTHONIOENCODING": "latin-1"},
    "UTF-8": {"LC_ALL": "C.UTF-8"},
}
DAILY = ("POSIX, no UTF-8 mode",)


@pytest.mark.parametrize(
    "locale", [pytest.param(name, marks=[] if name in DAILY else [pytest.mark.slow]) for name in LOCALES]
)
def test_bytes_are_no_text_in_any_locale(
    environment: dict[str, str], store: ResultStore, connection: Any, locale: str
) -> None:
    there = [str(PROGRAM), "--storage", store.result_storage.name]
    environment = {**environment, **LOCALES[locale]}
    binary = subprocess.run([*there, "put", "k", "-"], env=environment, input=b"\xe4\xff", capture_output=True)
    assert (binary.returncode, b"--file" in binary.stderr) == (2, True)
    text = "grün 🎉\r\n"
    subprocess.run([*there, "put", "k", "-"], env=environment, input=text.encode(), check=True)
    assert store.read("k").result == text
    query = "SELECT convert_from(data, 'UTF8')::jsonb #>> '{}' FROM pgresults.payload WHERE storage_id = %s"
    assert connection.execute(query, [store.result_storage.id]).fetchall() == [(text,)]
    raw = subprocess.run([*there, "get", "k", "--raw"], env=environment, capture_output=True, check=True)
    assert raw.stdout == text.encode()
    exported = subprocess.run([*there, "export"], env=environment, capture_output=True, check=True)
    assert b'"key":"k"' in exported.stdout
    argument = [os.fsencode(part) for part in (*there, "put", "k")] + [b"\xe4\xff"]
    assert subprocess.run(argument, env=environment, capture_output=True).returncode == 2
    assert len(store.history("k")) == 1


@pytest.mark.parametrize("content", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("option", [(), ("--json-value",)])
def test_binary_input_is_refused(cli: Cli, store: ResultStore, content: bytes, option: tuple[str, ...]) -> None:
    refused(cli("put", "k", "-", *option, stdin=content), code=2)
    assert not store.exists("k")


@pytest.mark.parametrize("document", [r'"\ud800"', r'{"\udcff": 1}', r'["a\u0000b"]', "NaN", "[-Infinity]", "1e999"])
def test_json_that_postgres_cannot_read_is_refused(cli: Cli, store: ResultStore, document: str) -> None:
    refused(cli("put", "k", document, "--json-value"), code=2)
    assert not store.exists("k")


@pytest.mark.parametrize("value", ["-5", "-0.5", "-.5e3", "-5 °C"])
def test_a_negative_number_is_a_value(cli: Cli, store: ResultStore, value: str) -> None:
    succeeded(cli("put", "k", value))
    assert store.read("k").result == value
    succeeded(cli("put", "-1", "x", "--tag", "-2"))
    assert store.find(tags=["-2"])[0].key == "-1"
    assert succeeded(cli("get", "-1")) == '"x"\n'
    assert succeeded(cli("rm", "k", "-1")) == "k: deleted\n-1: deleted\n"


def test_negative_numbers_are_json(cli: Cli, store: ResultStore) -> None:
    for arguments in (("-5", "--json-value"), ("--json-value", "-5"), ("--json-value", "--", "-5")):
        succeeded(cli("put", "k", *arguments))
        assert store.read("k").result == -5


def test_an_option_that_is_none_is_no_value(cli: Cli, store: ResultStore) -> None:
    for arguments in (["--expires-on"], ["x", "-j"], ["x", "--expires-in", "-5d"]):
        refused(cli("put", "k", *arguments), code=2)
    assert not store.exists("k")
