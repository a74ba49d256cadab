"""Spans and metrics of OpenTelemetry, by its conventions for generative AI; off the path of the request.

    watch = by_environment(os.environ, tell)     # None: nobody named a collector
    begun = watch.begin(request)                 # begun.traceparent: what an upstream is told
    watch.end(exchange)

A request costs the path two steps: it is set aside when it begins, and put into a bounded queue with its exchange when
it ends. A thread makes one span ``chat {model}`` of it, child of the client's own where it sent a ``traceparent``, and
four metrics. What does not fit into the queue is dropped and counted; a collector that is down costs nothing but its
data.

No prompt, no answer and no session stands in a span unless the operator asked for content, and none ever in a metric.
The names are those of https://github.com/open-telemetry/semantic-conventions-genai, which are still in development;
what has no name there begins with ``quantgate.``.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantgate.errors import MissingExtra
from quantgate.serve import Exchange, Request
from quantgate.serve.telemetry_names import Metrics, span_attributes, span_name

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

QUEUE = 8192  # exchanges that wait for the thread
OPEN = 16_384  # requests begun and not ended that are remembered
PAUSE_S = 0.1  # between two looks at the queue
FLUSH_S = 5.0  # for what is left when the gateway ends
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")  # W3C's
NEEDS = (
    "a collector is named in OTEL_EXPORTER_OTLP_ENDPOINT, and the packages that send to it are not installed; "
    "run: pip install 'quantgate[otel]'"
)


@dataclass(slots=True)
class Begun:
    """What of a request its span needs."""

    request: Request
    trace: int  # 128 bits
    span: int  # 64 bits
    child: bool  # of a span of the client
    sampled: bool
    at_ns: int  # since 1970

    @property
    def traceparent(self) -> str:
        """What the upstream is told, so that its own spans hang below this one."""
        return f"00-{self.trace:032x}-{self.span:016x}-{'01' if self.sampled else '00'}"


class Telemetry:
    """A ``Watch`` of the gateway, over OpenTelemetry's own providers, whatever their exporters are."""

    def __init__(self, tracing: TracerProvider, metering: MeterProvider, *, content: bool = False) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracing, self._metering, self._content = tracing, metering, content
        self._ids = _Ids()
        tracing.id_generator = self._ids
        self._tracer = tracing.get_tracer("quantgate")
        self._metrics = Metrics(metering.get_meter("quantgate"))
        self._extract = TraceContextTextMapPropagator().extract
        self._open: dict[str, Begun] = {}
        self._ended: deque[tuple[Begun | None, Exchange]] = deque()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0  # exchanges of which no span was made

    def begin(self, request: Request) -> Begun:
        """Never waits and never raises."""
        parent = PARENT.fullmatch(request.headers.get("traceparent", ""))
        trace = int(parent[1], 16) if parent else random.getrandbits(128)
        sampled = bool(int(parent[2], 16) & 1) if parent else True
        begun = Begun(request, trace or 1, random.getrandbits(64) or 1, parent is not None, sampled, time.time_ns())
        if len(self._open) >= OPEN:  # somebody forgets to end
            self._open.pop(next(iter(self._open)), None)
        self._open[request.id] = begun
        return begun

    def end(self, exchange: Exchange) -> None:
        """Never waits and never raises. An exchange that was never begun, a shadow's, gets a span of its own."""
        begun = self._open.pop(exchange.id, None)
        if len(self._ended) >= QUEUE or self._closing.is_set():
            self.dropped += 1
            return
        self._ended.append((begun, exchange))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="quantgate-telemetry", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(FLUSH_S)
        self._tracing.force_flush(int(FLUSH_S * 1000))
        self._metering.force_flush(int(FLUSH_S * 1000))
        self._tracing.shutdown()
        self._metering.shutdown()

    def _work(self) -> None:
        while not self._closing.wait(PAUSE_S):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._ended:
            begun, exchange = self._ended.popleft()
            try:
                self._record(begun, exchange)
            except Exception:  # whatever a collector's library raises, the next exchange is told
                self.dropped += 1
            time.sleep(0)  # gives the interpreter back to the requests

    def _record(self, begun: Begun | None, exchange: Exchange) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        request = begun.request if begun else None
        start = begun.at_ns if begun else int(exchange.at * 1e9)
        headers = begun.request.headers if begun and begun.child else {}
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        self._ids.next = (begun.trace, begun.span) if begun else None
        span = self._tracer.start_span(
            span_name(exchange, request),
            context=self._extract(carrier),
            kind=SpanKind.CLIENT,
            start_time=start,
        )
        if span.is_recording():
            span.set_attributes(span_attributes(exchange, request, content=self._content))
        if exchange.error:
            span.set_status(Status(StatusCode.ERROR, exchange.error))
        span.end(start + int(exchange.total_s * 1e9))
        self._metrics.record(exchange, request)


class _Ids:
    """Ids that were chosen when the request began, since the upstream had to be told them; else new ones."""

    next: tuple[int, int] | None = None  # of the thread that makes spans, which is one

    def generate_trace_id(self) -> int:
        return self.next[0] if self.next else random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        return self.next[1] if self.next else random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        return True


def by_environment(
    environment: Mapping[str, str], tell: Callable[[str], None], *, service: str = "quantgate"
) -> Telemetry | None:
    """Spans and metrics to the collector that OpenTelemetry's own variables name, by OTLP over HTTP.

    None where they name none, or switch it off; where they name one and the packages are missing, ``tell`` gets the
    sentence, and nothing is watched.
    """
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not any(environment.get(name) for name in ENDPOINTS):
        return None
    try:
        return _exporting(
            service,
            content=environment.get(CONTENT, "").lower() == "true",
            spans=environment.get("OTEL_TRACES_EXPORTER", "").lower() != "none",
            metrics=environment.get("OTEL_METRICS_EXPORTER", "").lower() != "none",
        )
    except MissingExtra as missing:
        tell(str(missing))
        return None


def _exporting(service: str, *, content: bool, spans: bool, metrics: bool) -> Telemetry:
    """The exporters read their addresses, headers, limits and samplers out of the environment by themselves."""
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra(NEEDS) from None
    resource = Resource.create()  # with OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    if spans:
        tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if metrics else []
    metering = MeterProvider(readers, resource, AlwaysOffExemplarFilter(), shutdown_on_exit=False)
    return Telemetry(tracing, metering, content=content)
