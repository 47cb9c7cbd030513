"""Whether what is stored can be believed: verifications, seals, proofs and certificates."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.responses import Response

from pgresults.audit.checks import Finding
from pgresults.audit.reports import VerifyReport
from pgresults.audit.seals import Seal
from pgresults.database.programs import aperform, call
from pgresults.errors import IntegrityError, InvalidArgument, MissingResult
from pgresults.operations import console
from pgresults.operations.verify import count_keys
from pgresults.records.keys import require_key
from pgresults.records.provenance import actor
from pgresults.sql.grants import Kind
from pgresults.store import ResultStore
from pgresults.web.jobs import Job, Progress
from pgresults.web.views import View, change, page, see

_MOST_FINDINGS = 200
_STORAGES = 50


class Sealed(NamedTuple):
    """What a seal in a file that the console was started with says; its signature is checked by a verification."""

    at: datetime
    entries: int
    file: str


@page("integrity", Kind.AUDITOR)
async def integrity(view: View) -> Response:
    """The storages with their last verifications and seals, and what can be checked."""
    seals = await asyncio.to_thread(lambda: newest_seals(view.console.options.seal_files()))
    names = sorted({*view.place.storages.values(), view.storage.name})
    after = view.asked("after") or ""
    shown = [name for name in names if name > after][:_STORAGES]
    return view.render(
        verified=view.console.jobs.last("verify", view.storage.schema),
        seals=seals,
        names=shown,
        further=shown[-1] if shown and shown[-1] != names[-1] else None,
        runs=view.console.jobs.of("verify", view.storage)[:10],
        knows_seals=bool(view.console.options.seals),
        public_key=view.storage.settings.seal_public_key,
    )


def newest_seals(files: Sequence[Path]) -> dict[str, Sealed]:
    """The newest seal of each storage in files; what is none is left out."""
    found: dict[str, Sealed] = {}
    for file in files:
        try:
            seal = Seal.load_bytes(file.read_bytes())
        except (OSError, IntegrityError):
            continue
        known = found.get(seal.storage)
        if known is None or known.at < seal.sealed_at:
            found[seal.storage] = Sealed(seal.sealed_at, seal.entries, file.name)
    return found


@change("integrity", Kind.AUDITOR, changes=False)
async def verify(view: View) -> Response:
    """Begin to verify the storage."""
    form = await view.request.form()
    key = str(form.get("key", "")).strip() or None
    return see(_begun(view, None if key is None else require_key(key), None))


def _begun(view: View, key: str | None, seal: Seal | None, total: int | None = None) -> str:
    """Begin a verification; gives the address of its page."""
    store = ResultStore(result_storage=view.storage)

    async def work(progress: Progress) -> VerifyReport:
        if key is None:
            found = await aperform(call(view.storage.database, lambda _: count_keys(view.storage.id)))
            job.total = found
        return await store.averify(key, against=seal, progress=progress)

    against = f" against the seal of {seal.sealed_at:%Y-%m-%d %H:%M:%S}Z" if seal else ""
    title = f"{key or 'all keys'}{against}"
    job = view.console.jobs.begin("verify", view.storage, title, view.visitor.name or actor(), total, work)
    return view.url("integrity/run", id=job.id)


@page("integrity", Kind.AUDITOR)
async def run(view: View) -> Response:
    """A verification: how far it is, or what it found."""
    job = view.console.jobs.find(view.asked("id"))
    if job is None or (job.schema, job.storage) != (view.storage.schema, view.storage.name):
        raise MissingResult("that verification is not known any more: a console forgets them when it ends")
    start = view.number("from", 0) or 0
    return view.render("run.html", job=job, **await _found(view, job, start))


async def _found(view: View, job: Job, start: int) -> Mapping[str, Any]:
    report: VerifyReport | None = job.result
    if report is None:
        return {"report": None}
    some = report.findings[start : start + _MOST_FINDINGS]
    return {
        "report": report,
        "findings": [(one, *(await _says(view, one))) for one in some],
        "start": start,
        "further": start + len(some) if start + len(some) < len(report.findings) else None,
        "here_run": lambda **changed: view.url("integrity/run", id=job.id, **changed),
    }


_SHOULD = {
    "entry": "what its digest was made of when the server wrote it",
    "chain": "each entry follows the one before it, from the first to the last",
    "payload": "the bytes that the history names by their digest",
    "seal": "what was there when it was sealed",
    "storage": "triggers and names as pgresults made them",
    "head": "what the last entry of its history says",
}
_SHIPPED = "what this version of pgresults ships"


async def _says(view: View, finding: Finding) -> tuple[list[str], list[str]]:
    """What something says, and what it should say."""
    if finding.kind == "head" and len(finding.keys) == 1:
        storage, key = view.storage, finding.keys[0]
        found = await aperform(call(storage.database, lambda _: console.differences(storage.id, key)))
        if found:
            return (
                [f"{one.field}: {_short(one.row)}" for one in found],
                [f"{one.field}: {_short(one.entry)}" for one in found],
            )
    return [finding.message], [_SHOULD.get(finding.kind, _SHIPPED)]


def _short(value: str | None) -> str:
    return "nothing" if value is None else value[:200]


@change("integrity", Kind.AUDITOR, changes=False)
async def check(view: View) -> Response:
    """Check an uploaded seal, proof or certificate of erasure."""
    form = await view.request.form()
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise InvalidArgument("choose the file of a seal, a proof or a certificate", argument="file")
    data = await file.read()
    given = await asyncio.to_thread(_parsed, data)
    if "buckets" in given:
        seal = await asyncio.to_thread(Seal.load_bytes, data)
        if seal.storage_id != view.storage.id:
            raise IntegrityError(f"that is a seal of the storage {seal.storage!r}: go there to check it")
        return see(_begun(view, None, seal))
    key = str(form.get("public_key", "")).strip() or view.storage.settings.seal_public_key
    return await (_certificate if "certificate" in given else _proof)(view, data, key)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument("that is no seal, proof or certificate: it is no JSON object", argument="file")
    return found


async def _proof(view: View, data: bytes, public_key: str | None) -> Response:
    """Say whether a proof holds, and what it says."""
    from pgresults.audit.proofs import Proof

    proof = await asyncio.to_thread(Proof.load_bytes, data)
    failure = await _failure(proof.check, public_key)
    return view.render("proof.html", 200 if not failure else 422, entry=proof.entry, seal=proof.seal, failure=failure)


async def _certificate(view: View, data: bytes, public_key: str | None) -> Response:
    """Say whether a certificate of erasure holds, and what it says."""
    from pgresults.audit.certificates import Certificate, check

    found = await asyncio.to_thread(Certificate.load_bytes, data)
    failure = await _failure(lambda key: check(data, key), public_key)
    says = found.model_dump(include=set(_CERTIFIED)) | {"keys": len(found.keys)} | found.remains
    return view.render("proof.html", 200 if not failure else 422, entry=says, seal=None, failure=failure)


_CERTIFIED = ("storage", "issued_at", "scope", "reason", "public_key")


async def _failure(check: Callable[[str], object], public_key: str | None) -> str:
    """Why something that was signed does not hold; empty where it does."""
    if public_key is None:
        return "name the public key that must have signed: without it whoever forges one signs it"
    try:
        await asyncio.to_thread(check, public_key)
    except IntegrityError as error:
        return str(error)
    return ""
