"""Operations on a schema that is spread over several servers: what is asked in another way there.

Plain Postgres knows nothing of this: an operation is spread, or it is not.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from pgresults.operations.distributed_lineage import downstream, ended_each, walked
from pgresults.operations.requests import Copy, Execute, ExecuteMany, Operation, Request, Row, T
from pgresults.operations.verify import ANY_TRANSACTION
from pgresults.sql import (
    breaking,
    bulk,
    counterparts,
    frequency,
    history,
    holds,
    lineage,
    registry,
    results,
    retention,
    usage,
    verify,
)
from pgresults.sql.compiled import Statement

_Answer: TypeAlias = Callable[[Any], Operation[list[Row]]]


def spread(operation: Operation[T]) -> Operation[T]:
    """The operation as it is carried out over several servers."""
    answer: list[Row] | None = None
    while True:
        try:
            request = operation.send(answer)  # type: ignore[arg-type] # a generator's first send is None
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        answer = yield from _answered(request)


def _answered(request: Request) -> Operation[list[Row]]:
    if isinstance(request, Copy):
        return (yield request)
    statement = request.statement
    if (counterpart := _STATEMENTS.get(statement)) is not None:
        return (yield request._replace(statement=counterpart))
    if isinstance(statement, history.Locking):
        return (yield request._replace(statement=statement.unlocked))
    if isinstance(statement, history.Invalidation):
        return (yield from _invalidated(statement, request))
    if (answer := _ANSWERS.get(statement)) is not None:
        return (yield from answer(request))
    return (yield request)


def _invalidated(statement: history.Invalidation, request: Any) -> Operation[list[Row]]:
    keys = [key for (key,) in (yield Execute(statement.due, request.parameters))]
    return (yield Execute(counterparts.END_ALL[statement.guarded], {**request.parameters, "keys": keys}))


def _locked_then(statement: Statement) -> _Answer:
    """The head is locked first, then asked."""

    def answer(request: Execute) -> Operation[list[Row]]:
        yield Execute(counterparts.LOCK, request.parameters)
        return (yield Execute(statement, request.parameters))

    return answer


def _with_locked(statement: Statement) -> _Answer:
    """The locks, which are on one server, are read first."""

    def answer(request: Execute) -> Operation[list[Row]]:
        parameters = yield from _knowing_locks(request.parameters)
        return (yield Execute(statement, parameters))

    return answer


def _knowing_locks(parameters: Mapping[str, Any]) -> Operation[dict[str, Any]]:
    locked = (yield Execute(counterparts.LOCKED_KEYS, parameters))[0][0]
    return {**parameters, "locked": locked}


def _lock_many(request: Execute) -> Operation[list[Row]]:
    parameters = yield from _knowing_locks(request.parameters)
    keys = sorted(set(parameters["keys"]) - set(parameters["locked"]))
    yield ExecuteMany(counterparts.LOCK, [{**parameters, "key": key} for key in keys])
    return (yield Execute(counterparts.STAYING, parameters))


def _superfluous(request: Execute) -> Operation[list[Row]]:
    parameters = yield from _knowing_locks(request.parameters)
    keys = yield Execute(counterparts.PAGE, parameters)
    return (yield from _one_by_one(counterparts.SUPERFLUOUS, [{**parameters, "key": key} for (key,) in keys]))


def _one_by_one(statement: Statement, parameters: list[dict[str, Any]]) -> Operation[list[Row]]:
    rows: list[Row] = []
    for one in parameters:
        rows += yield Execute(statement, one)
    return rows


def _retain(request: Execute) -> Operation[list[Row]]:
    given = request.parameters
    said = zip(given["keys"], given["reasons"], given["contents"], strict=True)
    changed = yield ExecuteMany(
        counterparts.RETAIN, [{**given, "key": key, "reason": why, "content": content} for key, why, content in said]
    )
    return [(sum(map(bool, changed)),)]


def _drop(request: Execute) -> Operation[list[Row]]:
    given = request.parameters
    each = zip(given["keys"], given["versions"], strict=True)
    dropped = yield ExecuteMany(counterparts.DROP, [{**given, "key": key, "upto": upto} for key, upto in each])
    return [(sum(row[0] for row in dropped),)]


def _entries(request: Execute) -> Operation[list[Row]]:
    given = request.parameters
    each = zip(given["keys"], given["firsts"], strict=True)
    return (
        yield from _one_by_one(verify.ENTRIES_OF_ONE, [{**given, "key": key, "first": first} for key, first in each])
    )


def _no_transaction_ahead(_: Execute) -> Operation[list[Row]]:
    """Each server has its own numbers, so none can be told from one to come."""
    yield from ()
    return [(0,)]


def _horizon(request: Execute) -> Operation[list[Row]]:
    _, now = (yield request)[0]
    return [(ANY_TRANSACTION, now)]


def _are_rare(_: Execute) -> Operation[list[Row]]:
    """Statistics are those of the shards, which are elsewhere."""
    yield from ()
    return [(False,)]


def _no_rules(_: Execute) -> Operation[list[Row]]:
    """None can be set there."""
    yield from ()
    return []


def _none_held(_: Execute) -> Operation[list[Row]]:
    """Nothing is ever on hold here."""
    yield from ()
    return [(None,)]


def _one_page(_: Execute) -> Operation[list[Row]]:
    yield from ()
    return [(1,)]


def _all_counted(request: Execute) -> Operation[list[Row]]:
    """No sample of a table is taken over several servers, each of which counts its own part."""
    rows = yield Execute(usage.COUNTED, {**request.parameters, "limit": None})
    return [(1, *rows[0])]


_STATEMENTS: dict[Any, Statement] = {
    **{results.WRITE[kind]: other for kind, other in counterparts.WRITE.items()},
    **{bulk.WRITE_MANY[guard]: other for guard, other in counterparts.WRITE_MANY.items()},
    **{results.DELETE[guard]: other for guard, other in counterparts.DELETE.items()},
    **{history.TOUCH[guard]: other for guard, other in counterparts.TOUCH.items()},
    **{history.REDACT[guard]: other for guard, other in counterparts.REDACT.items()},
    breaking.RECORD_BREAK: counterparts.RECORD_BREAK,
    breaking.RECORD_FIRST_BREAK: counterparts.RECORD_BREAK,
    **{results.READ[look]: other for look, other in counterparts.READ.items()},
    registry.REGISTER: counterparts.REGISTER,
    verify.CERTAIN: counterparts.CERTAIN,
    verify.GUARDS: counterparts.GUARDS,
}
"""What another statement takes the place of."""

_ANSWERS: dict[Any, _Answer] = {
    history.LOCK_LIVE: _locked_then(history.LIVE),
    history.LOCK_HEAD: _locked_then(history.HEAD),
    breaking.LOCK_KEY: _locked_then(breaking.KEY),
    history.EXPIRED: _with_locked(counterparts.EXPIRED),
    history.LOCK_MANY: _lock_many,
    history.SUPERFLUOUS: _superfluous,
    history.RETAIN: _retain,
    history.DROP: _drop,
    verify.ENTRIES: _entries,
    verify.AHEAD: _no_transaction_ahead,
    verify.HORIZON: _horizon,
    holds.SETTLE: _none_held,
    frequency.ARE_FREQUENT: _are_rare,
    retention.RULES: _no_rules,
    usage.PAGES: _one_page,
    usage.SAMPLED: _all_counted,
    **{walk: partial(walked, direction=direction) for direction, walk in lineage.WALKS.items()},
    lineage.DOWNSTREAM: downstream,
    **{end: partial(ended_each, guarded=guarded) for guarded, end in history.END_EACH.items()},
}
"""What is asked in several steps."""
