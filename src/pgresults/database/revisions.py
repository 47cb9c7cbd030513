"""Whether a schema is at the revision that this code is written for."""

from typing import Final

from pgresults.errors import SchemaVersionError
from pgresults.sql.schema import REVISION

UPGRADE: Final = "pgresults db upgrade"
"""The command that brings a schema to this code's revision."""


def require_current(found: str | None, schema: str) -> None:
    """Refuse a schema that this code is not written for.

    Raises: SchemaVersionError naming the command that mends it.
    """
    if found == REVISION:
        return
    fields = {"schema": schema, "found": found, "expected": REVISION}
    if found is not None and found > REVISION:
        raise SchemaVersionError(
            f"schema {schema!r} is at revision {found}, this version of pgresults knows up to {REVISION}: "
            "run `pip install --upgrade pgresults`",
            command="pip install --upgrade pgresults",
            **fields,
        )
    state = "has no tables of pgresults" if found is None else f"is at revision {found}, behind {REVISION}"
    raise SchemaVersionError(f"schema {schema!r} {state}: run `{UPGRADE}`", command=UPGRADE, **fields)
