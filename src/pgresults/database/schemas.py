"""Which schemas of a database hold tables of pgresults."""

import psycopg
from sqlalchemy import URL

from pgresults.database.connections import Connection, connection_parameters
from pgresults.database.errors import translate
from pgresults.sql.schema import VERSION_TABLE

_CONNECT_TIMEOUT = 10.0
_RESPONSE_TIMEOUT = 30.0
_SCHEMAS = """
    SELECT nspname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE relname = %s AND relkind = 'r' ORDER BY nspname
"""


def schemas(url: URL) -> list[str]:
    """The names of the schemas with tables of ours, in order.

    Raises: StorageUnavailable; ConfigurationError.
    """
    try:
        with Connection.connect(**connection_parameters(url, connect_timeout=_CONNECT_TIMEOUT)) as connection:
            connection.response_timeout = _RESPONSE_TIMEOUT
            return [name for (name,) in connection.execute(_SCHEMAS, [VERSION_TABLE])]
    except psycopg.Error as error:
        raise translate(error, connected=False) from error
