"""The real SDK of OpenTelemetry, which keeps in memory what it was told; it can be set up once for a process."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult


@dataclass
class _Switch(Sampler):
    """Samples while a test looks."""

    on: bool = False

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE if self.on else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "switch"


@dataclass
class Telemetry:
    """What was told since the test began."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    switch: _Switch
    _points: dict[str, list[Any]] = field(default_factory=dict)

    def spans(self, operation: str | None = None) -> list[ReadableSpan]:
        """The spans that ended, in this order; of one kind where it is named."""
        ended = self.exporter.get_finished_spans()
        return [span for span in ended if operation is None or kind_of(span) == operation]

    def span(self, operation: str) -> ReadableSpan:
        """The only span of a kind."""
        [span] = self.spans(operation)
        return span

    def points(self, metric: str) -> list[Any]:
        """What was measured by one instrument."""
        found = self.reader.get_metrics_data()
        for resource in [] if found is None else found.resource_metrics:
            for scope in resource.scope_metrics:
                for one in scope.metrics:
                    self._points.setdefault(one.name, []).extend(one.data.data_points)
        return self._points.get(metric, [])

    def forget(self) -> None:
        """Begin anew, for what is as it is now and not counted."""
        self._points.clear()

    def total(self, metric: str, **attributes: Any) -> int:
        """What was counted, among the points that have attributes; ``_`` stands for a dot."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}
        return sum(point.value for point in self.points(metric) if wanted.items() <= dict(point.attributes).items())


def kind_of(span: ReadableSpan) -> str:
    """What a span is of: the operation of a client's, the first word of another one's name."""
    return str((span.attributes or {}).get("db.operation.name") or span.name.split()[0])


def parents(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> list[str]:
    """What a span happened in, from the inside to the outside."""
    by_id = {one.context.span_id: one for one in spans if one.context is not None}
    around = []
    while span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
        around.append(kind_of(span))
    return around


@pytest.fixture(scope="session")
def _set_up() -> Telemetry:
    switch, exporter = _Switch(), InMemorySpanExporter()
    tracers = TracerProvider(sampler=ParentBased(switch))
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    deltas = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
    reader = InMemoryMetricReader(preferred_temporality=deltas)
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([reader]))
    return Telemetry(exporter, reader, switch)


@pytest.fixture
def telemetry(_set_up: Telemetry) -> Iterator[Telemetry]:
    """What programs are seen to do from here on."""
    _set_up.reader.get_metrics_data()
    _set_up.exporter.clear()
    _set_up.forget()
    _set_up.switch.on = True
    yield _set_up
    _set_up.switch.on = False
    _set_up.exporter.clear()
