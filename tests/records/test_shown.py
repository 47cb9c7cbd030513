"""What a record, a history and a listing show of themselves: in a web answer, in a notebook, as a frame."""

import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pgresults import ResultRecord, ResultStore
from pgresults.audit.entries import HistoryEntry
from pgresults.records.listings import Listing
from pgresults.records.records import ResultRecordMetadata
from pgresults.storage import PostgresStorage


@pytest.fixture
def record(storage: PostgresStorage) -> ResultRecord[object]:
    store = ResultStore(result_storage=storage, serializer="json")
    store.write({"total": 1}, key="report", provenance={"source": "ledger"})
    return store.read("report")


def test_a_web_answer_tells_nobody_which_process_of_whom_wrote_it(record: ResultRecord[object]) -> None:
    app = FastAPI()

    @app.get("/")
    def answer() -> ResultRecord[dict[str, int]]:
        return record  # type: ignore[return-value]

    with TestClient(app) as client:
        answered = client.get("/").json()
    assert answered["result"] == {"total": 1}
    assert answered["metadata"]["provenance"] == {"source": "ledger"}
    for dumped in (record.model_dump(mode="json"), json.loads(record.model_dump_json())):
        assert dumped["metadata"]["provenance"] == {"source": "ledger"}


def test_who_asks_gets_it(record: ResultRecord[object]) -> None:
    process = (record.metadata.provenance or {})["process"]
    assert {"host", "pid", "user"} <= process.keys()
    assert record.model_dump()["metadata"]["provenance"]["process"] == process
    asked = record.model_dump(mode="json", context={"process": True})
    assert asked["metadata"]["provenance"] == {"process": process, "source": "ledger"}
    again = ResultRecordMetadata.load_bytes(record.serialize_metadata())
    assert again.provenance == record.metadata.provenance


def test_a_record_is_a_table_in_a_notebook(record: ResultRecord[object]) -> None:
    shown = record._repr_html_()
    assert "<td>{&#x27;total&#x27;: 1}</td>" in shown
    assert "<td>json</td>" in shown
    assert str((record.metadata.provenance or {})["process"]["host"]) not in shown


def test_histories_and_findings_are_tables_and_frames(storage: PostgresStorage) -> None:
    store = ResultStore(result_storage=storage)
    for number in range(3):
        store.write(number, key=f"<b>{number}</b>", tags=["x"])
    store.write(3, key="<b>0</b>")
    found, entries = store.find(), store.history("<b>0</b>")
    assert "&lt;b&gt;0&lt;/b&gt;" in found._repr_html_()
    assert "<b>" not in found._repr_html_()
    frame = found.to_pandas()
    assert list(frame["key"]) == ["<b>0</b>", "<b>1</b>", "<b>2</b>"]
    assert str(frame["created_at"].dtype).endswith("UTC]")
    assert list(entries.to_pandas()["version"]) == [1, 2]
    assert "write" in entries._repr_html_()


def test_an_empty_listing_says_so_and_has_the_same_columns(storage: PostgresStorage) -> None:
    store = ResultStore(result_storage=storage)

    def listed() -> list[Listing[Any]]:
        return [store.find(), store.history("k"), store.expiring(timedelta(days=1))]

    empty = listed()
    store.write(1, key="k", expires_in=timedelta(hours=1))
    for nothing, found in zip(empty, listed(), strict=True):
        assert "nothing" in nothing._repr_html_()
        frame = pickle.loads(pickle.dumps(nothing)).to_pandas()
        assert (len(frame), list(frame.columns)) == (0, list(found.to_pandas().columns))


def test_a_long_listing_shows_its_beginning(record: ResultRecord[object], storage: PostgresStorage) -> None:
    entries = ResultStore(result_storage=storage).history("report")
    long = Listing(list(entries) * 60, HistoryEntry)
    assert long._repr_html_().count("<tr>") == 51
    assert "and 10 more" in long._repr_html_()
    assert datetime.now(UTC).strftime("%Y-%m-%d") in long._repr_html_()
