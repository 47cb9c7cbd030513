"""A schema as the server's catalog has it."""

from dataclasses import dataclass, field

from pgresults.operations.requests import Execute, Operation, Row
from pgresults.sql import house as statements


@dataclass
class House:
    """The rows that answer each of the questions of `pgresults.sql.house`.

    ``unseen`` are those that found no answer, each with the tables of the catalog that this role may not read.
    """

    functions: list[Row] = field(default_factory=list)
    operators: list[Row] = field(default_factory=list)
    relations: list[Row] = field(default_factory=list)
    columns: list[Row] = field(default_factory=list)
    triggers: list[Row] = field(default_factory=list)
    rules: list[Row] = field(default_factory=list)
    policies: list[Row] = field(default_factory=list)
    keys: list[Row] = field(default_factory=list)
    indexes: list[Row] = field(default_factory=list)
    grants: list[Row] = field(default_factory=list)
    settings: list[Row] = field(default_factory=list)
    unseen: dict[str, tuple[str, ...]] = field(default_factory=dict)


def look(schema: str) -> Operation[House]:
    """Look at a schema. To be run in a transaction of its own."""
    yield Execute(statements.PLACE, {"schema": schema})
    wanted = sorted({name for question in statements.LOOKS.values() for name in question.catalogs})
    closed = {name for (name,) in (yield Execute(statements.CLOSED, {"catalogs": wanted}))}
    seen = House()
    for part, question in statements.LOOKS.items():
        if missing := sorted(closed & question.catalogs):
            seen.unseen[part] = tuple(missing)
        else:
            setattr(seen, part, (yield Execute(question, {"schema": schema})))
    return seen
