"""Programs with more or less of OpenTelemetry, each a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from pgresults.database import telemetry
from tests.support.database import psycopg_url
from tests.support.programs import written

_TRACED = """
    import json, sys
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
    from pgresults import task
    from pgresults.cache_policies import INPUTS

    def line(span):
        parent = span.parent and span.parent.span_id
        return json.dumps([span.name.split()[0], span.context.trace_id, span.context.span_id, parent]) + "\\n"

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
    trace.set_tracer_provider(provider)

    @task(cache_policy=INPUTS, persist_result=True)
    def double(n):
        return 2 * n

    if __name__ == "__main__":
        with trace.get_tracer("program").start_as_current_span("caller"):
            assert double.map([1, 2], processes=1) == [2, 4]
"""

_WITH_API_ALONE = """
    from opentelemetry import metrics, trace
    from pgresults import task
    from pgresults.database import telemetry

    double = task(lambda n: 2 * n, name="double", result_storage_key="k", persist_result=True)
    assert [double(1), double(1)] == [2, 2]
    assert telemetry.instruments() is None
    telemetry._providers, telemetry._TRACERS = None, "no longer there"
    assert telemetry.instruments() is None
"""


def ran(directory: Path, source: str, database: URL) -> list[str]:
    """What a program printed that ended well."""
    written(directory, {"program.py": source})
    environment = os.environ | {"PGRESULTS_DATABASE_URL": psycopg_url(database)}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_runs_in_another_process_is_in_the_same_trace(tmp_path: Path, fresh_url: URL) -> None:
    spans = [json.loads(line) for line in ran(tmp_path, _TRACED, fresh_url)]
    assert len({trace for _, trace, _, _ in spans}) == 1
    [caller] = [span for name, _, span, _ in spans if name == "caller"]
    tasks = {span: parent for name, _, span, parent in spans if name == "task"}
    assert list(tasks.values()) == [caller, caller]
    commits = [parent for name, _, _, parent in spans if name == "commit"]
    assert sorted(commits) == sorted(tasks)


def test_a_program_without_an_sdk_makes_nothing(tmp_path: Path, fresh_url: URL) -> None:
    assert ran(tmp_path, _WITH_API_ALONE, fresh_url) == []


@pytest.mark.usefixtures("telemetry")
def test_providers_are_found_where_the_api_keeps_them_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_TRACERS", "no longer there")
    assert telemetry._asking()() is True
