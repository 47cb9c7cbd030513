"""The job itself: a flow that maps a task over the modules, in worker processes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pgresults.demo.analysis import analyse
from pgresults.demo.modules import Module, distinct, standard_library
from pgresults.flows import flow
from pgresults.runtime.mapping import MapProgress
from pgresults.tasks import task


def _content(_: object, parameters: dict[str, Any]) -> str:
    key: str = parameters["module"].key
    return key


@task(cache_key_fn=_content, result_serializer="json")
def analyse_module(module: Module) -> dict[str, Any]:
    """What is found in a module: computed once for each content."""
    return {"file": module.name, **analyse(module.source)}


@flow(persist_result=False)
def analyse_library(
    limit: int | None, expires_in: timedelta, workers: int, progress: Callable[[MapProgress], None]
) -> list[Module]:
    """Analyse the standard library in worker processes; an interrupted run leaves whole results only.

    Parameters:
        limit: how many modules, the first ones by name; None: all.
        expires_in: how long results that are computed now are live.
        workers: how many processes.
        progress: told how far it has come.

    Returns: the modules, each with the key of its result.
    Raises: what storing a result raises; PgResultsError when a worker process was killed.
    """
    modules = standard_library(limit)
    expiring = analyse_module.with_options(cache_expiration=expires_in)
    expiring.map(distinct(modules), processes=workers, progress=progress)
    return modules
