"""Settings: ``PGRESULTS_…`` variables, ``.env``, ``[tool.pgresults]`` in ``pyproject.toml``; the first that says one.

A setting's variable is its name in capitals, dots as underscores: ``results.default_serializer`` is read from
``PGRESULTS_RESULTS_DEFAULT_SERIALIZER``.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache, lru_cache
from logging import getLogger
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pgresults.errors import ConfigurationError

PREFIX = "PGRESULTS_"
_PYPROJECT = Path("pyproject.toml")
_DOTENV = Path(".env")
_OF_TESTS = f"{PREFIX}TEST_"
_NEAR = 0.85
_NEVER_EMPTY = ("signing_key", "web.token")
_log = getLogger(__name__)


def _listed(value: Any) -> Any:
    """Texts from one text that separates them by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResultSettings(_Group):
    """What holds for results of which nothing else is said."""

    default_serializer: str = Field(default="pickle", description="type of the serializer where none is given")
    persist_by_default: bool = Field(default=False, description="whether results of flows and tasks are stored unasked")
    default_storage: str | None = Field(
        default=None, repr=False, description="a registered storage's name or a URL; None: `default`"
    )
    local_storage_path: Path = Field(default=Path(".pgresults"), description="directory of the embedded server")


class SchedulingSettings(_Group):
    """Where parameters of runs wait."""

    default_storage: str | None = Field(
        default=None, repr=False, description="name or URL of the storage of parameters; a URL may hold a password"
    )


class TaskSettings(_Group):
    """What holds for tasks of which nothing else is said."""

    default_persist_result: bool | None = Field(
        default=None, description="whether tasks store results unasked; None: as results"
    )
    scheduling: SchedulingSettings = SchedulingSettings()


class WebSettings(_Group):
    """Who may use the console, where others than its own machine reach it."""

    token: SecretStr | None = Field(default=None, min_length=16, description="what the console asks for; None: nothing")
    user_header: str | None = Field(
        default=None, description="header in which a proxy before the console names its user; a change's actor"
    )
    proxies: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description="addresses of such proxies, by commas; none: those of the console's own machine"
    )
    hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description="names by which browsers call the console, by commas, beside those of its own machine"
    )


class Settings(BaseSettings):
    """What a process needs to know to reach its database and to stay within its bounds."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    database_url: SecretStr | None = Field(default=None, description="URL of the database; None: an embedded server")
    read_url: SecretStr | None = Field(default=None, description="URL of a standby of that database, for reads")
    read_staleness: NonNegativeFloat = Field(
        default=5.0,
        allow_inf_nan=False,
        description="seconds by which a standby may be behind where `stale_ok` says nothing; 0: it is not asked there",
    )
    embedded_path: Path | None = Field(
        default=None, description="directory of the embedded server; None: results.local_storage_path"
    )
    database_schema: str = Field(default="pgresults", description="schema that holds the tables")
    pool_size: PositiveInt = Field(default=5, description="connections kept open per process (and per event loop)")
    pool_overflow: int = Field(default=10, ge=0, description="connections opened beyond that under load")
    pool_max_idle: PositiveFloat = Field(
        default=300.0, allow_inf_nan=False, description="seconds after which an unused connection is closed"
    )
    pool_max_lifetime: PositiveFloat = Field(
        default=3600.0, allow_inf_nan=False, description="seconds after which a connection is replaced"
    )
    connect_timeout: PositiveFloat = Field(
        default=10.0, allow_inf_nan=False, description="seconds to wait for a connection"
    )
    response_timeout: PositiveFloat = Field(
        default=60.0, allow_inf_nan=False, description="seconds of silence before a server is given up"
    )
    prepare_statements: bool = Field(
        default=True, description="off for a pooler that does not keep prepared statements"
    )
    cache_max_entries: PositiveInt = Field(default=1000, description="records in a store's memory cache")
    cache_max_bytes: PositiveInt = Field(
        default=64 * 1024 * 1024, description="payload bytes in a store's memory cache"
    )
    max_payload_bytes: PositiveInt = Field(default=4 * 1024**3, description="largest payload accepted, in bytes")
    record_columns: bool = Field(
        default=True, description="keep the names and types of a frame's columns in the history, where they stay"
    )
    max_locks: PositiveInt = Field(
        default=256, description="locks a process may hold: each takes shared memory of the server"
    )
    lock_waiters: PositiveInt = Field(
        default=4, description="connections that wait for locks, per process (and event loop)"
    )
    lease: PositiveFloat = Field(default=30.0, description="seconds a lock outlives its process behind a pooler")
    read_lock_timeout: PositiveFloat | None = Field(
        default=None, description="seconds a read waits for a lock; None: for ever"
    )
    lock_timeout: NonNegativeFloat | None = Field(
        default=None, description="seconds a transaction or task waits for a lock; None: for ever"
    )
    offload_bytes: PositiveInt = Field(
        default=64 * 1024, description="async work above this size runs in a thread, in bytes"
    )
    allow_pickle: bool = Field(default=True, description="off: nothing is (un)pickled, and only known code is named")
    importable: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description="code and modules, by commas, that stored data may name; others are not imported for it"
    )
    signing_key: SecretStr | None = Field(default=None, min_length=16, description="signs payloads; others are refused")
    older_signing_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_listed)] = Field(
        default=(), description="keys that were used before, by commas: their signatures still count"
    )
    seal_key: Path = Field(
        default=Path("~/.config/pgresults/seal.pem"),
        description="file with the key that signs seals; made when missing",
    )
    seal_public_key: str | None = Field(
        default=None, description="key (hex) that seals must be signed with; None: seal_key's"
    )
    telemetry_keys: bool = Field(default=False, description="name keys in spans; they may say who a result is about")
    results: ResultSettings = ResultSettings()
    tasks: TaskSettings = TaskSettings()
    web: WebSettings = WebSettings()

    @property
    def embedded_directory(self) -> Path:
        """Where the embedded server lives."""
        return self.embedded_path or self.results.local_storage_path

    @property
    def seal_key_file(self) -> Path:
        """The file with the key that signs seals; raises ConfigurationError for ``~`` where nobody has a home."""
        return at_home(self.seal_key, "seal_key")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_args: PydanticBaseSettingsSource,
        **_named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code goes first, then the layers."""
        return init_settings, _Layers(settings_cls)


def at_home(path: Path | str, setting: str) -> Path:
    """A path whose ``~`` is the home directory.

    Raises: ConfigurationError where this user has none, as in a container that runs as a user without a name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{path}: this user has no home directory; set HOME, or {variable(setting)} to a path without ~",
            setting=setting,
        ) from None


class Layer(NamedTuple):
    """Settings from one place, by dotted name."""

    name: str
    values: Mapping[str, Any]


_NOTHING = Layer("temporary_settings", MappingProxyType({}))
_TEMPORARY: ContextVar[Layer] = ContextVar("pgresults.settings", default=_NOTHING)


class _Layers(PydanticBaseSettingsSource):
    """All places but the code, as one source."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Unused: the source is asked as a whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        return nested({name: value for layer in reversed(layers()) for name, value in layer.values.items()})


def current_settings() -> Settings:
    """The settings that hold here and now; read anew only when a variable or a file has changed.

    Raises: ConfigurationError when one has a value that is of no use.
    """
    if _TEMPORARY.get().values:
        return load_settings()
    return _remembered(_variables(), os.getcwd(), _stamp(_DOTENV), _stamp(_PYPROJECT))  # noqa: PTH109 (a text will do)


@contextmanager
def temporary_settings(updates: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Settings]:
    """Settings that hold inside of the block, for this thread or asyncio task and what it starts.

    Parameters:
        updates: values by dotted name, e.g. ``{"results.default_serializer": "json"}``.
        more: values by name, two underscores for a dot, e.g. ``results__default_serializer="json"``.

    Raises: ConfigurationError for an unknown name or a value that is of no use.
    """
    given = {**(updates or {}), **{name.replace("__", "."): value for name, value in more.items()}}
    token = _TEMPORARY.set(Layer("temporary_settings", {**_TEMPORARY.get().values, **_known(given)}))
    try:
        yield load_settings()
    finally:
        _TEMPORARY.reset(token)


def load_settings(**given: Any) -> Settings:
    """The settings with some given in code.

    Raises: ConfigurationError.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = error.errors()
        said = "; ".join(map(_fault, faults))
        raise ConfigurationError(said, setting=_dotted(faults[0])) from None  # the cause quotes the value


def layers() -> list[Layer]:
    """Every place that says something, the decisive one first."""
    return [
        _TEMPORARY.get(),
        Layer("environment", _from_variables(os.environ)),
        Layer(str(_DOTENV), _from_variables(dotenv_values(_DOTENV) if _DOTENV.is_file() else {})),
        Layer(str(_PYPROJECT), _from_pyproject()),
    ]


@cache
def names() -> dict[str, FieldInfo]:
    """Every setting by its dotted name."""
    return dict(_fields(Settings, ""))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.replace(".", "_").upper()


def value_of(settings: BaseModel, name: str) -> Any:
    """What a setting is."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as objects within objects."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


@lru_cache(maxsize=8)
def _remembered(_variables: Any, _directory: str, _dotenv: int, _pyproject: int) -> Settings:
    return load_settings()


_environment: tuple[dict[Any, Any], tuple[tuple[str, str], ...]] = {}, ()


def _variables() -> tuple[tuple[str, str], ...]:
    """The variables of the environment that are settings.

    `os.environ` decodes every variable at every look, which takes as long as a short read; what it is kept in is
    compared in a hundredth of that.
    """
    global _environment
    kept: dict[Any, Any] | None = getattr(os.environ, "_data", None)
    before, variables = _environment
    if kept is None or kept != before:
        now = {} if kept is None else kept.copy()
        variables = tuple(sorted((name, text) for name, text in os.environ.items() if name.upper().startswith(PREFIX)))
        _environment = now, variables
    return variables


def _stamp(path: Path) -> int:
    if not os.access(path, os.F_OK):  # quicker than an error, and mostly there is none
        return 0
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _from_variables(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings among variables; an empty one is as if it was not set, but never a secret that got lost."""
    given = {name.upper(): text for name, text in texts.items() if text is not None}
    _look_for_misspelt(frozenset(name for name in given if name.startswith(PREFIX)))
    told = {name: given[variable(name)] for name in names() if variable(name) in given}
    return {name: text for name, text in told.items() if text or name in _NEVER_EMPTY}


@lru_cache(maxsize=8)
def _look_for_misspelt(given: frozenset[str]) -> None:
    """Refuse variables that look like a setting's, and warn of others: they may be of another version's settings."""
    known = {variable(name) for name in names()}
    for name in sorted(name for name in given - known if not name.startswith(_OF_TESTS)):
        if near := get_close_matches(name, known, 1, _NEAR):
            raise ConfigurationError(
                f"{name} is no setting; did you mean {near[0]}? `pgresults config show` lists them", setting=name
            )
        _warn_of(name)


@cache
def _warn_of(name: str) -> None:
    _log.warning("%s is no setting and has no effect; `pgresults config show` lists them", name)


def _from_pyproject() -> dict[str, Any]:
    if not _PYPROJECT.is_file():
        return {}
    try:
        table = tomllib.loads(_PYPROJECT.read_text()).get("tool", {}).get("pgresults", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{_PYPROJECT.absolute()} cannot be read: {error}") from error
    return _known(dict(_flat(table, "")))


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _known(given: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(given.keys() - names().keys()):
        raise ConfigurationError(
            f"there is no setting named {unknown[0]!r}; `pgresults config show` lists them", setting=unknown[0]
        )
    return dict(given)


def _fault(error: Any) -> str:
    return f"{variable(_dotted(error))}: {error['msg']}"


def _dotted(error: Any) -> str:
    return ".".join(map(str, error["loc"]))
