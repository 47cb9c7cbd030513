"""A nightly report whose results expire: figures after a day, drafts when the report is out, reports after a week.

    python examples/nightly_report.py        # of yesterday
    python examples/nightly_report.py 2030-05-01

Let a timer run it every night, and again when it failed: what is live is reused. The results go to the embedded server,
or to the database that PGRESULTS_DATABASE_URL names.
"""

import sys
from datetime import UTC, date, datetime, timedelta

from pgresults import ResultStore, flow, task

REGIONS = ("north", "east", "south", "west")


@task(result_storage_key="examples/figures/{parameters[day]}/{parameters[region]}", cache_expiration=timedelta(days=1))
def figures(day: date, region: str) -> dict[str, int]:
    """What a slow query would give; other reports of the day need it, too."""
    print(f"computing the figures of {region}")
    seed = day.toordinal() * len(region)
    return {"orders": seed % 997, "returns": seed % 13}


@task(result_storage_key="examples/drafts/{parameters[day]}", cache_expiration=timedelta(hours=12))
def draft(day: date, regions: dict[str, dict[str, int]]) -> str:
    """The text of the report."""
    lines = [f"{region:>6}: {sold['orders']:4} orders, {sold['returns']:2} returns" for region, sold in regions.items()]
    return "\n".join([f"Sales of {day:%A, %d %B %Y}", *lines])


@task(result_storage_key="examples/reports/{parameters[day]}", cache_expiration=timedelta(days=7))
def publish(day: date) -> str:
    """The report. Where there is one, nothing of this runs; else all of it is stored together at the end."""
    text = draft(day, {region: figures(day, region) for region in REGIONS})
    print(f"publishing the report of {day}")
    return text


@flow(result_serializer="json", persist_result=False)
def nightly(day: date) -> str:
    """Make the report of a day."""
    return publish(day)


def tidy_up(store: ResultStore, day: date) -> None:
    """End what has served its time and delete what has expired."""
    just_now = datetime.now(UTC) - timedelta(minutes=1)  # past by the server's clock, too
    key = f"examples/drafts/{day}"
    if store.exists(key):
        store.touch(key, just_now)
    print(f"{store.sweep()} expired results swept")


def show_expirations(store: ResultStore) -> None:
    """Print what of this will be gone in a week and a bit, the next one first."""
    for row in store.expiring(within=timedelta(days=8)):
        if row.key.startswith(("examples/figures/", "examples/reports/")):
            print(f"{row.key} expires at {row.expires_at:%Y-%m-%d %H:%M} UTC, {row.size} bytes")


def main() -> None:
    """Make a report and tidy up behind it."""
    day = date.fromisoformat(sys.argv[1]) if sys.argv[1:] else datetime.now(UTC).date() - timedelta(days=1)
    store = ResultStore()
    print(nightly(day))
    tidy_up(store, day)
    show_expirations(store)
    print("the draft's history:", ", ".join(entry.action for entry in store.history(f"examples/drafts/{day}")))


if __name__ == "__main__":
    main()
