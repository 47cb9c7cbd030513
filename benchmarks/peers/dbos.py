"""DBOS: workflows whose results are kept in the same Postgres."""

from dbos import DBOS, SetWorkflowID

from benchmarks.peers.peer import Place, produce

_workflow = DBOS.workflow(name="produce")(produce)
_step = DBOS.step(name="produce step")(produce)


@DBOS.workflow(name="many")
def _many(keys: list[str], size: int) -> list[bytes]:
    return [_step(key, size) for key in keys]


class Dbos:
    """A workflow with the key for its id; `map` is one workflow of many steps."""

    def __init__(self, place: Place) -> None:
        DBOS(config={"name": "benchmarks", "system_database_url": place.url, "log_level": "ERROR"})
        DBOS.launch()

    def call(self, key: str, size: int) -> bytes:
        with SetWorkflowID(f"{key} {size}"):
            return _workflow(key, size)

    def map(self, keys: list[str], size: int) -> list[bytes]:
        with SetWorkflowID(f"many {keys[0]}"):
            return _many(keys, size)

    def close(self) -> None:
        DBOS.destroy()
