"""From statements of SQLAlchemy Core to what psycopg sends; the text of each is made once per schema name."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from operator import itemgetter
from typing import Any, TypeAlias

from psycopg import sql
from sqlalchemy import CompoundSelect, Delete, Dialect, Insert, Select, Table, Update
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.visitors import iterate

from pgresults.sql.schema import SCHEMA

_Element: TypeAlias = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
_DIALECT: Dialect = psycopg_dialect.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class Query:
    """A statement as Postgres takes it.

    Parameters:
        text: the statement.
        names: the names of the parameters that ``$1``, ``$2`` … stand for.
        plan_anew: whether it is planned for the values of each call; see `Statement`.
    """

    __slots__ = ("names", "plan_anew", "text", "values")

    def __init__(self, text: bytes, names: tuple[str, ...] = (), *, plan_anew: bool = False) -> None:
        self.text = text
        self.names = names
        self.plan_anew = plan_anew
        self.values: Callable[[Mapping[str, Any]], Sequence[Any]] = _picking(names)
        """Picks the values of the parameters, in the order of their numbers."""


def _picking(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    if len(names) > 1:
        return itemgetter(*names)  # of a single name it gives no sequence
    return lambda parameters: [parameters[name] for name in names]


class Statement:
    """A statement of SQLAlchemy Core that becomes a query for a schema when it is first needed there.

    Parameters:
        element: the statement, or what builds it: few programs need the large ones, of which there are many kinds.
        plan_anew: whether each call is planned for its own values: a plan for any values goes through all of a large
            table where few rows meet these.
    """

    def __init__(self, element: _Element | Callable[[], _Element], *, plan_anew: bool = False) -> None:
        self._given = element
        self._plan_anew = plan_anew
        self.query = cache(self._compile)

    @cached_property
    def _element(self) -> _Element:
        return self._given() if callable(self._given) else self._given

    @cached_property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return any(isinstance(part, UpdateBase) for part in iterate(self._element))

    def _compile(self, schema: str) -> Query:
        compiled: Any = self._element.compile(
            dialect=_DIALECT, schema_translate_map={SCHEMA: schema}, render_schema_translate=True
        )
        return Query(str(compiled).encode(), tuple(compiled.positiontup), plan_anew=self._plan_anew)


class CallStatement(Statement):
    """A call of one of the schema's own functions, which Core cannot name by a schema that is configured.

    Parameters:
        function: its name.
        names: the names of its parameters, in their order.
    """

    def __init__(self, function: str, *names: str) -> None:
        self._function = function
        self._names = names
        self.query = cache(self._compile)

    @property
    def changes(self) -> bool:
        """True: what the schema's own functions are for."""
        return True

    def _compile(self, schema: str) -> Query:
        places = ", ".join(f"${number}" for number in range(1, len(self._names) + 1))
        call = sql.SQL("SELECT {}({})").format(sql.Identifier(schema, self._function), sql.SQL(places))
        return Query(call.as_bytes(None), self._names)


class CopyStatement:
    """A ``COPY … FROM STDIN`` in binary into named columns of a table."""

    changes = True

    def __init__(self, target: Table, columns: Sequence[str], types: Sequence[str]) -> None:
        self.types = types
        self._target = target
        self._columns = columns
        self.query = cache(self._compile)

    def _compile(self, schema: str) -> Query:
        columns = sql.SQL(", ").join(map(sql.Identifier, self._columns))
        target = sql.Identifier(schema, self._target.name)
        return Query(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, columns).as_bytes(None))
