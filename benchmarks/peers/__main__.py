"""Measure this store beside what else would be used, and write the page about it.

``python -m benchmarks.peers`` starts an embedded Postgres and, where they are installed, Redis and Prefect's server, in
a temporary directory. Each peer is measured in turn with bare psycopg on that Postgres, alone with it, in processes of
its own: what one brings along is not in the way of another. Peers that are not installed are left out with a line;
``pip install -e '.[peers]'`` brings them, ``apt-get install redis-server`` Redis. Tables and a plot go into
``docs/benchmarks.md``; with ``--quick`` and ``--only`` they are printed.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.comparing import KIB, MIB, Comparison, Plan
from benchmarks.peers.contestants import BARE, PEERS, Contestant
from benchmarks.peers.peer import Place
from benchmarks.peers.plot import write_plot
from benchmarks.peers.report import Run, markdown, write_page
from benchmarks.peers.servers import running
from benchmarks.peers.workers import Trouble, team

_DOCS = Path(__file__).parents[2] / "docs"
WHOLE = Plan(seconds=0.8, least=3, most=9)
QUICK = Plan(seconds=0.1, least=2, most=3, many=100, sizes=(KIB, MIB), processes=(1, 2))


class Measurement:
    """A run that is under way, and says so."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._began = plan, time.monotonic()
        self.run = Run(plan.many)

    def of(self, peers: Sequence[Contestant]) -> Run:
        """All that can be measured here; what cannot is said."""
        before = os.getloadavg()[0]
        found = [peer for peer in peers if self._is_here(peer)]
        redis, prefect = any(peer.redis for peer in found), any(peer.prefect for peer in found)
        with running(redis=redis, prefect=prefect) as servers:
            self.run.versions = servers.versions
            found = [peer for peer in found if self._has_servers(peer, servers.failed)]
            for processes in self._plan.processes:
                if processes > 1:
                    servers.together()
                self._all(found, servers.place, processes)
        self.run.load = (before, os.getloadavg()[0])
        self._tell("done")
        return self.run

    def _is_here(self, peer: Contestant) -> bool:
        if reason := peer.missing():
            self._leave_out(f"{peer.name} left out: {reason}")
            return False
        self.run.peers.append(peer)
        return True

    def _has_servers(self, peer: Contestant, failed: dict[str, str]) -> bool:
        reasons = [reason for server, reason in failed.items() if server in peer.packages]
        for reason in reasons:
            self._leave_out(f"{peer.name} left out: {reason}")
        return not reasons

    def _all(self, peers: list[Contestant], place: Place, processes: int) -> None:
        with team(BARE, place, processes) as bare:
            bare.operations()
            for peer in peers:
                self._tell(f"{peer.name}, processes: {processes}")
                with team(peer, place, processes) as members:
                    try:
                        operations = members.operations()
                    except Trouble as error:
                        self._leave_out(f"{peer.name}, processes: {processes}, left out: {error}")
                        continue
                    comparison = Comparison(bare, members, self._plan, self._leave_out)
                    self.run.figures += comparison.figures(operations)

    def _leave_out(self, line: str) -> None:
        self._tell(line)
        self.run.left_out.append(line)

    def _tell(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {line}", flush=True)


def main() -> None:
    """Measure, then write or print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, few rounds; only prints")
    parser.add_argument("--only", action="append", metavar="NAME", help="peers whose name begins so; only prints")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end with us
    run = Measurement(QUICK if options.quick else WHOLE).of(chosen(PEERS, options.only))
    if options.quick or options.only:
        print(markdown(run))
        return
    write_plot(_DOCS / "pictures" / "peers.svg", run)
    write_page(_DOCS / "benchmarks.md", run)
    print(f"written into {_DOCS / 'benchmarks.md'}")


def chosen(peers: Sequence[Contestant], only: list[str] | None) -> list[Contestant]:
    """Those whose names begin with one of the words."""
    return [one for one in peers if not only or one.name.lower().startswith(tuple(map(str.lower, only)))]


if __name__ == "__main__":
    main()
