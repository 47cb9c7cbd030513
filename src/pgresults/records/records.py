"""Results with their metadata, as models and as bytes; no I/O."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    SerializeAsAny,
    ValidationError,
    field_serializer,
    model_validator,
)

from pgresults.arguments import aware_utc
from pgresults.errors import PgResultsError, SerializationError
from pgresults.interruptions import is_interruption
from pgresults.records.lineage import Origin
from pgresults.records.listings import html_table, shortened
from pgresults.serializers import PickleSerializer, Serializer
from pgresults.serializers.base import DOCUMENT
from pgresults.serializers.parts import Arrived, Dumped
from pgresults.serializers.permits import named_by_data

VERSION: Final = version("pgresults")

R = TypeVar("R")
P = TypeVar("P")


AwareDatetime = Annotated[datetime, BeforeValidator(aware_utc)]


class ResultRecordMetadata(BaseModel):
    """What is known about a result beside its payload.

    Times are aware and kept in UTC; ``size`` is in bytes, ``sha256`` in hex. ``version``, ``created_at``,
    ``size``, ``sha256`` and ``provenance`` are None until the result is stored and take no part in ``==``.
    """

    model_config = ConfigDict(frozen=True)

    storage_key: str | None = None
    expiration: AwareDatetime | None = None
    serializer: SerializeAsAny[Serializer] = Field(default_factory=PickleSerializer)
    pgresults_version: str = VERSION
    prefect_version: str | None = None
    storage_block_id: UUID | None = None

    version: int | None = None
    created_at: AwareDatetime | None = None
    size: int | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    provenance: dict[str, Any] | None = None

    @property
    def _origin(self) -> Origin | None:
        """The version that it was read or stored as, for what is computed from it."""
        return vars(self).get("_origin")

    def _known_as(self, origin: Origin | None) -> None:
        """Say as which version it was read or stored; a private attribute of pydantic's would cost each read more."""
        vars(self)["_origin"] = origin

    @field_serializer("provenance", when_used="json")
    def _without_process(
        self, provenance: dict[str, Any] | None, info: FieldSerializationInfo
    ) -> dict[str, Any] | None:
        """What becomes JSON may go to anybody, as a web server's answer: no host, process and user unless asked for."""
        if provenance is None or (info.context or {}).get("process"):
            return provenance
        return {name: value for name, value in provenance.items() if name != "process"}

    def dump_bytes(self) -> bytes:
        """Give the metadata as JSON, which Prefect's ``ResultRecordMetadata.load_bytes`` reads too."""
        return json.dumps(self._document()).encode()

    @classmethod
    def load_bytes(cls, data: bytes) -> Self:
        """Give the metadata of such JSON, ours or Prefect's; raises pydantic's ValidationError."""
        with named_by_data():
            return cls.model_validate_json(data)

    def _document(self) -> dict[str, Any]:
        """Give the metadata as a JSON object."""
        fields = self.model_dump(mode="json", context={**DOCUMENT, "process": True})
        return {name: value for name, value in fields.items() if value is not None}

    def _identity(self) -> tuple[Any, ...]:
        return (
            self.storage_key,
            self.expiration,
            self.serializer,
            self.pgresults_version,
            self.prefect_version,
            self.storage_block_id,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResultRecordMetadata):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


class RecordSource(Protocol):
    """What finds the record that metadata belongs to."""

    def read(self, metadata: ResultRecordMetadata) -> "ResultRecord[Any]":
        """Read the record."""

    async def aread(self, metadata: ResultRecordMetadata) -> "ResultRecord[Any]":
        """Read the record."""


class ResultRecord(BaseModel, Generic[R]):
    """A result with its metadata."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    _source: ClassVar[RecordSource]
    """Where `from_metadata` reads; the module that knows storages sets it, for it stands above this one."""

    metadata: ResultRecordMetadata = Field(default_factory=ResultRecordMetadata)
    result: R

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, given: Any) -> Any:
        """The old flat form: what is metadata now stands beside the result, and that is called ``data``."""
        if not isinstance(given, dict) or given.keys() <= {"metadata", "result"}:
            return given
        said = {name: given[name] for name in _FLAT if name in given}
        fields = {name: value for name, value in given.items() if name not in said}
        if "data" in fields:
            fields["result"] = fields.pop("data")
        if said:
            around = fields.get("metadata", {})
            fields["metadata"] = {**(dict(around) if isinstance(around, BaseModel | Mapping) else {}), **said}
        return fields

    @property
    def _origin(self) -> Origin | None:
        """The version that it was read or stored as."""
        return self.metadata._origin

    @property
    def expiration(self) -> datetime | None:
        """When the result ceases to be live; None means never."""
        return self.metadata.expiration

    @property
    def serializer(self) -> Serializer:
        """What turns the result into its payload."""
        return self.metadata.serializer

    def _repr_html_(self) -> str:
        """The record as a notebook shows it."""
        known = self.metadata.model_dump(mode="json", exclude={"serializer"}, exclude_none=True)
        rows = [("result", shortened(self.result)), ("serializer", self.serializer.type), *known.items()]
        return html_table(("", ""), rows)

    def serialize_result(self) -> bytes:
        """Give the payload; raises SerializationError."""
        return payload_of(self.result, self.serializer)

    def serialize_metadata(self) -> bytes:
        """Give the metadata as JSON."""
        return self.metadata.dump_bytes()

    def serialize(self) -> bytes:
        """Give one JSON document of metadata and payload that Prefect 3 reads; raises SerializationError."""
        payload = self.serialize_result()
        try:
            text = self.serializer._to_text(payload)
        except ValueError as exc:
            raise _not_serializable(self.result, self.serializer, exc) from exc
        return json.dumps({"metadata": self.metadata._document(), "result": text}).encode()

    @classmethod
    def deserialize(cls, data: bytes, backup_serializer: Serializer | None = None) -> Self:
        """Give the record of such a document, whoever wrote it, also in Prefect's old flat form.

        Bytes that are no such document are a bare payload to ``backup_serializer``; without one, and when
        document or payload cannot be read, raises SerializationError.
        """
        document = _read_document(data, bare_allowed=backup_serializer is not None)
        if document is not None:
            fields, content = document
            try:
                with named_by_data():
                    metadata = ResultRecordMetadata.model_validate(fields)
            except ValidationError as exc:
                raise SerializationError(f"The metadata of the result document cannot be read: {exc}") from exc
            if not isinstance(content, str):
                return cls(metadata=metadata, result=content)
            return cls._from_payload(metadata, content)
        if backup_serializer is not None:
            return cls._from_payload(ResultRecordMetadata(serializer=backup_serializer), data)
        raise SerializationError(
            "These bytes are no result document. If they are a bare payload, say how it was written: "
            'deserialize(data, backup_serializer=Serializer(type="pickle"))'
        )

    @classmethod
    def deserialize_from_result_and_metadata(cls, result: bytes, metadata: bytes) -> Self:
        """Give the record of a payload and of its metadata's JSON; raises SerializationError."""
        try:
            loaded = ResultRecordMetadata.load_bytes(metadata)
        except ValidationError as exc:
            raise SerializationError(f"The metadata of the result cannot be read: {exc}") from exc
        return cls._from_payload(loaded, result)

    @classmethod
    def from_metadata(cls, metadata: ResultRecordMetadata) -> "ResultRecord[Any]":
        """Read the record that metadata belongs to, from the storage that it names or else from the default one.

        Raises: ConfigurationError for a storage that is not registered; what `ResultStore.read` raises.
        """
        return ResultRecord._source.read(metadata)

    @classmethod
    async def afrom_metadata(cls, metadata: ResultRecordMetadata) -> "ResultRecord[Any]":
        """Read the record that metadata belongs to; see `from_metadata`."""
        return await ResultRecord._source.aread(metadata)

    @classmethod
    def _from_payload(cls, metadata: ResultRecordMetadata, payload: Arrived | str, *, spend: bool = False) -> Self:
        """Give the record of a payload and of its metadata.

        Parameters:
            metadata: names the serializer.
            payload: as bytes, or as the text that stands in a result document.
            spend: whether the payload is not needed any more: its memory may be given back while it is loaded.

        Raises: SerializationError.
        """
        serializer = metadata.serializer
        try:
            data = serializer._from_text(payload) if isinstance(payload, str) else payload
            result = serializer._load(data, spend=spend)
        except PgResultsError:
            raise
        except Exception as exc:
            if is_interruption(exc):
                raise
            raise SerializationError(
                f"The payload cannot be read with the serializer {serializer.type!r} "
                f"({_in_short(exc)}). Make sure that it was written with this serializer and that the "
                "classes it names can be imported here.",
                serializer_type=serializer.type,
            ) from exc
        return cls(metadata=metadata, result=result)


def payload_of(result: object, serializer: Serializer) -> bytes:
    """Give the payload of a result; raises SerializationError."""
    return _made(serializer.dumps, result, serializer)


def parts_of(result: object, serializer: Serializer) -> Dumped:
    """Give the payload of a result, in parts where that saves a copy of what is large; raises SerializationError."""
    return _made(serializer._dump, result, serializer)


def _made(dumps: Callable[[Any], P], result: object, serializer: Serializer) -> P:
    try:
        return dumps(result)
    except PgResultsError:
        raise
    except Exception as exc:
        if is_interruption(exc):
            raise
        raise _not_serializable(result, serializer, exc) from exc


_FLAT = ("serializer", "expiration", "prefect_version")


def _read_document(data: bytes, *, bare_allowed: bool) -> tuple[dict[str, Any], Any] | None:
    """Give metadata and content, or None when the bytes are no document.

    A payload may be a JSON object with a ``data`` entry itself, so when it may stand bare a document must
    carry metadata or name its serializer.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not document.keys() <= {"metadata", "result", "data", *_FLAT}:
        return None
    metadata = document.get("metadata", {})
    if not isinstance(metadata, dict) or not document.keys() & {"result", "data"}:
        return None
    if bare_allowed and not document.keys() & {"metadata", "serializer"}:
        return None
    metadata |= {name: document[name] for name in _FLAT if name in document}
    return metadata, document["data"] if "data" in document else document["result"]


def _not_serializable(result: object, serializer: Serializer, cause: Exception) -> SerializationError:
    kind = type(result)
    if isinstance(result, BaseModel) and kind.__module__ == "__main__" and "pickle" in serializer.type:
        advice = (
            "Its class is defined in a notebook or script, where pydantic models often cannot be pickled: "
            'move the class to a module that is imported, or use the serializer "json".'
        )
    elif "json" in serializer.type:
        advice = 'Use the serializer "pickle", name an object_encoder, or return a type that JSON knows.'
    else:
        advice = 'Use the serializer "json" or one of your own, or do not persist this result.'
    return SerializationError(
        f"A result of type {kind.__module__}.{kind.__qualname__} cannot be serialized with the serializer "
        f"{serializer.type!r} ({_in_short(cause)}). {advice}",
        result_type=f"{kind.__module__}.{kind.__qualname__}",
        serializer_type=serializer.type,
    )


def _in_short(exc: Exception) -> str:
    """Give the first line only: the further ones of a validation error quote the payload."""
    return f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
