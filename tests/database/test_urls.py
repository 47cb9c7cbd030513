"""URLs of databases: whatever libpq reads is understood as libpq understands it."""

from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

from pgresults.database.connections import connection_parameters
from pgresults.database.targets import url_of
from pgresults.errors import ConfigurationError
from pgresults.storage import PostgresStorage

OF_LIBPQ = [
    "postgresql://",
    "postgresql://u@/db",
    "postgresql://h/my%20db",
    "postgresql://[::1]:5433/db",
    "postgresql:///db?host=/var/run&port=5433",
    "postgresql://u@h1:5999,h2:5515/db",
    "postgresql://u@h1:,h2:5/db",
    "postgresql://u@h1,h2/db?target_session_attrs=read-write",
    "postgresql://u:p%40@[::1]:5432,[::2]/db",
    "postgresql://h1:1,h2:2/?dbname=x",
    "postgresql://u@%2Fvar%2Frun/db",
    "postgresql://u:p%2Fw@%2fvar%2frun:5433/db?application_name=a%2Cb",
    "postgresql://u:a,b@h/db",
    "postgresql://u:a%2Fb@h/db",
]


def _said(parameters: dict[str, Any]) -> dict[str, str]:
    """What of parameters names a database and who connects; missing ports are the default, as libpq has it."""
    names = ("host", "port", "dbname", "user", "password", "target_session_attrs", "application_name")
    said = {name: str(parameters[name]) for name in names if name in parameters}
    if not said.get("port", "").strip(","):
        said.pop("port", None)
    return said


@pytest.mark.parametrize("text", OF_LIBPQ)
@pytest.mark.parametrize("driver", ["", "+psycopg"])
def test_a_url_means_what_libpq_says(text: str, driver: str) -> None:
    given = text.replace("://", f"{driver}://", 1)
    ours = connection_parameters(url_of(given), connect_timeout=3)
    if "application_name" not in text:
        del ours["application_name"]
    assert _said(ours) == _said(dict(conninfo_to_dict(text)))


@pytest.mark.parametrize(
    "text", ["postgresql://u:p@x@h1,h2/db", "postgresql://[::1,h2/db", "postgresql://h1,h2/db?nothing=1", "postgresql"]
)
def test_what_is_no_url_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a database URL") as caught:
        url_of(text)
    assert "h2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_store_is_reached_by_the_second_of_two_hosts(shared_url: URL) -> None:
    host = str(shared_url.query.get("host") or shared_url.host)
    port = str(shared_url.query.get("port") or shared_url.port)
    user = f"{shared_url.username}" + (f":{shared_url.password}" if shared_url.password else "")
    nowhere = "%2Fnowhere:5999"
    text = f"postgresql://{user}@{nowhere},{host.replace('/', '%2F')}:{port}/{shared_url.database}"
    storage = PostgresStorage(text, name="by the second host")
    storage.write_path("key", b"payload")
    assert storage.read_path("key") == b"payload"
    storage.close()
