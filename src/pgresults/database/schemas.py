"""Which schemas of a database hold tables of pgresults."""

from sqlalchemy import URL

from pgresults.database.asking import asking
from pgresults.sql.registry import SCHEMAS
from pgresults.sql.schema import SCHEMA


def schemas(url: URL) -> list[str]:
    """The names of the schemas with tables of ours, in order.

    Raises: StorageUnavailable; ConfigurationError.
    """
    with asking(url) as connection:
        return [name for (name,) in connection.execute(SCHEMAS.query(SCHEMA).text)]
