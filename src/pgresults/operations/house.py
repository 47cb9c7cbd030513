"""A schema as the server's catalog has it."""

from dataclasses import dataclass, field

from pgresults.operations.requests import Execute, Operation, Row
from pgresults.sql import house as statements


@dataclass
class House:
    """The rows that answer each of the questions of `pgresults.sql.house`.

    ``unseen`` are those that found no answer, each with the tables of the catalog that this role may not read; where
    the tables are spread over several servers (``is_spread``) nothing was asked.
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
    is_spread: bool = False


def look(schema: str) -> Operation[House]:
    """Look at a schema. To be run in a transaction of its own."""
    yield Execute(statements.PLACE, {"schema": schema})
    questions = (statements.IS_SPREAD, *statements.LOOKS.values())
    wanted = sorted({name for question in questions for name in question.catalogs})
    closed = {name for (name,) in (yield Execute(statements.CLOSED, {"catalogs": wanted}))}
    seen = House()
    if missing := sorted(closed & statements.IS_SPREAD.catalogs):
        seen.unseen = dict.fromkeys(statements.LOOKS, tuple(missing))
        return seen
    if (yield Execute(statements.IS_SPREAD, {"schema": schema}))[0][0]:
        seen.is_spread = True
        return seen
    for part, question in statements.LOOKS.items():
        if missing := sorted(closed & question.catalogs):
            seen.unseen[part] = tuple(missing)
        else:
            setattr(seen, part, (yield Execute(question, {"schema": schema})))
    return seen
