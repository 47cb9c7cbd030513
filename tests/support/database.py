"""The tests' databases: their URLs, and the sessions in them."""

from sqlalchemy import URL


def psycopg_url(url: URL) -> str:
    """The URL as psycopg takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
