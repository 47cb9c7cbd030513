"""Roles of the kinds that pgresults grants, for as long as a test needs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import URL

from pgresults.sql.grants import Kind, granting
from tests.support.database import psycopg_url


@contextmanager
def logged_in(database: URL, kind: Kind) -> Iterator[URL]:
    """The URL of a database for a new role of a kind, which is dropped at the end."""
    name = f"pgresults_{kind}_{uuid4().hex[:8]}"
    with psycopg.connect(psycopg_url(database), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        admin.execute(granting("pgresults", name, kind))
        yield database.set(username=name, password="x")
        admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))
