"""What a command needs a role for, said where the database refused it."""

import psycopg
from sqlalchemy.exc import DBAPIError

from pgresults.sql.grants import Kind

_NEEDS = {
    Kind.READER: ("get", "ls", "expiring", "locks", "storages", "export", "metrics"),
    Kind.WRITER: ("put", "rm", "touch", "hold", "import", "demo"),
    Kind.AUDITOR: (
        "show",
        "diff",
        "verify",
        "history",
        "log",
        "lineage",
        "explain",
        "prove",
        "evidence",
        "holds",
        "release",
    ),
    Kind.HISTORIAN: ("seal", "stats"),
    Kind.SWEEPER: ("sweep", "retain", "redact"),
}
"""The least kind of role with which a command works."""


def hint(command: str | None, error: BaseException) -> str:
    """The grant that a command lacks, where that is why it failed; else nothing."""
    kind = next((kind for kind, commands in _NEEDS.items() if command in commands), None)
    if kind is None or not is_forbidden(error):
        return ""
    return f" Here: `pgresults db grant ROLE --as {kind}`."


def is_forbidden(error: BaseException | None) -> bool:
    """Whether the database refused something to this role."""
    while error is not None:
        found = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(found, psycopg.errors.InsufficientPrivilege):
            return True
        error = error.__cause__
    return False
