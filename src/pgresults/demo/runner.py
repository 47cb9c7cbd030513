"""Analysing in worker processes, each with a store of its own."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from multiprocessing import get_context

from pgresults.demo.analysis import analyse
from pgresults.demo.modules import Module, batches, key_of
from pgresults.errors import PgResultsError
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

_BATCH_BYTES = 128 * 1024  # about a tenth of a second of work: how long an interrupted run takes to end


def analyse_all(
    storage: PostgresStorage,
    modules: Sequence[Module],
    expiration: datetime,
    workers: int,
    progress: Callable[[int], None],
) -> int:
    """Analyse modules in worker processes, storing one result for each; an interrupted run leaves whole results only.

    Parameters:
        storage: where the results go.
        modules: what to analyse, no content twice.
        expiration: when the results cease to be live.
        workers: how many processes.
        progress: told after every batch how many modules it had.

    Returns: how many results were computed; the others were there already.
    Raises: what storing a result raises; PgResultsError when a worker process was killed.
    """
    computed = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        try:
            futures: dict[Future[int], int] = {}
            with _interrupts_held():  # workers inherit this: Ctrl-C reaches them too, but only we answer it
                for batch in batches(modules, _BATCH_BYTES):
                    futures[executor.submit(_analyse_batch, storage, batch, expiration)] = len(batch)
            for future in as_completed(futures):
                computed += future.result()
                progress(futures[future])
        except BrokenProcessPool as error:
            raise PgResultsError("a worker process was killed; what is done is stored: run this again") from error
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return computed


@contextmanager
def _interrupts_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _analyse_batch(storage: PostgresStorage, batch: list[Module], expiration: datetime) -> int:
    store = _store_on(storage)
    return sum(_analyse_once(store, module, expiration) for module in batch)


@cache
def _store_on(storage: PostgresStorage) -> ResultStore:
    """This process' store: every batch brings an equal storage, the first one keeps its connection."""
    return ResultStore(result_storage=storage, serializer=JSONSerializer(), cache_result_in_memory=False)


def _analyse_once(store: ResultStore, module: Module, expiration: datetime) -> bool:
    source = module.path.read_bytes()
    key = key_of(source)
    if store.exists(key):  # another run was faster
        return False
    store.write(analyse(source), key=key, expiration=expiration, tags=["demo"], provenance={"file": module.name})
    return True
