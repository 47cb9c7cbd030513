"""An application that has psycopg adapt values in its own way: ours stay as they are."""

import subprocess
import sys

import pytest
from sqlalchemy import URL

from tests.support.database import psycopg_url

PROGRAM = """
import json, sys
from decimal import Decimal
import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.types.json import set_json_dumps, set_json_loads
from sqlalchemy import create_engine
from pgresults import PostgresStorage, ResultStore, transaction
from tests.setups.test_settings import workout


class Wrong(Loader):
    def load(self, data):
        return "wrong"


class WrongBinary(Wrong):
    format = psycopg.pq.Format.BINARY


class WrongDumper(Dumper):
    def dump(self, value):
        return b"wrong"


def floats():
    set_json_loads(lambda text: json.loads(text, parse_int=float))


def decimals():
    set_json_loads(lambda text: json.loads(text, parse_float=Decimal))


def texts():
    set_json_loads(lambda text: text)
    set_json_dumps(lambda value: "{}")


def loaders():
    for name in ("uuid", "timestamptz", "bytea", "text", "int8", "bool", "jsonb", "numeric", "float8", "interval"):
        psycopg.adapters.register_loader(name, Wrong)
        psycopg.adapters.register_loader(name, WrongBinary)


def dumpers():
    import datetime, uuid
    for kind in (uuid.UUID, datetime.datetime, bytes, str, int, float, bool, list, dict):
        psycopg.adapters.register_dumper(kind, WrongDumper)


url, registered = sys.argv[1:]
globals()[registered]()
storage = PostgresStorage(url)
store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
workout(store)
with psycopg.connect(url) as connection, transaction("lent", store, connection=connection) as txn:
    txn.stage({"n": 1})
if registered not in ("loaders", "dumpers"):  # with those SQLAlchemy itself cannot connect
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), json_deserializer=lambda text: "wrong")
    with engine.begin() as connection, transaction("lent", store, connection=connection, overwrite=True) as txn:
        txn.stage({"n": 2})
store.touch("lent", None)
print(store.read("lent").metadata.version, store.verify().intact)
"""


@pytest.mark.parametrize(
    "registered",
    [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("floats", "decimals")), "texts", "loaders", "dumpers"],
)
def test_what_an_application_registers_is_its_own(fresh_url: URL, registered: str) -> None:
    command = [sys.executable, "-c", PROGRAM, psycopg_url(fresh_url), registered]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    versions = 1 if registered in {"loaders", "dumpers"} else 2
    assert (ended.stdout, ended.returncode) == (f"{versions} True\n", 0), ended.stderr
