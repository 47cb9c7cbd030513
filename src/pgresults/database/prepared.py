"""How a connection of our own runs statements: with one set of adapters for life, and prepared once they are repeated.

A cursor of psycopg's finds its adapters anew for every statement, which takes longer than the server needs for a
short one.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from psycopg import BaseConnection, NotSupportedError, OperationalError
from psycopg.abc import Buffer, PQGen
from psycopg.pq import ExecStatus, Format, PGconn, TransactionStatus
from psycopg.pq.abc import PGresult

with suppress(ImportError):  # psycopg promises nobody that they stay: `AVAILABLE` says whether they are there
    from psycopg.adapt import PyFormat, Transformer
    from psycopg.errors import error_from_result
    from psycopg.generators import execute, fetch_many, pipeline_communicate, send

Rows: TypeAlias = list[tuple[Any, ...]]
_Statement: TypeAlias = tuple[bytes, tuple[int, ...]]
"""A query, and the types of its parameters."""

_COMMON = 5
_GIVES_ROWS = ExecStatus.TUPLES_OK
_OUTDATED = ("26000", "0A000")  # a pooler or ``DISCARD`` dropped it; a changed table gives it other types
_SUCCEEDED = (_GIVES_ROWS, ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC)


class _Sending(NamedTuple):
    """A statement with what is sent for its parameters, in which formats."""

    statement: _Statement
    sent: Sequence[Buffer | None]
    formats: Sequence[Format]


class PreparedStatements:
    """The statements of one connection, as libpq conversations that the connection waits for, one at a time.

    What psycopg prepares itself must not be mixed with them: after a rollback it forgets all that the session knows.

    Parameters:
        connection: where they run.
        prepare: whether those that are repeated are prepared; not every pooler can keep them.
    """

    def __init__(self, connection: BaseConnection[Any], *, prepare: bool) -> None:
        self._pgconn = connection.pgconn
        self._prepare = prepare
        # It needs the connection: how bytes are quoted in an array depends on it.
        self._transformer = Transformer(connection)
        self._uses: Counter[_Statement] = Counter()
        self._names: dict[_Statement, bytes] = {}
        # No name is given twice: the server may know one whose preparation was interrupted, and behind a pooler the
        # names of others.
        self._prefix = f"pgresults_{os.urandom(6).hex()}".encode()
        self._numbers = count()

    def fetch(self, query: bytes, values: Sequence[Any]) -> PQGen[Rows]:
        """Run a statement with values for its ``$1``, ``$2`` … and give its rows.

        Raises: psycopg's errors.
        """
        sending = self._adapted(query, values)
        self._send(sending, self._names.get(sending.statement) or (yield from self._prepared(sending.statement)))
        results = yield from execute(self._pgconn)
        return self._rows(self._successful(results[-1]))

    def fetch_first(self, query: bytes, many: Iterable[Sequence[Any]]) -> PQGen[Rows]:
        """Run a statement with one set of values after the other, without waiting for each answer.

        Returns: for each set the first row it gave, or an empty one.
        Raises: psycopg's errors; then no set after the failed one was carried out.
        """
        waiting: deque[Callable[[], None]] = deque()
        for sending in [self._adapted(query, values) for values in many]:
            name = self._names.get(sending.statement) or (yield from self._prepared(sending.statement))
            waiting.append(partial(self._send, sending, name))
        waiting.append(self._pgconn.pipeline_sync)
        expected = len(waiting)
        self._pgconn.enter_pipeline_mode()
        answers = yield from pipeline_communicate(self._pgconn, waiting)
        yield from send(self._pgconn)  # the rest of the last one, without which no answer comes
        while len(answers) < expected:
            answers.append((yield from fetch_many(self._pgconn)))
        self._pgconn.exit_pipeline_mode()
        *results, _ = [self._successful(answer[-1]) for answer in answers]
        return [next(iter(self._rows(result)), ()) for result in results]

    def drain(self) -> PQGen[None]:
        """Read to its end what an interrupted conversation still has to say."""
        while self._pgconn.transaction_status == TransactionStatus.ACTIVE:
            yield from fetch_many(self._pgconn)

    def _adapted(self, query: bytes, values: Sequence[Any]) -> _Sending:
        transformer = self._transformer
        sent = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        return _Sending((query, transformer.types or ()), sent, transformer.formats or ())

    def _prepared(self, statement: _Statement) -> PQGen[bytes | None]:
        """The name of a statement that is prepared by now; None while it is rare."""
        self._uses[statement] += 1
        if not self._prepare or self._uses[statement] <= _COMMON:
            return None
        name = b"%b_%d" % (self._prefix, next(self._numbers))
        self._pgconn.send_prepare(name, *statement)
        results = yield from execute(self._pgconn)
        self._successful(results[-1])
        self._names[statement] = name
        return name

    def _send(self, sending: _Sending, name: bytes | None) -> None:
        (query, types), sent, formats = sending
        if name is None:
            self._pgconn.send_query_params(query, sent, types, formats, Format.BINARY)
        else:
            self._pgconn.send_query_prepared(name, sent, formats, Format.BINARY)

    def _rows(self, result: PGresult) -> Rows:
        if result.status != _GIVES_ROWS:
            return []
        transformer = self._transformer
        transformer.set_pgresult(result)
        rows = transformer.load_rows(0, result.ntuples, tuple)
        transformer.set_pgresult(None)  # it may be large
        return rows

    def _successful(self, result: PGresult) -> PGresult:
        if result.status in _SUCCEEDED:
            return result
        error = error_from_result(result)
        if error.sqlstate in _OUTDATED:
            self._names.clear()
            self._uses.clear()
        raise error


def _rehearsed() -> bool:
    """Whether the parts above are there and take what they are given above; nothing leaves the process."""
    try:
        nowhere = PGconn.connect_start(b"nowhere")  # no connection string at all, so it never connects
        transformer = Transformer()
        sent = transformer.dump_sequence([1], [PyFormat.AUTO])
        types, formats = transformer.types or (), transformer.formats or ()
        transformer.set_pgresult(nowhere.make_empty_result(_GIVES_ROWS))
        transformer.load_rows(0, 0, tuple)
        error_from_result(nowhere.make_empty_result(ExecStatus.FATAL_ERROR))
        for talk in (execute(nowhere), fetch_many(nowhere), send(nowhere), pipeline_communicate(nowhere, deque())):
            talk.close()
        for step in (
            partial(nowhere.send_query_params, b"", sent, types, formats, Format.BINARY),
            partial(nowhere.send_prepare, b"", b"", types),
            partial(nowhere.send_query_prepared, b"", sent, formats, Format.BINARY),
            nowhere.enter_pipeline_mode,
            nowhere.pipeline_sync,
            nowhere.exit_pipeline_mode,
        ):
            with suppress(OperationalError):
                step()
    except (AttributeError, NameError, NotSupportedError, TypeError):  # the third: pipelines, of an old libpq
        return False
    return True


AVAILABLE = _rehearsed()
"""Whether this psycopg has what `PreparedStatements` is made of; where it has not, cursors serve."""
