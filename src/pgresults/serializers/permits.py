"""What stored data may have run or imported here, and how large it may become: said by settings and by the program."""

from contextvars import ContextVar, Token
from typing import Final, NamedTuple, Self

from pgresults.settings import Settings, current_settings

_KNOWN: Final = frozenset(
    (
        *("json", "orjson", "cloudpickle", "pickle", "bz2", "gzip", "lzma", "zlib"),
        *("pgresults.serializers.json_object_encoder", "pgresults.serializers.json_object_decoder"),
    )
)
"""What a record may always name: other code could run what the payload says just as well."""


class Permit(NamedTuple):
    """How far stored data is believed.

    Parameters:
        allow_pickle: whether anything is (un)pickled, and code named that is not in a list.
        max_bytes: how large what comes out of a compressed payload may be.
        importable: what stored data may name: functions and libraries as they stand here, and modules of classes.
    """

    allow_pickle: bool = True
    max_bytes: int = 4 * 1024**3
    importable: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What settings say."""
        return cls(settings.allow_pickle, settings.max_payload_bytes, settings.importable)


_PERMIT: ContextVar[Permit | None] = ContextVar("pgresults.permit", default=None)
_STORED: ContextVar[bool] = ContextVar("pgresults.stored", default=False)
_ASKED: Final[set[str]] = set()
"""What serializers of this program's own making name: records may name that, too."""


class within_permit:  # noqa: N801 (used as a function; as a generator it would cost more than many a payload)
    """Serialize inside of the block as a storage's settings say, whatever the present ones are."""

    __slots__ = ("_permit", "_token")

    def __init__(self, permit: Permit) -> None:
        self._permit = permit

    def __enter__(self) -> None:
        self._token: Token[Permit | None] = _PERMIT.set(self._permit)

    def __exit__(self, *_: object) -> None:
        _PERMIT.reset(self._token)


class named_by_data:  # noqa: N801 (as above)
    """Take what serializers name inside of the block for the words of stored data, not for this program's."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token: Token[bool] = _STORED.set(True)

    def __exit__(self, *_: object) -> None:
        _STORED.reset(self._token)


def permit() -> Permit:
    """What holds here: as the enclosing block or the settings say."""
    return _PERMIT.get() or Permit.of(current_settings())


def ask(path: str) -> None:
    """Note that this program has named code; nothing is noted where stored data names it."""
    if not _STORED.get():
        _ASKED.add(path)


def require_permitted(path: str) -> None:
    """Refuse code that must not be named here; raises ValueError that says what to do."""
    if path in _KNOWN or path in (here := permit()).importable:
        return
    if not here.allow_pickle:
        raise ValueError(f"{path!r} is refused together with pickle (PGRESULTS_ALLOW_PICKLE): only known code is named")
    if _STORED.get() and path not in _ASKED:
        raise ValueError(
            f"{path!r} is not imported because stored data names it: list it in PGRESULTS_IMPORTABLE, or make the "
            "serializer in this program first"
        )


def is_importable(module: str) -> bool:
    """Whether a module is one that payloads may have imported: a listed one, one in it, or a package on the way."""
    return any(f"{module}.".startswith(f"{one}.") or one.startswith(f"{module}.") for one in permit().importable)
