"""``pgresults verify | seal | stats``: whether the history can be believed, and how much there is.

Exit codes of ``verify``: 0 intact, 1 altered, 2 could not check, or nothing there; of ``seal``: 1 where entries name
transactions to come.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.filesize import decimal

from pgresults.audit.reports import Covered, VerifyReport
from pgresults.audit.seals import Seal, has_key
from pgresults.cli.output import fail, note, print_json, reason_of, replacing, say, shown, terminal
from pgresults.cli.progress import counting, waiting
from pgresults.cli.rights import hint
from pgresults.cli.session import session
from pgresults.cli.tables import print_record
from pgresults.cli.values import moment
from pgresults.cli.watching import Every, Watch, interval, watching
from pgresults.database.programs import call, perform
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
    for command in (verify, seal, stats):
        app.command()(command)


def verify(
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(help="Only this key; by default all.")] = None,
    since: Annotated[str | None, typer.Option(metavar="SEAL|TIME", help="Only what came after it.")] = None,
    against: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="SEAL", help="Compare with a seal made before.")
    ] = None,
    watch: Watch = False,
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
            lambda: _verified(context, key, since, against),
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


def _verified(context: typer.Context, key: str | None, since: str | None, against: Path | None) -> VerifyReport:
    start, sealed = _since(since), None if against is None else Seal.load_bytes(against.read_bytes())
    by_seal, used = sealed is not None or isinstance(start, Seal), session(context)
    # Where a seal speaks of a storage that is not there, somebody has taken it away: that is no wrong usage.
    with used.database(there=True) if by_seal else used.storage() as storage:
        if by_seal:
            _warn_of_unknown_signer(storage.settings)
        total = 1 if key else None if start else perform(call(storage.database, lambda _: count_keys(storage.id)))
        with counting("Verifying keys", total) as progress:
            return ResultStore(result_storage=storage).verify(key, start, sealed, progress)


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


def seal(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, writable=True, help="By default standard output.")
    ] = None,
) -> None:
    """Sign a root over all committed history, to be kept where the database's users cannot reach it."""
    with session(context).storage() as storage, counting("Sealing entries") as progress:
        made = ResultStore(result_storage=storage).seal(progress)
    if output is None:
        typer.echo(made.dump_bytes(), nl=False)
    else:
        with replacing(output) as file:
            file.write_bytes(made.dump_bytes())
        say(f"{output}: {made.entries:,} entries sealed, root {made.root}")
    note(f"Signed with the public key {made.public_key}")
    if made.ahead:
        note(f"{made.ahead:,} entries name transactions to come, the seal does not cover them: run pgresults verify")
        raise typer.Exit(ALTERED)


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
