"""Who may do what with a schema, and whether any kind of role gives that."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pgresults.operations.requests import Row
from pgresults.sql.grants import allowed

_WHOLE = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"))
_EVIDENCE = ("history", "payload", "result")
_EVERYBODY = 0


def beyond(grants: Iterable[Row], should: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What roles may do that no kind of role grants, and that is no owner's; everybody may read views and no more."""
    rows = list(grants)
    owners = _owners(rows)
    functions = {signature.partition("(")[0] for signature in should["function"]}
    tables = should["table"].keys() | should["view"].keys() | should["sequence"].keys()
    for sort, name, column, privilege, number, role in rows:
        who = "everybody" if number == _EVERYBODY else repr(role)
        where = name if column is None else f"{name} ({column})"
        if sort == "schema":
            fine = privilege == "USAGE"
        elif name not in (functions if sort == "function" else tables):
            continue
        elif number == _EVERYBODY:
            fine = privilege == "SELECT" and name in should["view"]
        elif name in should["sequence"] and privilege == "USAGE":
            fine = True  # as earlier upgrades gave it: to draw numbers leaves some out
        else:
            fine = role in owners or allowed(name, column, privilege)
        if not fine:
            yield f"{who} may {privilege} on {where}, which `pgresults db grant` gives to none but an owner"


def _owners(grants: Iterable[Row]) -> set[str]:
    """Who may do everything with the tables that nobody else changes as they like."""
    held: dict[str, dict[str, set[str]]] = {}
    for sort, name, column, privilege, number, role in grants:
        if sort == "table" and column is None and number != _EVERYBODY:
            held.setdefault(role, {}).setdefault(name, set()).add(privilege)
    return {role for role, on in held.items() if all(on.get(table, set()) >= _WHOLE for table in _EVIDENCE)}
