"""Results that go with the rows of a Django application, on Django's own connection."""

# ruff: noqa: PT012 (what fails is the end of a block)

from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import transaction as django_transaction
from django.db.utils import ConnectionHandler
from django.utils.connection import ConnectionProxy
from sqlalchemy import URL

from pgresults.errors import ConfigurationError
from pgresults.store import ResultStore
from pgresults.transactions import transaction


@pytest.fixture
def connection(shared_url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A connection of Django's as an application has it."""
    if not settings.configured:
        settings.configure()
        django.setup()
    of_django = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": shared_url.database,
        "USER": shared_url.username,
        "PASSWORD": shared_url.password or "",
        "HOST": shared_url.query.get("host") or shared_url.host,
        "PORT": str(shared_url.query.get("port") or shared_url.port or ""),
    }
    handler = ConnectionHandler({"default": of_django})
    monkeypatch.setattr(django_transaction, "get_connection", lambda using=None: handler[using or "default"])
    yield handler["default"]
    handler["default"].close()


def _row_and_result(connection: Any, store: ResultStore, key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS of_django (key text)")
        cursor.execute("INSERT INTO of_django VALUES (%s)", [key])
    with transaction(key=key, store=store, connection=connection) as txn:
        txn.stage({"of": key})


def _rows(connection: Any, key: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM of_django WHERE key = %s", [key])
        return int(cursor.fetchone()[0])


def test_a_result_goes_with_the_rows_of_an_atomic_block(connection: Any, store: ResultStore) -> None:
    with django_transaction.atomic():
        _row_and_result(connection, store, "kept")
        assert not store.exists("kept")
    assert store.read("kept").result == {"of": "kept"}
    assert _rows(connection, "kept") == 1


def test_what_django_takes_back_takes_the_result_along(connection: Any, store: ResultStore) -> None:
    with django_transaction.atomic():
        _row_and_result(connection, store, "outer")
        with pytest.raises(ZeroDivisionError), django_transaction.atomic():
            _row_and_result(connection, store, "inner")
            raise ZeroDivisionError
    assert store.exists("outer")
    assert not store.exists("inner")
    assert _rows(connection, "inner") == 0


def test_a_failed_write_leaves_the_rows_to_django(connection: Any, store: ResultStore) -> None:
    with django_transaction.atomic():
        _row_and_result(connection, store, "row")
        with pytest.raises(ZeroDivisionError), transaction(key="failed", store=store, connection=connection) as txn:
            txn.stage(1)
            raise ZeroDivisionError
    assert (_rows(connection, "row"), store.exists("failed")) == (1, False)


def test_outside_of_an_atomic_block_it_is_refused_with_advice(connection: Any, store: ResultStore) -> None:
    connection.ensure_connection()
    with (
        pytest.raises(ConfigurationError, match=r"inside of `transaction\.atomic\(\)`"),
        transaction(key="refused", store=store, connection=connection) as txn,
    ):
        txn.stage(1)
    assert not store.exists("refused")


def test_what_stands_for_a_connection_in_django_db_is_one(connection: Any, store: ResultStore) -> None:
    proxy = ConnectionProxy({"default": connection}, "default")
    with django_transaction.atomic():
        _row_and_result(proxy, store, "by proxy")
    assert store.exists("by proxy")
