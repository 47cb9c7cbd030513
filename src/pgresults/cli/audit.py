"""``pgresults verify | stats``: whether the history can be believed, and how much there is.

Exit codes of ``verify``: 0 intact, 1 altered, 2 could not check, or nothing there.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.filesize import decimal

from pgresults.audit.reports import Covered, VerifyReport
from pgresults.audit.seals import Seal
from pgresults.audit.signing import has_key
from pgresults.audit.timestamps import stamps
from pgresults.cli.keeping import read_seals
from pgresults.cli.output import fail, note, print_json, say, shown, terminal
from pgresults.cli.progress import counting, waiting
from pgresults.cli.rights import hint
from pgresults.cli.sealing import Roots
from pgresults.cli.session import session
from pgresults.cli.tables import print_record
from pgresults.cli.values import moment
from pgresults.cli.watching import Every, Watch, interval, watching
from pgresults.database.programs import call, perform
from pgresults.errors import reason_of
from pgresults.operations import views
from pgresults.operations.locks import TableSize, size
from pgresults.operations.verify import count_keys
from pgresults.operations.views import Daily, Usage
from pgresults.settings import Settings
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore

ALTERED, UNCHECKED = 1, 2
_BAR = 40

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (verify, stats):
        app.command()(command)


def verify(
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(help="Only this key; by default all.")] = None,
    since: Annotated[str | None, typer.Option(metavar="SEAL|TIME", help="Only what came after it.")] = None,
    against: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="SEAL", help="Compare with a seal made before.")
    ] = None,
    watch: Watch = False,
    chain: Annotated[
        list[Path] | None,
        typer.Option(metavar="SEALS", help="Follow seals, in files or directories, one by one; may be repeated."),
    ] = None,
    roots: Roots = None,
    every: Every = None,
    as_json: AsJson = False,
) -> None:
    """Check that history and payloads are as they were written; with --watch until they are not.

    Exit code 0 intact, 1 altered, 2 could not check, or nothing there.
    """
    repeated = interval(watch, every, timedelta(minutes=1))
    try:
        report = watching(
            repeated,
            lambda: _verified(context, key, _Seals(since, against, chain or [], roots or [])),
            lambda report: _print_report(report, as_json),
            lambda report: bool(report.findings),
        )
    except (BrokenPipeError, typer.BadParameter, typer.Exit):
        raise
    except Exception as error:  # whatever it was: only an alteration may end with the code of one
        reason = reason_of(error) if isinstance(error, OSError) else str(error) or type(error).__name__
        fail(f"could not check: {reason}{hint('verify', error)}")
        raise typer.Exit(UNCHECKED) from error
    if report.findings:
        raise typer.Exit(ALTERED)
    if report.empty:
        raise typer.Exit(UNCHECKED)


class _Seals(NamedTuple):
    """What options say of seals."""

    since: str | None
    against: Path | None
    chain: list[Path]
    roots: list[Path]


def _verified(context: typer.Context, key: str | None, given: _Seals) -> VerifyReport:
    start, sealed = _since(given.since), None if given.against is None else Seal.load_bytes(given.against.read_bytes())
    chain, used = read_seals(given.chain), session(context)
    seals = [seal for seal in (start, sealed, *chain) if isinstance(seal, Seal)]
    by_seal = bool(seals)
    _note_stamps(seals, given.roots)
    # Where a seal speaks of a storage that is not there, somebody has taken it away: that is no wrong usage.
    with used.database(there=True) if by_seal else used.storage() as storage:
        if by_seal:
            _warn_of_unknown_signer(storage.settings)
        total = 1 if key else None if start else perform(call(storage.database, lambda _: count_keys(storage.id)))
        with counting("Verifying keys", total) as progress:
            return ResultStore(result_storage=storage).verify(key, start, sealed, progress, chain)


def _note_stamps(seals: Sequence[Seal], roots: Sequence[Path]) -> None:
    trusted = [root.read_bytes() for root in roots]
    for seal in seals if trusted else ():
        for at in stamps(seal, trusted):
            note(f"The seal of {shown(seal.sealed_at)} was stamped at {shown(at)}")


def _warn_of_unknown_signer(settings: Settings) -> None:
    if settings.seal_public_key is None and not has_key(settings.seal_key_file):
        note("Whoever forges a seal signs it with a key of their own: name yours by PGRESULTS_SEAL_PUBLIC_KEY.")


def _since(given: str | None) -> Seal | datetime | None:
    if given is None:
        return None
    file = Path(given)
    if file.exists():
        return Seal.load_bytes(file.read_bytes())
    try:
        return moment(given)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{error.message}; and there is no file of that name with a seal") from None


def _print_report(report: VerifyReport, as_json: bool) -> None:
    if as_json:
        counts = {name: getattr(report, name) for name in ("keys", "entries", "payloads", "empty", "intact")}
        print_json(counts | asdict(report))
        return
    say(f"{_amount(report)} checked: {_verdict(report)}")
    for one in report.storages:
        say(f"storage {one.storage!r}: {_amount(one)}, {_sealed(one)}")
    if report.chain:
        first, last = shown(report.chain[0]), shown(report.chain[-1])
        how = "what each covers was recomputed from the database"
        say(f"chain: {len(report.chain):,} seals of {first} to {last}, {how}")
    if report.unchecked:
        say(f"not checked: the storages {', '.join(map(repr, report.unchecked))}")
    for part in report.unseen:
        say(f"not checked: {part}")
    for window in report.windows:
        when = shown(window.at) or "unknown"
        say(f"maintenance: {when}: opened by {window.db_user!r}: {window.reason}")
    for finding in report.findings:
        say(f"{finding.kind}: {', '.join(map(repr, finding.keys)) or '-'}: {finding.message}")


def _amount(of: VerifyReport | Covered) -> str:
    return f"{of.entries:,} entries of {of.keys:,} keys and {of.payloads:,} payloads"


def _verdict(report: VerifyReport) -> str:
    if report.findings:
        return f"ALTERED in {len(report.findings):,} places"
    return "nothing there" if report.empty else "intact"


def _sealed(one: Covered) -> str:
    if one.sealed_at is None:
        return "no seal given"
    newer = f"{one.newer:,} entries newer than the seal of {shown(one.sealed_at)}"
    if one.newer_since is None:
        return newer
    age = timedelta(seconds=max(0, round((datetime.now(UTC) - one.newer_since).total_seconds())))
    return f"{newer}, which no seal protects, the oldest for {age}"


def stats(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days past and to come.")] = 14,
    exact: Annotated[
        bool, typer.Option("--exact", help="Count all keys, where the totals would be estimated.")
    ] = False,
    watch: Watch = False,
    every: Every = None,
    as_json: AsJson = False,
) -> None:
    """Show sizes and counts, what was written on each day past, and what expires on each day to come."""
    repeated, span = interval(watch, every, timedelta(seconds=10)), timedelta(days=days)
    with session(context).storage() as storage:
        watching(repeated, lambda: _counted(storage, span, exact), lambda counts: _print_counts(counts, as_json))


class _Counts(NamedTuple):
    usage: Usage
    locks: TableSize
    written: list[Daily]
    expiring: list[Daily]


def _counted(storage: PostgresStorage, span: timedelta, exact: bool) -> _Counts:
    database, schema = storage.database, storage.schema
    with waiting("Counting"):
        return _Counts(
            perform(call(database, lambda _: views.usage(storage.id, exact=exact))),
            perform(call(database, lambda _: size(schema))),
            perform(call(database, lambda _: views.written_daily(storage.id, span))),
            perform(call(database, lambda _: views.expiring_daily(storage.id, span))),
        )


def _print_counts(counts: _Counts, as_json: bool) -> None:
    usage, locks, *daily = counts
    if as_json:
        parts = zip(("written", "expiring"), daily, strict=True)
        lists = {name: [{**day._asdict(), "day": f"{day.day}"} for day in part] for name, part in parts}
        print_json(usage._asdict() | {"lock_rows": locks.rows, "lock_bytes": locks.bytes} | lists)
        return
    print_record(
        {
            **({} if usage.exact else {"estimated": "from a sample; --exact counts"}),
            "keys": usage.keys,
            "live results": usage.live,
            "live bytes": usage.live_bytes,
            "expired bytes": usage.expired_bytes,
            "last change": usage.last_change,
            "lock rows": locks.rows,
            "lock bytes": locks.bytes,
        }
    )
    _print_chart("Written on each day", counts.written)
    _print_chart("Expiring on each day", counts.expiring)


def _print_chart(title: str, days: Sequence[Daily]) -> None:
    if not days:
        return
    say(f"{title}:")
    most = max(day.results for day in days)
    ends = [
        f"{day.results:,} ({decimal(day.bytes) if terminal.is_terminal else f'{day.bytes:,} bytes'})" for day in days
    ]
    longest = min(_BAR, terminal.width - max(map(len, ends)) - len("2030-01-31  ")) if terminal.is_terminal else _BAR
    for day, end in zip(days, ends, strict=True):
        say(f"{day.day} {'█' * max(1, round(day.results * longest / most))} {end}")
