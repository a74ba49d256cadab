"""What Prometheus reads, held against a client of its text format."""

from __future__ import annotations

from http.client import HTTPConnection

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.gateways import asked, call, chat, gateway_of, kept, until

from quantgate.serve._figures import Histograms
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running


def samples(page: str) -> dict[str, float]:
    """By name and labels, as they are written."""
    return {
        f"{one.name}{sorted(one.labels.items())}": one.value
        for family in text_string_to_metric_families(page)
        for one in family.samples
    }


def test_a_histogram_says_what_the_librarys_own_says() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bounds = (0.1, 1.0, 5.0)
    one = Histograms("wait_seconds", "Waits", ["who"], bounds=bounds, registry=ours)
    other = Histogram("wait_seconds", "Waits", ["who"], buckets=bounds, registry=theirs)
    for value in (0.0, 0.05, 0.1, 0.100001, 1.0, 4.0, 5.0, 6.0, 1e9):
        one.labels("a").observe(value)
        other.labels("a").observe(value)
    wanted = {k: v for k, v in samples(generate_latest(theirs).decode()).items() if "created" not in k}
    assert samples(generate_latest(ours).decode()) == wanted


def test_every_request_is_counted_with_its_stages_tokens_and_steps() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        for stream in (False, True):
            chat(running, asked(stream=stream))
        variant.next(Script("status"))
        chat(running, asked())
        until(lambda: len(kept(running.gateway)) == 3)
        found = samples(call(running, "/metrics").raw.decode())
        labels = [("cohort", "canary"), ("variant", "W4A16")]

        def told(name: str, *more: tuple[str, str], of: list[tuple[str, str]] = labels) -> float:
            return found[f"quantgate_{name}{sorted([*of, *more])}"]

        assert told("requests_total", ("route", "chat"), ("status", "200")) == 2
        assert told("requests_total", ("route", "chat"), ("status", "502")) == 1
        assert told("guard_steps_total", ("step", "passed")) == 2
        assert told("errors_total", ("code", "upstream_error"), of=[]) == 1
        used = sum((one.prompt_tokens or 0) for one in kept(running.gateway))
        assert told("tokens_total", ("kind", "prompt")) == used > 0
        variants = [("variant", "W4A16")]
        for stage in ("parse", "queue", "validate"):
            assert told("stage_seconds_count", ("stage", stage), of=variants) >= 2
        assert told("request_seconds_count", of=variants) == 3
        assert told("time_to_first_token_seconds_count", of=variants) == 1
        assert told("in_flight", of=[]) == 0


def test_a_process_of_several_shows_its_own_figures_on_its_own_port() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant), metrics_port=0) as running:
        chat(running, asked())
        until(lambda: kept(running.gateway))
        own = HTTPConnection("127.0.0.1", until(lambda: running.server.metrics_port), timeout=20)
        own.request("GET", "/metrics")
        page = own.getresponse().read().decode()
        own.close()
        assert "quantgate_requests_total" in page and 'quantgate_worker{worker="0"} 1.0' in page


def test_nothing_without_bound_is_a_label() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        for number in range(20):
            chat(running, asked(f"text-{number}"), x_session_id=f"session-{number}")
        page = call(running, "/metrics").raw.decode()
        assert "session-1" not in page and "text-1" not in page and "req_" not in page
        assert page.count("quantgate_requests_total{") == 1
