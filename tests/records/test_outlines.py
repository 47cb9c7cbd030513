"""What arrays and frames look like is kept at the write, and costs other results nothing."""

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgresults import task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.errors import InvalidArgument
from pgresults.records.outlines import outline_of
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

FRAME = pd.DataFrame({"name": ["a", "b", "c"], "n": [1, 2, 3]})
OF_FRAME = {
    "type": "pandas.DataFrame",
    "shape": [3, 2],
    "columns": [["name", str(FRAME["name"].dtype)], ["n", "int64"]],
}


def module(name: str, **attributes: Any) -> Any:
    """An object that claims to be of a library."""
    return type("Frame", (), {"__module__": name, **attributes})()


@pytest.mark.parametrize(
    ("obj", "outline"),
    [
        (FRAME, OF_FRAME),
        (FRAME["n"], {"type": "pandas.Series", "shape": [3], "dtype": "int64"}),
        (np.zeros((2, 3), "float32"), {"type": "numpy.ndarray", "shape": [2, 3], "dtype": "float32"}),
        (np.float64(1), {"type": "numpy.float64", "shape": [], "dtype": "float64"}),
        (pd.DataFrame(), {"type": "pandas.DataFrame", "shape": [0, 0], "columns": []}),
        ({"a": 1}, None),
        ([FRAME], None),
        (None, None),
        (np.dtype("int8"), None),
        (pd.Timestamp(0), None),
        (module("numpyish", shape=(1,)), None),
        (module("polars.frame", shape=(1, 1), columns=["c"], dtypes=["Int64"]),
         {"type": "polars.Frame", "shape": [1, 1], "columns": [["c", "Int64"]]}),
        (module("pandas", shape=(1, 1)), None),
        (module("numpy", shape=property(lambda self: 1 / 0)), None),
        (module("numpy", shape=("x",)), None),
    ],
    ids=lambda one: type(one).__qualname__,
)  # fmt: skip
def test_type_shape_and_columns(obj: Any, outline: Any) -> None:
    assert outline_of(obj) == outline


def test_many_columns_are_a_few_and_a_number() -> None:
    outline = outline_of(pd.DataFrame(np.zeros((1, 130))))
    assert outline is not None
    assert (len(outline["columns"]), outline["more_columns"], outline["shape"]) == (100, 30, [1, 130])


async def test_it_is_kept_with_the_version_and_verifies(call: Any, store: ResultStore) -> None:
    stored = await call(store, "write", FRAME, key="k")
    assert stored.provenance["object"] == OF_FRAME
    await call(store, "write_many", {"a": np.zeros(3), "b": 1})
    assert (await call(store, "find", "a"))[0].provenance["object"]["shape"] == [3]
    assert "object" not in (await call(store, "find", "b"))[0].provenance
    odd = pd.DataFrame({"a\0\ud800" + "x" * 1000: [1], ("tuple", 1): [2]})
    await call(store, "write", odd, key="odd")
    (entry,) = await call(store, "history", "odd")
    assert entry.provenance["object"]["columns"][0][0].startswith("a\\0\\ud800x")
    assert (await call(store, "verify")).intact
    assert (await call(store, "read", "k")).result.equals(FRAME)


def test_transactions_and_tasks_keep_it(store: ResultStore) -> None:
    with transaction(key="staged", store=store) as staged:
        staged.stage(FRAME)
    assert store.find("staged")[0].provenance["object"] == OF_FRAME  # type: ignore[index]

    @task(cache_policy=INPUTS, result_storage=store.result_storage)
    def compute() -> Any:
        return FRAME

    compute()
    assert [row.provenance["object"] for row in store.find(task="compute")] == [OF_FRAME]  # type: ignore[index]


def test_columns_can_be_left_out(storage: PostgresStorage) -> None:
    settings = storage.settings.model_copy(update={"record_columns": False})
    quiet = PostgresStorage(storage.database.url(), storage.name, settings=settings)
    stored = ResultStore(result_storage=quiet).write(FRAME, key="k")
    assert stored.provenance is not None
    assert stored.provenance["object"] == {"type": "pandas.DataFrame", "shape": [3, 2]}
    quiet.close()


def test_the_name_is_taken(store: ResultStore) -> None:
    with pytest.raises(InvalidArgument, match="object"):
        store.write(1, key="k", provenance={"object": 1})


def test_nothing_is_imported_for_it() -> None:
    program = (
        "import sys; before = set(sys.modules); from pgresults.records import outlines\n"
        "outlines.outline_of({'a': 1}); print({'numpy', 'pandas', 'polars', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
