"""Whether the tables, functions and views of a schema are those that this revision ships.

What they should be stands in ``house.json``, which ``python -m tests.support.house`` makes of a schema that was
migrated from nothing. What a team adds is its own affair as long as it changes nothing of what is there.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import zip_longest
from typing import Any, TypeAlias

from pgresults.audit.checks import Finding
from pgresults.audit.rights import beyond
from pgresults.database.programs import Program, call, compute
from pgresults.operations.house import House, look
from pgresults.storage.postgres import PostgresStorage

Described: TypeAlias = dict[str, dict[str, Any]]
Shipped: TypeAlias = Mapping[str, Any]

FILE = "house.json"
_SHOWN = 160
_CONFINING = "result"
_AS_GOOD = ("A", "O")
_PROJECTING = (  # by `project_documents()`, which an operator calls
    "CREATE TRIGGER project_document AFTER INSERT OR UPDATE OF payload_id ON result "
    "FOR EACH ROW EXECUTE FUNCTION project_document()"
)
_UNIQUE = ": UNIQUE "


def describe(house: House, schema: str) -> dict[str, Described]:
    """What of a schema must be as it is, without the schema's name: by kind and name."""
    return {
        "function": {
            signature: {
                "language": language,
                "security": "definer" if definer else "invoker",
                "volatility": volatility,
                "strict": strict,
                "result": returns,
                "settings": sorted(_anonymous(one, schema) for one in settings or ()),
                "body": _anonymous(body, schema),
            }
            for _, signature, language, definer, volatility, strict, returns, settings, body, *_ in house.functions
        },
        "table": {
            name: {"persistence": persistence}
            for name, level, _, _, kind, persistence, *_ in house.relations
            if level == 0 and kind in "rp"
        },
        "view": {
            name: {"options": sorted(options or ()), "definition": _spaced(definition)}
            for name, level, _, _, kind, _, _, options, definition, *_ in house.relations
            if level == 0 and kind == "v"
        },
        "sequence": {name: {"numbers": numbers} for name, *_, numbers in house.relations if numbers is not None},
        "column": {
            f"{table}.{name}": {"required": required, "default": default, "made by": made, "collation": collation}
            for table, name, required, default, made, collation in house.columns
        },
        "trigger": {
            f"{table}.{name}": {"state": state, "definition": _spaced(definition)}
            for table, where, name, state, definition in house.triggers
            if _bare(where) == table
        },
        "key": {f"{table}: {definition}": {} for table, definition in house.keys},
        "index": {f"{table}: {definition}": {} for table, definition in house.indexes},
    }


@cache
def shipped() -> Shipped:
    """What this revision ships."""
    return json.loads(files("pgresults.audit").joinpath(FILE).read_text("utf-8"))  # type: ignore[no-any-return]


def inspect(storage: PostgresStorage, said: Collection[str] = ()) -> Program[tuple[list[Finding], list[str]]]:
    """What of a storage's schema is not as this revision ships it, and what could not be seen.

    Parameters:
        storage: whose schema.
        said: triggers, each as ``table.name``, of which somebody says already that they are not as they should be.
    """
    schema = storage.schema
    seen = yield from call(storage.database, lambda _: look(schema), atomic=True)
    if seen.is_spread:
        return [], [f"functions, triggers, views and rights of schema {schema!r}, which is spread over several servers"]
    unseen = [f"{part} of schema {schema!r}, without SELECT on {', '.join(of)}" for part, of in seen.unseen.items()]
    return (yield from compute(lambda: compare(seen, schema, said), small=False)), unseen


def is_of_speed(finding: Finding) -> bool:
    """Whether something is only slower than it should be."""
    return finding.kind == "index" and _UNIQUE not in finding.message


def compare(house: House, schema: str, said: Collection[str] = ()) -> list[Finding]:
    """What is not as this revision ships it: each with what is and what should be."""
    found: list[Finding] = []
    is_, should = describe(house, schema), shipped()
    for kind, those in should.items():
        for name, what in those.items() if _PARTS[kind] not in house.unseen else ():
            if name in said:
                continue
            if name in is_[kind]:
                found += _differing(kind, name, is_[kind][name], what, schema)
            else:
                found.append(_finding(kind, f"{name} is gone, and should be there"))
    found += _triggers(house, should, said)
    for part in (_functions, _tables, _rules, _row_security, _owners, _settings):
        found += part(house, should)
    found += (_finding("grant", message) for message in beyond(house.grants, should))
    return found


_PARTS = {
    "function": "functions", "table": "relations", "view": "relations", "sequence": "relations", "column": "columns",
    "trigger": "triggers", "key": "keys", "index": "indexes",
}  # fmt: skip


def _finding(kind: str, message: str) -> Finding:
    return Finding(kind, (), message)


def _anonymous(text: str, schema: str) -> str:
    """A text in which the schema's name, however it is quoted, is the same for all."""
    said, name = re.sub(r"( ?) ?\bE'", r"\1'", _single(text)), _single(schema)
    quoted = '"{}"'.format(name.replace('"', '""'))
    for before, after in (
        (f"{quoted}.", "@."),
        (f"'{name}'", "'@'"),
        (f"search_path={quoted},", "search_path=@,"),
        (f"search_path={name},", "search_path=@,"),
    ):
        said = said.replace(before, after)
    return said


def _single(text: str) -> str:
    return text.replace("''", "'").replace("\\\\", "\\")


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _bare(where: str) -> str:
    return where[1:-1].replace('""', '"') if where.startswith('"') else where


def _differing(
    kind: str, name: str, is_: Mapping[str, Any], should: Mapping[str, Any], schema: str
) -> Iterator[Finding]:
    for what, wanted in should.items():
        has = is_.get(what)
        if has == wanted or (what == "state" and (has, wanted) == _AS_GOOD):
            continue
        if what == "body":
            # A table may be called as the schema is; what a renamed one was mended with has its name without quotes.
            if has in (_anonymous(wanted, schema), wanted.replace("@.", f"{schema}.")):
                continue
            yield _finding(kind, f"{name} {_first_difference(has or '', wanted)}")
        else:
            yield _finding(kind, f"{name}: its {what} is {_shown(has)} and should be {_shown(wanted)}")


def _first_difference(has: str, wanted: str) -> str:
    pairs = zip_longest(has.splitlines(), wanted.splitlines())
    for number, (one, other) in enumerate(pairs, 1):
        if one != other:
            return f"has another body: line {number} is {_shown(one)} and should be {_shown(other)}"
    return "has another body: it ends otherwise"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    said = ", ".join(value) if isinstance(value, list) else value.strip() if isinstance(value, str) else str(value)
    return f"{said[:_SHOWN]!r}" if isinstance(value, (str, list)) else said


def _functions(house: House, should: Shipped) -> Iterator[Finding]:
    ours = {signature.partition("(")[0] for signature in should["function"]}
    for name, signature, *_, servers in house.functions:
        if signature in should["function"]:
            continue
        if name in ours:
            yield _finding("function", f"{signature} is a further one of that name, and would be called in its place")
        elif servers:
            yield _finding(
                "function", f"{signature} has the name of one of the server's, and may be called in its place"
            )
    for (operator,) in house.operators:
        yield _finding("function", f"the operator {operator} may be used in place of the server's")


def _tables(house: House, should: Shipped) -> Iterator[Finding]:
    for name, level, where, root_kind, *_ in house.relations:
        if name in should["table"] and level > 0 and root_kind != "p":
            yield _finding("table", f"{where} inherits from {name}, which shows its rows as its own; no table should")


def _triggers(house: House, should: Shipped, said: Collection[str]) -> Iterator[Finding]:
    for table, where, name, state, definition in house.triggers:
        if table not in should["table"] and table not in should["view"]:
            continue
        wanted = should["trigger"].get(f"{table}.{name}")
        if wanted is None and _spaced(definition) == _PROJECTING:
            continue
        if wanted is None:
            yield _finding("trigger", f"{where}.{name} should not be there: {_shown(_spaced(definition))}")
        elif _bare(where) != table and f"{_bare(where)}.{name}" not in said:
            has = {"state": state, "definition": _spaced(definition)}
            yield from _differing("trigger", f"{where}.{name}", has, wanted, "")


def _rules(house: House, should: Shipped) -> Iterator[Finding]:
    for table, where, name, definition in house.rules:
        if table in should["table"] or table in should["view"]:
            yield _finding("rule", f"{where}.{name} should not be there: {_shown(_spaced(definition))}")


def _row_security(house: House, should: Shipped) -> Iterator[Finding]:
    """Rows may be hidden in one table alone, and there from roles that are named, as the page on operations has it."""
    for name, _, where, _, _, _, secured, *_ in house.relations:
        if not secured or name not in should["table"]:
            continue
        if name != _CONFINING:
            yield _finding("policy", f"row security is on for {where}, which hides rows; it should be off")
        elif not any(
            permissive and public and qualified == "true" and command == "*"
            for table, _, permissive, public, command, qualified in house.policies
            if table == name
        ):
            yield _finding("policy", f"row security is on for {where} without a policy that shows everybody all rows")
    for table, name, permissive, public, _, qualified in house.policies:
        if table == _CONFINING and public and not permissive:
            yield _finding("policy", f"{table}.{name} hides rows from everybody but where {_shown(qualified)}")


def _owners(house: House, should: Shipped) -> Iterator[Finding]:
    names = should["table"].keys() | should["view"].keys() | should["sequence"].keys()
    owners = {function[1]: function[9] for function in house.functions if function[1] in should["function"]}
    owners |= {where: owner for name, _, where, *_, owner, _ in house.relations if name in names}
    if not owners:
        return
    usual, _ = Counter(owners.values()).most_common(1)[0]
    for name, owner in sorted(owners.items()):
        if owner != usual:
            yield _finding("owner", f"{name} belongs to {owner!r} and should belong to {usual!r}, as the others do")


def _settings(house: House, _: Shipped) -> Iterator[Finding]:
    for database, role, everybody, setting in house.settings:
        if setting != "session_replication_role=origin":
            whose = "all sessions" if everybody else f"sessions of {role!r}"
            yield _finding("setting", f"{whose} in {database} begin with {setting}: no trigger would keep the history")
