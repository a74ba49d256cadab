"""What Prometheus reads: a registry of its own for each gateway, with children bound before the first request.

Finding a child by its labels costs as much as counting, so each variant's children are found once (``OfVariant``).
Several processes: each worker counts for itself and shows ``quantgate_worker`` with its number; a scrape through the
shared port meets one of them by chance, so each worker is given a port of its own for ``/metrics``
(docs/gateway.md).
Sessions, keys and callers are never labels: their number has no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from quantgate.serve import STAGES, Exchange
from quantgate.serve._figures import Count, Counters, Histograms

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TYPE = CONTENT_TYPE_LATEST.encode()


class Metrics:
    """All figures of one gateway process."""

    def __init__(self, worker: str = "0") -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counters, registry=self.registry)
        histogram = partial(Histograms, registry=self.registry, bounds=SECONDS)
        gauge = partial(Gauge, registry=self.registry, namespace="quantgate")
        of = ("variant", "cohort")
        self.requests = counter("quantgate_requests", "Requests that were routed", [*of, "route", "status"])
        self.errors = counter("quantgate_errors", "Error objects that left, mid-stream ones too", ["code"])
        self.steps = counter("quantgate_guard_steps", "How answers got through the guard", [*of, "step"])
        self.faults = counter("quantgate_guard_faults", "What the guard found", [*of, "kind"])
        self.repairs = counter("quantgate_guard_repairs", "Repairs that cost no token", [*of, "repair"])
        self.broke = counter("quantgate_stage_budget_broken", "Stages that broke their budget", [*of, "stage"])
        self.fallbacks = counter("quantgate_fallbacks", "Requests asked again of the baseline", [*of, "cause"])
        self.tokens = counter("quantgate_tokens", "Tokens", [*of, "kind"])
        self.disconnects = counter("quantgate_disconnects", "Clients that left before the end", [*of])
        self.stages = histogram("quantgate_stage_seconds", "Time by stage", ["variant", "stage"])
        self.total = histogram("quantgate_request_seconds", "Time of whole requests", ["variant"])
        self.ttft = histogram(
            "quantgate_time_to_first_token_seconds", "Time to what the client sees first", ["variant"]
        )
        self.overhead = histogram("quantgate_overhead_seconds", "The gateway's own share of a request", ["variant"])
        self.shed = counter("quantgate_shed", "Requests that were turned away for want of room", ["where"])
        self.budget_refusals = counter(
            "quantgate_budget_refusals", "Requests of keys that have spent what they may", ["code"]
        )
        self.sink_errors = counter("quantgate_sink_errors", "Exchanges that a sink raised at, which it must not")
        self.in_flight = gauge("in_flight", "Requests in flight")
        self.waiting = gauge("waiting", "Requests that wait for an upstream", ["variant"])
        self.worker = gauge("worker", "1, with this process's number", ["worker"])
        self.worker.labels(worker).set(1)
        self._bound: dict[tuple[str, str], OfVariant] = {}

    def of(self, name: str, cohort: str) -> OfVariant:
        """The bound children of a variant."""
        found = self._bound.get((name, cohort))
        if found is None:
            found = self._bound[name, cohort] = OfVariant(self, name, cohort)
        return found

    def error(self, code: str) -> None:
        self.errors.labels(code).inc()

    def page(self) -> bytes:
        return generate_latest(self.registry)


class OfVariant:
    """One variant's and cohort's children, each bound when it is first met."""

    def __init__(self, metrics: Metrics, name: str, cohort: str) -> None:
        self.metrics, self.name, self.cohort = metrics, name, cohort
        self._counts: dict[tuple[Counters, tuple[str, ...]], Count] = {}
        self.stages = {stage: metrics.stages.labels(name, stage) for stage in (*STAGES, "upstream")}
        self.total = metrics.total.labels(name)
        self.ttft = metrics.ttft.labels(name)
        self.overhead = metrics.overhead.labels(name)

    def count(self, counter: Counters, *labels: str, by: float = 1) -> None:
        key = (counter, labels)
        child = self._counts.get(key)
        if child is None:
            child = self._counts[key] = counter.labels(self.name, self.cohort, *labels)
        child.inc(by)

    def saw(self, exchange: Exchange) -> None:
        """All that one exchange tells."""
        metrics, count = self.metrics, self.count
        count(metrics.requests, exchange.route, str(exchange.status))
        if exchange.step:
            count(metrics.steps, exchange.step)
        for kind in exchange.faults:
            count(metrics.faults, kind)
        for repair in exchange.repairs:
            count(metrics.repairs, repair)
        if exchange.broke:
            count(metrics.broke, exchange.broke)
        if exchange.disconnected:
            count(metrics.disconnects)
        self._tokens(exchange)
        self._times(exchange.stages)
        self.total.observe(exchange.total_s)
        self.overhead.observe(exchange.overhead_s)
        if exchange.ttft_s is not None:
            self.ttft.observe(exchange.ttft_s)

    def _tokens(self, exchange: Exchange) -> None:
        if exchange.prompt_tokens:
            self.count(self.metrics.tokens, "prompt", by=exchange.prompt_tokens)
        if exchange.answer_tokens:
            self.count(self.metrics.tokens, "answer", by=exchange.answer_tokens)

    def _times(self, stages: Mapping[str, float]) -> None:
        for stage, took in stages.items():
            child = self.stages.get(stage)
            if child is not None:
                child.observe(took)
