"""The instruments of OpenTelemetry that pgresults counts and measures with, where the program has it; else nothing.

Nothing is imported here that the program has not imported itself: without `opentelemetry.trace` in it, nobody could
be recording.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

from sqlalchemy import URL

from pgresults.database import pools
from pgresults.server.embedded import EmbeddedPostgres

_API: Final = "opentelemetry.trace"
_METERS_HOME: Final = "opentelemetry.metrics._internal"
_TRACERS, _METERS = "_TRACER_PROVIDER", "_METER_PROVIDER"
_NOWHERE: Final = ModuleType("nowhere")
_SCOPE: Final = "pgresults"
_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.40.0"
_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_USUAL_PORT: Final = 5432


class Described:
    """A schema as the conventions for database clients have it described.

    Parameters:
        attributes: what they say of it.
    """

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        self._calls: dict[str, Mapping[str, Any]] = {}

    def call(self, operation: str) -> Mapping[str, Any]:
        """The attributes of a call; made once."""
        if operation not in self._calls:
            self._calls[operation] = {**self.attributes, "db.operation.name": operation}
        return self._calls[operation]

    @property
    def pool(self) -> str:
        """What the conventions have a pool named that has no name."""
        said = self.attributes
        place = ":".join(str(said[name]) for name in ("server.address", "server.port") if name in said)
        return f"{place}/{said['db.namespace']}"


class Instruments:
    """What spans are begun with, and what is counted and measured with; made when it is first needed.

    Parameters:
        tracers: where the tracer is from; None: the program's provider.
        meters: where the meter is from; None: the program's provider.
    """

    def __init__(self, tracers: Any = None, meters: Any = None) -> None:
        from opentelemetry import context, metrics, trace

        self.trace, self.context = trace, context
        ours = version("pgresults")
        self.tracer = (tracers or trace).get_tracer(_SCOPE, ours, schema_url=_SCHEMA_URL)
        meter = (meters or metrics).get_meter(_SCOPE, ours, schema_url=_SCHEMA_URL)
        self.durations = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.lock_waits = meter.create_histogram(
            "pgresults.lock.wait_time",
            "s",
            "How long was waited for locks that others held.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.counters = {
            name: meter.create_counter(name, unit, description) for name, (unit, description) in _COUNTERS.items()
        }
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [lambda _: _connections()],
            "{connection}",
            "The number of connections that are currently in state described by the `state` attribute.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.max",
            [lambda _: _most_connections()],
            "{connection}",
            "The maximum number of open connections allowed.",
        )


_COUNTERS: Final = {
    "pgresults.task.hits": ("{call}", "Calls of tasks that got a stored result."),
    "pgresults.task.misses": ("{call}", "Calls of tasks that ran the function."),
    "pgresults.conflicts": ("{conflict}", "What the database undid for another transaction, or a lock kept out."),
    "pgresults.retries": ("{retry}", "Further tries of what had failed."),
    "pgresults.payload.written": ("By", "Payloads of the results that were stored."),
    "pgresults.payload.read": ("By", "Payloads of the results that were read."),
    "db.client.connection.timeouts": (
        "{timeout}",
        "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
    ),
}

_made: Instruments | None = None
_providers: Callable[[], bool] | None = None


def instruments() -> Instruments | None:
    """The instruments of this process; None as long as the program has set no provider that they could tell."""
    global _made
    if _made is None and _API in sys.modules and _is_heard():
        _made = Instruments()
    return _made


def _is_heard() -> bool:
    """Whether the program has set a provider; asked before every span as long as it has none, so it has to be quick."""
    global _providers
    if _providers is None:
        if not hasattr(sys.modules[_API], "get_tracer_provider"):  # another thread is importing it
            return False
        _providers = _asking()
    return _providers()


def _asking() -> Callable[[], bool]:
    """What asks for the program's providers: where the API keeps them, if it still does, else its own functions.

    Those look at the environment each time, which takes longer than all the rest; so that is done once, here.
    """
    from opentelemetry import metrics, trace

    def ask() -> bool:
        return not (_is_of_api(trace.get_tracer_provider()) and _is_of_api(metrics.get_meter_provider()))

    ask()
    tracers, meters = (vars(sys.modules.get(module, _NOWHERE)) for module in (_API, _METERS_HOME))
    if _TRACERS in tracers and _METERS in meters:
        return lambda: tracers[_TRACERS] is not None or meters[_METERS] is not None
    return ask


def _is_of_api(provider: object) -> bool:
    """Whether a provider is one of those that the API itself has, which tell nobody."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def count(counter: str, amount: int = 1, **attributes: Any) -> None:
    """Count something; the names of attributes are written with ``_`` for a dot."""
    if amount and (ours := instruments()) is not None:
        named = {name.replace("_", "."): value for name, value in attributes.items()}
        ours.counters[counter].add(amount, named)


def note_retry(reason: BaseException) -> None:
    """Count that something is tried again, and say so in the span that it happens in."""
    if (ours := instruments()) is None:
        return
    count("pgresults.retries", error_type=type_of(reason))
    ours.trace.get_current_span().add_event("retry", {"error.type": type_of(reason)})


def trace_to_carry() -> dict[str, str]:
    """What says in another process which span it works for; nothing where there is none."""
    carrier: dict[str, str] = {}
    if instruments() is not None:
        from opentelemetry.propagate import inject

        inject(carrier)
    return carrier


@contextmanager
def within_trace(carrier: Mapping[str, str]) -> Iterator[None]:
    """Work for the span of another process."""
    if not carrier or (ours := instruments()) is None:
        yield
        return
    from opentelemetry.propagate import extract

    token = ours.context.attach(extract(carrier))
    try:
        yield
    finally:
        ours.context.detach(token)


def type_of(error: BaseException) -> str:
    """The ``error.type`` of a failure: what the server called it, else the name of its class."""
    return sqlstate_of(error) or name_of(type(error))


def name_of(kind: type[BaseException]) -> str:
    """A class as conventions have it named."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def sqlstate_of(error: BaseException | None) -> str | None:
    """What the server said of a failure, if it was the server's."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(state := getattr(error, "sqlstate", None), str):
            return state
        seen.add(id(error))
        error = error.__cause__
    return None


def attributes_of(url: URL | None, embedded: EmbeddedPostgres | None, schema: str) -> dict[str, Any]:
    """A schema as the conventions for database clients have it described, with nothing that is secret."""
    said: dict[str, Any] = {"db.system.name": "postgresql", "db.namespace": schema}
    if embedded is not None:
        return said | {"db.namespace": f"postgres|{schema}", "server.address": str(embedded.path)}
    if url is None:
        return said
    if (database := url.database or _one(url.query.get("dbname"))) is not None:
        said["db.namespace"] = f"{database}|{schema}"
    if (address := url.host or _one(url.query.get("host"))) is not None:
        said["server.address"] = address
    port = url.port or _one(url.query.get("port"))
    if address is not None and str(port).isdecimal() and int(str(port)) != _USUAL_PORT:
        said["server.port"] = int(str(port))
    return said


def _one(given: Any) -> str | None:
    return ",".join(given) if isinstance(given, tuple) else given


def _usage() -> dict[str, pools.Usage]:
    """How the pools of this process are used, by name; pools of one database count together."""
    found: dict[str, pools.Usage] = {}
    for pool in pools.known():
        if (usage := pool.usage()) is not None:
            found[pool.name] = pools.Usage(*map(sum, zip(usage, found.get(pool.name, (0, 0, 0)), strict=True)))
    return found


def _connections() -> Iterable[Any]:
    from opentelemetry.metrics import Observation

    for name, usage in _usage().items():
        for state, number in (("idle", usage.idle), ("used", usage.used)):
            said = {"db.client.connection.pool.name": name, "db.client.connection.state": state}
            yield Observation(number, said)


def _most_connections() -> Iterable[Any]:
    from opentelemetry.metrics import Observation

    for name, usage in _usage().items():
        yield Observation(usage.most, {"db.client.connection.pool.name": name})
