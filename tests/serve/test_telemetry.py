"""Spans and metrics as OpenTelemetry's own SDK and a collector on loopback see them, and nothing that is private."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'quantgate[otel]'")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from quantgate.serve import Caller, Exchange, Request
from quantgate.serve import telemetry as module
from quantgate.serve.telemetry import Telemetry, by_environment

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(id: str = "r1", *, headers: dict[str, str] | None = None, **body: Any) -> Request:
    messages = [{"role": "user", "content": "a private question"}]
    return Request(
        id=id, route="chat", body={"model": "assistant", "messages": messages, **body}, caller=Caller("key-1"),
        session="5e551", told_session=True, headers=headers or {}, size=100,
    )  # fmt: skip


def exchange(id: str = "r1", **told: Any) -> Exchange:
    given: dict[str, Any] = {
        "id": id, "at": 1_700_000_000.0, "target": "fleet", "variant": "W4A16", "artifact": "sha256:4f",
        "answered_by": "W4A16", "cohort": "canary", "share": 0.05, "revision": 7, "route": "chat", "key": "key-1",
        "session": "5e551", "told_session": True, "stream": True, "structured": True, "status": 200, "finish": "stop",
        "step": "repaired", "faults": ("not_json",), "repairs": ("fences",), "prompt_tokens": 12, "answer_tokens": 5,
        "stages": {"parse": 0.001, "decode": 0.8}, "ttft_s": 0.2, "total_s": 1.0, "overhead_s": 0.0005,
    } | told  # fmt: skip
    return Exchange.model_validate(given)


@dataclass
class Seen:
    """A watch whose spans and metrics stay in memory."""

    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    content: bool = False
    watch: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        tracing = TracerProvider(shutdown_on_exit=False)
        tracing.add_span_processor(SimpleSpanProcessor(self.spans))
        self.watch = Telemetry(tracing, MeterProvider([self.reader], shutdown_on_exit=False), content=self.content)

    def after(self, *pairs: tuple[Request | None, Exchange]) -> list[Any]:
        """The spans of some requests."""
        for asked, ended in pairs:
            if asked is not None:
                self.watch.begin(asked)
            self.watch.end(ended)
        wait(lambda: len(self.spans.get_finished_spans()) == len(pairs))
        return list(self.spans.get_finished_spans())

    def metrics(self) -> dict[str, list[Any]]:
        found = self.reader.get_metrics_data()
        assert found is not None
        metrics = found.resource_metrics[0].scope_metrics[0].metrics
        return {one.name: list(one.data.data_points) for one in metrics}


def wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end, "it never came"
        threading.Event().wait(0.01)


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.watch.close()


def test_span_has_the_names_of_the_conventions(seen: Seen) -> None:
    (span,) = seen.after((request(temperature=0.5, max_tokens=64, stop="END", n=2), exchange()))
    assert (span.name, span.kind) == ("chat assistant", SpanKind.CLIENT)
    told = dict(span.attributes)
    expected = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "quantgate", "gen_ai.request.model": "assistant",
        "gen_ai.response.model": "W4A16", "gen_ai.response.finish_reasons": ("stop",), "gen_ai.output.type": "json",
        "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 5, "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.2, "gen_ai.conversation.id": "5e551",
        "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 64, "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.choice.count": 2, "quantgate.variant.id": "sha256:4f", "quantgate.cohort": "canary",
        "quantgate.revision": 7, "quantgate.target": "fleet", "quantgate.guard.step": "repaired",
        "quantgate.guard.faults": ("not_json",), "quantgate.guard.repairs": ("fences",),
        "quantgate.stage.decode": 0.8,
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected
    assert span.end_time - span.start_time == 1_000_000_000
    assert span.status.status_code is StatusCode.UNSET and "error.type" not in told


def test_no_text_of_prompt_or_answer_is_in_a_span(seen: Seen) -> None:
    kept = exchange(text={"answer": "a private answer"})
    (span,) = seen.after((request(), kept))
    assert "private" not in json.dumps(dict(span.attributes), default=str) + str(span.events)


def test_content_is_there_when_the_operator_asks() -> None:
    seen = Seen(content=True)
    answer = {"role": "assistant", "content": "a private answer"}
    (span,) = seen.after((request(), exchange(text={"prompt": [], "answer": [answer]})))
    told = dict(span.attributes)
    asked = json.loads(told["gen_ai.input.messages"])
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": "a private question"}]}]
    (said,) = json.loads(told["gen_ai.output.messages"])
    assert said["parts"][0]["content"] == "a private answer" and said["finish_reason"] == "stop"
    seen.watch.close()


def test_span_is_the_child_of_the_clients_own_and_the_upstreams_parent(seen: Seen) -> None:
    begun = seen.watch.begin(request(headers={"traceparent": PARENT, "tracestate": "a=1"}))
    seen.watch.end(exchange())
    wait(lambda: bool(seen.spans.get_finished_spans()))
    (span,) = seen.spans.get_finished_spans()
    assert span.parent is not None and span.context is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.context.trace_state.get("a") == "1"
    assert begun.traceparent == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


@pytest.mark.parametrize(
    "header", ["", "00", "x" * 55, f"ff{PARENT[2:]}", PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)]
)
def test_header_that_is_none_begins_a_trace_of_its_own(seen: Seen, header: str) -> None:
    begun = seen.watch.begin(request(headers={"traceparent": header}))
    seen.watch.end(exchange())
    wait(lambda: bool(seen.spans.get_finished_spans()))
    (span,) = seen.spans.get_finished_spans()
    assert span.parent is None and span.context is not None and f"{span.context.trace_id:032x}" in begun.traceparent


def test_client_that_does_not_sample_is_heard() -> None:
    spans = InMemorySpanExporter()
    tracing = TracerProvider(ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    reader = InMemoryMetricReader()
    watch = Telemetry(tracing, MeterProvider([reader], shutdown_on_exit=False))
    begun = watch.begin(request("no", headers={"traceparent": PARENT[:-2] + "00"}))
    watch.begin(request("yes", headers={"traceparent": PARENT}))
    watch.end(exchange("no"))
    watch.end(exchange("yes"))
    wait(lambda: bool(spans.get_finished_spans()))
    assert begun.traceparent.endswith("-00")
    assert [one.attributes["quantgate.request.id"] for one in spans.get_finished_spans() if one.attributes] == ["yes"]
    watch.close()


def test_error_is_the_status_and_the_type(seen: Seen) -> None:
    (span,) = seen.after(
        (request(), exchange(error="stage_timeout", status=504, finish="", answered_by="", ttft_s=None))
    )
    assert span.status.status_code is StatusCode.ERROR and span.attributes["error.type"] == "stage_timeout"
    assert span.attributes["gen_ai.response.model"] == "W4A16"
    metrics = seen.metrics()
    (point,) = metrics["gen_ai.server.request.duration"]
    assert point.attributes["error.type"] == "stage_timeout"
    assert "gen_ai.server.time_to_first_token" not in metrics


def test_metrics_have_the_names_buckets_and_values_of_the_conventions(seen: Seen) -> None:
    seen.after((request(), exchange()), (request("r2"), exchange("r2", stream=False, answer_tokens=None)))
    found = seen.metrics()
    (duration,) = found["gen_ai.server.request.duration"]
    assert (duration.count, duration.sum) == (2, 2.0)
    assert duration.explicit_bounds == (
        0.01,
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.28,
        2.56,
        5.12,
        10.24,
        20.48,
        40.96,
        81.92,
    )
    (first,) = found["gen_ai.server.time_to_first_token"]
    assert first.explicit_bounds == (
        0.001,
        0.005,
        0.01,
        0.02,
        0.04,
        0.06,
        0.08,
        0.1,
        0.25,
        0.5,
        0.75,
        1.0,
        2.5,
        5.0,
        7.5,
        10.0,
    )
    (each,) = found["gen_ai.server.time_per_output_token"]
    assert each.explicit_bounds == (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
    assert (each.count, each.sum) == (1, pytest.approx(0.8 / 4))
    by_kind = {one.attributes["gen_ai.token.type"]: one for one in found["gen_ai.client.token.usage"]}
    assert by_kind["input"].sum == 24 and by_kind["output"].sum == 5
    assert by_kind["input"].explicit_bounds == tuple(4**power for power in range(14))
    for points in found.values():
        for point in points:
            assert not {"gen_ai.conversation.id", "quantgate.key", "quantgate.request.id"} & set(point.attributes)


def test_clients_cannot_make_series_without_end(seen: Seen) -> None:
    pairs = []
    for at in range(300):
        asked = request(f"r{at}")
        asked.body["model"] = f"made up {at}"
        pairs.append((asked, exchange(f"r{at}", status=404 if at < 150 else 200)))
    seen.after(*pairs)
    models = {one.attributes["gen_ai.request.model"] for one in seen.metrics()["gen_ai.server.request.duration"]}
    assert len(models) == 101 and "other" in models and "made up 0" not in models


def test_shadow_and_request_nobody_began_get_a_span_of_their_own(seen: Seen) -> None:
    (span,) = seen.after((None, exchange("shadow", shadow=True)))
    assert span.name == "chat W4A16" and span.attributes["quantgate.shadow"] is True
    assert span.start_time == 1_700_000_000 * 10**9


class Stuck(SpanExporter):  # type: ignore[misc]  # an extra: it has no types here
    """A collector that takes a span and never gives the thread back until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.go.wait(60)
        return SpanExportResult.SUCCESS


def test_collector_that_hangs_holds_up_no_request_and_loss_is_counted() -> None:
    stuck, tracing = Stuck(), TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(stuck))
    watch = Telemetry(tracing, MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    for at in range(module.QUEUE + 100):
        watch.begin(request(f"r{at}"))
        watch.end(exchange(f"r{at}"))
    assert 98 <= watch.dropped <= 100 and len(watch._ended) <= module.QUEUE
    stuck.go.set()
    watch.close()


def test_requests_that_never_end_are_forgotten(seen: Seen) -> None:
    for at in range(module.OPEN + 10):
        seen.watch.begin(request(f"r{at}"))
    assert len(seen.watch._open) == module.OPEN


def test_nothing_is_watched_where_no_collector_is_named() -> None:
    told: list[str] = []
    assert by_environment({}, told.append) is None
    assert by_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, told.append) is None
    assert not told


@pytest.fixture
def collector() -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """What speaks OTLP over HTTP on loopback: path -> bodies."""
    got: dict[str, list[bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.setdefault(self.path, []).append(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_collector_on_loopback_gets_spans_and_metrics(
    collector: tuple[str, dict[str, list[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    address, got = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    watch = by_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": address}, print)
    assert watch is not None
    watch.begin(request())
    watch.end(exchange())
    watch.close()
    spans = ExportTraceServiceRequest.FromString(got["/v1/traces"][0]).resource_spans[0]
    resource = {one.key: one.value.string_value for one in spans.resource.attributes}
    assert resource["service.name"] == "quantgate" and resource["deployment.environment.name"] == "test"
    assert [one.name for one in spans.scope_spans[0].spans] == ["chat assistant"]
    metrics = ExportMetricsServiceRequest.FromString(got["/v1/metrics"][0]).resource_metrics[0].scope_metrics[0]
    assert {one.name for one in metrics.metrics} == {
        "gen_ai.server.request.duration", "gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token",
        "gen_ai.client.token.usage",
    }  # fmt: skip


def test_collector_that_is_not_there_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = "http://127.0.0.1:9"
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)
    watch = by_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": address}, print)
    assert watch is not None
    watch.begin(request())
    watch.end(exchange())
    watch.close()
    watch.end(exchange())
    assert watch.dropped == 1
