"""How the schema, the server, the roles and the standby are."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pgresults.database import distribution, migrations
from pgresults.database.database import Database
from pgresults.database.distribution import Distribution
from pgresults.database.errors import is_forbidden
from pgresults.database.inspection import Server, missing_rights, server
from pgresults.database.programs import aperform, call
from pgresults.database.standbys import Lag, lag
from pgresults.errors import PgResultsError, StorageUnavailable
from pgresults.operations import views
from pgresults.operations.registry import registered
from pgresults.sql.grants import Kind
from pgresults.sql.schema import REVISION
from pgresults.web.gauges import gather
from pgresults.web.views import Console, View, page


class Schema(NamedTuple):
    """How a schema is: its revision, what is wrong with it (None: nothing), and what speaks against its database."""

    revision: str | None
    flaw: str | None
    doubts: Sequence[str]


class Standby(NamedTuple):
    """How far a standby is behind; None and why where it serves nothing."""

    lag: Lag | None
    why: str


class Condition(NamedTuple):
    """All that the page of health says."""

    schema: Schema
    server: Server
    rights: dict[Kind, list[str]]
    standby: Standby | None
    spread: Distribution | None


@page("health")
async def health(view: View) -> Response:
    """The revision, the roles and missing grants, connections, a pooler, the standby, shards."""
    database = view.storage.database
    figures = view.console.figures
    figure, storages = await asyncio.gather(
        figures.get(("health", database.schema), lambda: _condition(database)),
        figures.get(("storages", database.schema), lambda: aperform(call(database, lambda _: views.storages()))),
    )
    return view.render(figure=figure, condition=figure.value, newest=REVISION, storages_of=storages.value)


async def _condition(database: Database) -> Condition:
    url = await database.aurl()
    return Condition(
        await asyncio.to_thread(lambda: _schema(database)),
        await asyncio.to_thread(server, url),
        await asyncio.to_thread(missing_rights, url, database.schema),
        await _standby(database),
        await asyncio.to_thread(distribution.distribution_of, url, database.schema),
    )


def _schema(database: Database) -> Schema:
    url, schema = database.url(), database.schema
    revision = migrations.current(url, schema)
    try:
        return Schema(revision, None, migrations.require_sound(url, schema))
    except StorageUnavailable:
        raise
    except PgResultsError as error:
        if is_forbidden(error):
            return Schema(revision, None, ["this role may not see whether everything is as it was made"])
        return Schema(revision, str(error), [])


async def _standby(database: Database) -> Standby | None:
    if database.standby is None:
        return None
    try:
        return Standby(await aperform(lag(database, database.standby)), "")
    except PgResultsError as error:
        return Standby(None, str(error))


async def healthz(request: Request) -> Response:
    """Whether the console can show something; says no more, for anybody may ask."""
    console: Console = request.app.state.console
    try:
        await aperform(call(console.places.looked_at(), lambda _: registered()))
    except PgResultsError:
        return PlainTextResponse("the database cannot be asked\n", 503)
    return PlainTextResponse("ok\n")


async def metrics(request: Request) -> Response:
    """What Prometheus asks for."""
    console: Console = request.app.state.console
    told = await asyncio.to_thread(gather, console.places.looked_at(), None, console.options.seal_files())
    text, kind = told.encoded(request.headers.get("accept", ""))
    return Response(text, 200 if told.failure is None else 503, media_type=kind)
