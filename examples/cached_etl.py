"""A cached ETL: files of orders are read, priced in euros and summed up; only what has changed is computed.

    python examples/cached_etl.py            # on seven files that it makes up
    python examples/cached_etl.py DIRECTORY  # on your own: *.csv with the columns product, currency, amount

Run it twice: the second run computes nothing, although the files lie in another directory. Change one file: one is read
and priced again. The results go to the embedded server, or to the database that PGRESULTS_DATABASE_URL names.
"""

import csv
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from pgresults import ResultStore, flow, task
from pgresults.cache_policies import INPUTS, TASK_SOURCE
from pgresults.runtime.mapping import MapProgress

EUROS = {"EUR": Decimal(1), "USD": Decimal("0.92"), "GBP": Decimal("1.17")}
LATEST = "examples/sales/latest"

# A result is reused while its input and the code are the same: where a file lies and how it is called plays no part.
SAME_INPUT = INPUTS + TASK_SOURCE


@task(cache_policy=SAME_INPUT, cache_expiration=timedelta(days=30), result_serializer="json")
def extract(content: str) -> list[dict[str, str]]:
    """The rows of a file."""
    return [row for row in csv.DictReader(content.splitlines()) if row["amount"]]


# The rates are an input like any other: with new ones, everything is priced again and nothing is read again.
@task(cache_policy=SAME_INPUT, cache_expiration=timedelta(days=30), result_serializer="json")
def transform(rows: list[dict[str, str]], rates: dict[str, Decimal]) -> dict[str, Decimal]:
    """What each product brought, in euros."""
    sales: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        sales[row["product"]] += Decimal(row["amount"]) * rates[row["currency"]]
    return dict(sales)


def load(sales: dict[str, Decimal]) -> str:
    """Store the sums under a name: a new version, if they differ from the last ones."""
    store = ResultStore(serializer="json")
    last = store.read(LATEST) if store.exists(LATEST) else None
    if last is not None and last.result == sales:
        return f"{LATEST} is still version {last.metadata.version}"
    return f"{LATEST} is now version {store.write(sales, key=LATEST).version}"


@flow
def etl(directory: Path) -> str:
    """Bring all files of a directory together."""
    contents = [path.read_text() for path in sorted(directory.glob("*.csv"))]
    rows = extract.map(contents, progress=report("extract"))
    parts = transform.map(rows, [EUROS] * len(rows), progress=report("transform"))
    sales: defaultdict[str, Decimal] = defaultdict(Decimal)
    for part in parts:
        for product, euros in part.items():
            sales[product] += euros
    return load(dict(sales))


def report(step: str) -> Callable[[MapProgress], None]:
    """Print, at the end of a step, how much of it there was to do."""

    def show(progress: MapProgress) -> None:
        if progress.done == progress.total:
            print(f"{step}: {progress.computed} computed, {progress.reused} reused")

    return show


def make_up(directory: Path) -> None:
    """Write the orders of a week, the same ones every time."""
    for day in range(1, 8):
        dice = random.Random(day)
        orders = [
            (dice.choice(["tea", "coffee"]), dice.choice([*EUROS]), f"{dice.randint(1, 99)}.50") for _ in range(50)
        ]
        lines = map(",".join, [("product", "currency", "amount"), *orders])
        (directory / f"2030-05-0{day}.csv").write_text("\n".join(lines))


def main() -> None:
    """Work on the directory that was given, or on one with made-up orders."""
    with tempfile.TemporaryDirectory() as made_up:
        make_up(Path(made_up))
        print(etl(Path(sys.argv[1] if sys.argv[1:] else made_up)))


if __name__ == "__main__":
    main()
