"""A lineage in the words of others: W3C PROV as PROV-JSON, and OpenLineage."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from pgresults.audit.descent import LineageEdge, LineageVersion
from pgresults.records.records import VERSION

_PREFIXES = {
    "version": "urn:pgresults:version:",
    "run": "urn:pgresults:run:",
    "who": "urn:pgresults:actor:",
    "pgresults": "urn:pgresults:",
}
_PRODUCER = f"https://pypi.org/project/pgresults/{VERSION}/"
_SPECIFICATION = "https://openlineage.io/spec"
_EVENT = f"{_SPECIFICATION}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_DATASET_VERSION = f"{_SPECIFICATION}/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"


def prov(versions: Iterable[LineageVersion], edges: Iterable[LineageEdge]) -> dict[str, Any]:
    """A document of PROV-JSON: versions are entities, what wrote each is an activity, whoever did so an agent."""
    document: dict[str, dict[str, Any]] = {"prefix": dict(_PREFIXES), "entity": {}, "activity": {}, "agent": {}}
    for one in versions:
        document["entity"][_entity(one)] = {
            "prov:label": str(one),
            "pgresults:storage": one.storage,
            "pgresults:key": one.key,
            "pgresults:version": one.version,
        }
        document["activity"][_run(one)] = {"prov:label": _job(one)}
        document["agent"][_agent(one)] = {"prov:label": one.actor}
    for kind, said in dict.fromkeys((kind, tuple(said.items())) for kind, said in _relations(versions, edges)):
        relations = document.setdefault(kind, {})
        relations[f"_:{kind}{len(relations) + 1}"] = dict(said)
    return document


def _relations(
    versions: Iterable[LineageVersion], edges: Iterable[LineageEdge]
) -> Iterator[tuple[str, dict[str, str]]]:
    for one in versions:
        entity, run, agent = {"prov:entity": _entity(one)}, {"prov:activity": _run(one)}, {"prov:agent": _agent(one)}
        yield "wasGeneratedBy", entity | run | {"prov:time": _time(one)}
        yield "wasAssociatedWith", run | agent
        yield "wasAttributedTo", entity | agent
    for edge in edges:
        source, run = _entity(edge.parent), {"prov:activity": _run(edge.version)}
        yield "used", run | {"prov:entity": source}
        yield "wasDerivedFrom", {"prov:generatedEntity": _entity(edge.version), "prov:usedEntity": source} | run


def openlineage(versions: Iterable[LineageVersion], edges: Iterable[LineageEdge]) -> list[dict[str, Any]]:
    """The events by which OpenLineage would have heard of it, in the order of the versions' writing."""
    inputs: dict[LineageVersion, list[LineageVersion]] = {}
    for edge in edges:
        inputs.setdefault(edge.version, []).append(edge.parent)
    return [_event(one, inputs.get(one, [])) for one in sorted(versions, key=lambda one: one.at)]


def _event(made: LineageVersion, inputs: list[LineageVersion]) -> dict[str, Any]:
    return {
        "eventType": "COMPLETE",
        "eventTime": _time(made),
        "run": {"runId": str(_run_id(made))},
        "job": {"namespace": _namespace(made), "name": _job(made)},
        "inputs": [_dataset(one) for one in inputs],
        "outputs": [_dataset(made)],
        "producer": _PRODUCER,
        "schemaURL": _EVENT,
    }


def _dataset(one: LineageVersion) -> dict[str, Any]:
    version = {"_producer": _PRODUCER, "_schemaURL": _DATASET_VERSION, "datasetVersion": str(one.version)}
    return {"namespace": _namespace(one), "name": one.key, "facets": {"version": version}}


def _namespace(one: LineageVersion) -> str:
    return f"pgresults://{_quoted(one.storage)}"


def _job(one: LineageVersion) -> str:
    """What wrote a version."""
    return one.task or one.flow or "write"


def _run_id(one: LineageVersion) -> UUID:
    """The run that wrote a version; what was written outside of any is a run of its own."""
    with suppress(ValueError):
        return UUID(one.run_id or "")
    return uuid5(NAMESPACE_URL, f"pgresults/{one.storage}/{one.version}/{one.key}")


def _run(one: LineageVersion) -> str:
    return f"run:{_run_id(one)}"


def _entity(one: LineageVersion) -> str:
    return f"version:{_quoted(one.storage)}/{_quoted(one.key)}/{one.version}"


def _agent(one: LineageVersion) -> str:
    return f"who:{_quoted(one.actor)}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _time(one: LineageVersion) -> str:
    return one.at.isoformat()
