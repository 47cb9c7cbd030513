"""`PersistedResult`, the deprecated reference to a stored result; `ResultStore.write` and `read` replace it."""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, PrivateAttr, SerializerFunctionWrapHandler, model_serializer

from pgresults.database.programs import Program, aperform, perform
from pgresults.records.records import AwareDatetime
from pgresults.serializers import Serializer
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage
from pgresults.storage.registry import require_postgres, resolving, resolving_default
from pgresults.store.deprecation import warn_deprecated
from pgresults.store.reading import read
from pgresults.store.writing import draft_of, write


class _Absent(Enum):
    """A member stays the same object when models copy it or pickle it, as they do with their defaults."""

    NOT_SET = "not set"


NotSet: Final = _Absent.NOT_SET
"""What stands for an object that was not given, where None is one."""


class PersistedResult(BaseModel):
    """A reference to a result in a storage; deprecated."""

    type: Literal["reference"] = "reference"
    serializer_type: str
    storage_key: str
    storage_block_id: UUID | None = None
    expiration: AwareDatetime | None = None
    serialize_to_none: bool = False

    _serializer: Serializer | None = PrivateAttr(None)
    _storage: PostgresStorage | None = PrivateAttr(None)
    _object: Any = PrivateAttr(NotSet)
    _keeps: bool = PrivateAttr(True)
    """Whether the object stays here once it is written or read."""
    _written: bool = PrivateAttr(False)

    def model_post_init(self, _context: Any) -> None:
        """Warn that this is deprecated."""
        warn_deprecated("PersistedResult is deprecated: use ResultStore.write and ResultStore.read")

    @model_serializer(mode="wrap")
    def _dumped(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any] | None:
        return None if self.serialize_to_none else dump(self)

    @classmethod
    def create(
        cls,
        obj: Any,
        storage_block: PostgresStorage,
        storage_key_fn: Callable[[], str],
        serializer: Serializer,
        storage_block_id: UUID | None = None,
        cache_object: bool = True,
        expiration: datetime | None = None,
        serialize_to_none: bool = False,
    ) -> Self:
        """Make a reference to an object, which `write` stores.

        Parameters:
            obj: the result.
            storage_block: where it goes.
            storage_key_fn: gives its key.
            serializer: turns it into its payload.
            storage_block_id: the storage's id; None: as it is registered.
            cache_object: whether `get` gives this object without reading once it is written; before that it does.
            expiration: when it ceases to be live (aware); None: never.
            serialize_to_none: store nothing, and have the reference dumped as None.

        Raises: TypeError when the key is no text.
        """
        key = storage_key_fn()
        if not isinstance(key, str):
            raise TypeError(f"storage_key_fn gave {type(key).__name__}, not str")
        reference = cls(
            serializer_type=serializer.type,
            storage_key=key,
            storage_block_id=storage_block_id or storage_block.storage_block_id,
            expiration=expiration,
            serialize_to_none=serialize_to_none,
        )
        reference._serializer, reference._storage = serializer, storage_block
        reference._object, reference._keeps = obj, cache_object
        return reference

    @classmethod
    async def acreate(
        cls,
        obj: Any,
        storage_block: PostgresStorage,
        storage_key_fn: Callable[[], str],
        serializer: Serializer,
        storage_block_id: UUID | None = None,
        cache_object: bool = True,
        expiration: datetime | None = None,
        serialize_to_none: bool = False,
    ) -> Self:
        """Make a reference to an object, which `write` stores; see `create`."""
        return cls.create(
            obj,
            storage_block,
            storage_key_fn,
            serializer,
            storage_block_id,
            cache_object,
            expiration,
            serialize_to_none,
        )

    def write(self, obj: Any = NotSet) -> None:
        """Store the object; a second time, and with ``serialize_to_none``, nothing happens.

        Parameters:
            obj: the result; without one, that of `create`.

        Raises: what `ResultStore.write` raises; ValueError when there is no object.
        """
        perform(self._write(obj))

    async def awrite(self, obj: Any = NotSet) -> None:
        """Store the object; see `write`."""
        await aperform(self._write(obj))

    def has_cached_object(self) -> bool:
        """Whether `get` gives an object that is kept here."""
        return self._object is not NotSet

    def get(self, ignore_cache: bool = False) -> Any:
        """Give the object, read from the storage with its expiration unless it is kept here.

        Raises: what `ResultStore.read` raises.
        """
        return perform(self._get(ignore_cache))

    async def aget(self, ignore_cache: bool = False) -> Any:
        """Give the object; see `get`."""
        return await aperform(self._get(ignore_cache))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PersistedResult) and dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash((self.storage_key, self.storage_block_id))

    def _write(self, obj: Any) -> Program[None]:
        if self._written or self.serialize_to_none:
            return
        given = self._object if obj is NotSet else obj
        if given is NotSet:
            raise ValueError("there is no object to write: give one")
        keyspace = yield from self._keyspace()
        draft = draft_of(given, self.storage_key, keyspace.serializer, self.expiration)
        yield from write(keyspace, draft, lambda: self.storage_key)
        self._written = True
        self._object = given if self._keeps else NotSet

    def _get(self, ignore_cache: bool) -> Program[Any]:
        if self.has_cached_object() and not ignore_cache:
            return self._object
        record = yield from read((yield from self._keyspace()), self.storage_key)
        self.expiration = record.expiration
        if self._keeps:
            self._object = record.result
        return record.result

    def _keyspace(self) -> Program[Keyspace]:
        if self._storage is None:
            found = resolving_default() if self.storage_block_id is None else resolving(self.storage_block_id)
            self._storage = require_postgres((yield from found))
        return Keyspace(self._storage, None, self._serializer or Serializer.model_validate(self.serializer_type))
