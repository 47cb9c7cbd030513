"""The block that keeps Prefect's results in Postgres."""

import asyncio
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Optional

from prefect.context import FlowRunContext, TaskRunContext
from prefect.filesystems import WritableFileSystem
from pydantic import ConfigDict, Field, SecretStr, model_validator

from pgresults.database.programs import Program, aperform, compute, perform
from pgresults.integrations.prefect.documents import BLOCK_STORAGE, put_together, upload_of
from pgresults.integrations.prefect.locks import PostgresLockManager, locks_of
from pgresults.integrations.prefect.trees import Tree, Write, Writer
from pgresults.records.keys import require_key
from pgresults.serializers.parts import held
from pgresults.settings import current_settings
from pgresults.sql.guards import Guard
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage


class PostgresResultStorage(WritableFileSystem):  # type: ignore[misc, unused-ignore] # Prefect may be absent
    """Keeps Prefect's results in Postgres: each under its key, with its expiration, its run and its history."""

    model_config = ConfigDict(hide_input_in_errors=True)  # what is no block yet may hold the password as well

    _block_type_name = "Postgres Result Storage"
    _block_type_slug = "postgres-result-storage"
    _logo_url = "https://www.postgresql.org/media/img/about/press/elephant.png"
    _description = "Keeps results in Postgres, with their expiration, their run and their history."

    # Prefect 3.1 sees that a field is secret only where the union is written so.
    url: Optional[SecretStr] = Field(  # noqa: UP045
        None,
        title="URL",
        description="The database, postgresql://user:password@host/name. Without it and without a path: what "
        "PGRESULTS_DATABASE_URL says where the flow runs.",
    )
    path: str | None = Field(
        None, title="Path", description="Instead of a URL: a directory, in which a Postgres server of its own lives."
    )
    name: str = Field(BLOCK_STORAGE, title="Name", description="The collection of results.")
    database_schema: str | None = Field(
        None, title="Schema", description="The database schema that holds the tables. Without it: as the settings say."
    )

    @model_validator(mode="after")
    def _one_place(self) -> "PostgresResultStorage":
        if self.url is not None and self.path is not None:
            raise ValueError("give a URL or a path, not both")
        return self

    @property
    def storage(self) -> PostgresStorage:
        """The storage that the block stands for; one for a process, however often the block is loaded."""
        if self.url is not None:
            target: str | Path | None = self.url.get_secret_value()
        elif self.path is not None:
            target = Path(self.path)
        else:
            url = current_settings().database_url
            target = current_settings().embedded_directory if url is None else url.get_secret_value()
        return _storage(target, self.name, self.database_schema or current_settings().database_schema)

    def lock_manager(self) -> PostgresLockManager:
        """The manager of the locks of these results' keys."""
        return locks_of(self.storage.database, self.name)

    def read_path(self, path: str, _sync: bool | None = None) -> Any:
        """Read what was written under a path: a result as Prefect's document, anything else as it was.

        Parameters:
            path: the key.
            _sync: whether to block; None: unless an event loop runs in this thread, then this is to be awaited.

        Raises: MissingResult (a ``ValueError``), also when the result has expired; IntegrityError; StorageUnavailable.
        """
        return perform(self._read(path)) if _blocks(_sync) else self.aread_path(path)

    async def aread_path(self, path: str) -> bytes:
        """Read what was written under a path; see `read_path`."""
        return await aperform(self._read(path))

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> Any:
        """Store a result document, or any other bytes, as the next version under a path.

        Parameters:
            path: the key.
            content: what Prefect writes.
            _sync: as for `read_path`.

        Raises: InvalidKey; PayloadTooLarge; StorageUnavailable.
        """
        return perform(self._write(path, content)) if _blocks(_sync) else self.awrite_path(path, content)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Store a result document; see `write_path`."""
        await aperform(self._write(path, content))

    def _resolve_path(self, path: str) -> str:
        """Keys are paths already; Prefect asks where no block is saved, and takes the answer relative to that of ''."""
        return path.lstrip("/")

    def _read(self, path: str) -> Program[bytes]:
        storage, key = self.storage, require_key(self._resolve_path(path))
        if (tree := Tree.running()) is not None and (waiting := tree.upload(storage, key)) is not None:
            columns = waiting.columns
            payload = columns["data"]
            small = storage._is_small(payload)
            return (yield from compute(lambda: put_together(columns, key, payload, storage._trust), small=small))
        found = require_live((yield from storage._fetch(key)), key)
        require_signed(found.head, key, storage._trust)
        small, columns = storage._is_small(found.payload or b""), found.head._asdict()
        return (
            yield from compute(
                lambda: put_together(columns, key, held(require_intact(found, key), spend=True), storage._trust),
                small=small,
            )
        )

    def _write(self, path: str, content: bytes) -> Program[None]:
        storage, key = self.storage, require_key(self._resolve_path(path))
        writer = Writer.of(key)
        guard, proof = (Guard.NONE, {}) if writer is None else writer.proof(storage, key)
        run = _run_provenance({} if writer is None else writer.logged())
        yield from storage._trusted(register=True)
        upload = yield from compute(
            lambda: upload_of(storage, key, content, run, guard=guard, described=proof),
            small=storage._is_small(content),
        )
        if writer is None:
            yield from storage._store(upload)
        else:
            yield from writer.storing(self, Write(storage, upload), _arrives)


_ON_THE_WAY = ("write_path", "awrite_path", "_write", "_resolve_path", "storage")


def _arrives(block: Any) -> bool:
    """Whether what is written to a block surely arrives here under its key; a derived class may do anything with it."""
    kind = type(block)
    return issubclass(kind, PostgresResultStorage) and all(
        getattr(kind, name) is getattr(PostgresResultStorage, name) for name in _ON_THE_WAY
    )


def _run_provenance(logged: Mapping[str, Any]) -> dict[str, Any]:
    """The flow and task whose result it is, with the ids and names of their runs.

    Parameters:
        logged: what Prefect's log says of the transaction's run. Where it names a task, that is the one: a nested
            transaction is committed in another task's run, or when none is left.
    """
    if "task_run_id" in logged:
        return {kind: run for kind in ("flow", "task") if (run := _logged_run(logged, kind))}
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    known: dict[str, Any] = {}
    if flow is not None and flow.flow is not None and flow.flow_run is not None:
        known["flow"] = {"name": flow.flow.name, "run_id": str(flow.flow_run.id), "run_name": flow.flow_run.name}
    if task is not None:
        known["task"] = {
            "name": task.task.name,
            "run_id": str(task.task_run.id),
            "run_name": task.task_run.name,
        }
    return known


def _logged_run(logged: Mapping[str, Any], kind: str) -> dict[str, Any]:
    names = {"name": f"{kind}_name", "run_id": f"{kind}_run_id", "run_name": f"{kind}_run_name"}
    return {
        name: logged[given] for name, given in names.items() if logged.get(given) not in (None, "None", "<unknown>")
    }


@cache
def _storage(target: str | Path, name: str, schema: str) -> PostgresStorage:
    return PostgresStorage(target, name, schema)


def _blocks(sync: bool | None) -> bool:
    """Whether a call is to block: as Prefect says, else unless an event loop runs here."""
    if sync is not None:
        return sync
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False
