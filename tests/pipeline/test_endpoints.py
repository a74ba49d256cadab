"""Servers in a release and in ``compare``: real ones, launched; scripted ones, which lose requests and hold secrets."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.endpoint_config import EndpointConfig
from quantgate.engines import Completion, Prompt
from quantgate.engines._launch import Launched
from quantgate.engines._scripted_server import Asked, Fault, ScriptedServer, last
from quantgate.engines.openai import open_engine
from quantgate.errors import ComparabilityError, UsageError
from quantgate.evaluate import suites
from quantgate.evaluate.answers import prompt_of
from quantgate.evaluate.compare import judge
from quantgate.evaluate.scorers import Score
from quantgate.models import open_model
from quantgate.pipeline import CompareResult, compare_models
from quantgate.release_config import load_config

SECRET = "sk-quantgate-pipeline-9876543210"


def missing(*packages: str) -> list[str]:
    return [one for one in packages if importlib.util.find_spec(one) is None]


LLAMA = missing("llama_cpp", "gguf", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
SERVE = missing("fastapi", "uvicorn", "openai", "accelerate")
llama_server = pytest.mark.skipif(bool(LLAMA), reason=f"llama_cpp.server needs packages that are missing: {LLAMA}")
transformers_serve = pytest.mark.skipif(
    bool(SERVE), reason=f"transformers serve needs packages that are missing: {SERVE}"
)
PYTHON = shlex.quote(sys.executable)
LLAMA_LAUNCH = (  # by default this server breaks a stream off as soon as another request comes
    f"{PYTHON} -m llama_cpp.server --model {{artifact}} --port {{port}} --n_ctx 2048 --n_threads 1 "
    "--interrupt_requests false"
)
SERVE_LAUNCH = (
    f"{PYTHON} -m transformers.cli.transformers serve {{artifact}} --port {{port}} --host {{host}} --device cpu"
)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are launched with the packages that the tests see, and one thread: their models are small."""
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def shouted(place: Path) -> dict[str, str]:
    """The right answers of the suite ``echo``, by prompt."""
    rows = [json.loads(line) for line in (place / "echo.jsonl").read_text().splitlines()]
    return {row["prompt"]: row["reference"] for row in rows}


@pytest.fixture
def right(place: Path) -> Any:
    """A server that knows every answer of ``echo``."""
    answers = shouted(place)
    with ScriptedServer(lambda body: answers.get(last(body), "?"), models=("right",)) as server:
        yield server


def echo(place: Path) -> list[str]:
    return [str(place / "echo.jsonl")]


# --- real servers ---


def built_in() -> list[Any]:
    return [case for name in suites.names() for case in suites.cases(name, "gate", 6)]


def scored(case: Any, answer: Any) -> float:
    found = judge(case, answer)
    assert isinstance(found, Score), found
    return found.value


def agreement(ours: list[Any], theirs: list[Any]) -> float:
    pairs: list[tuple[Any, Any]] = list(zip(ours, theirs, strict=True))
    assert [one for pair in pairs for one in pair if not isinstance(one, Completion)] == []
    alike: list[bool] = [one.text.strip() == two.text.strip() for one, two in pairs]
    return sum(alike) / len(alike)


@llama_server
def test_llama_cpps_server_answers_like_our_engine(tmp_path: Path) -> None:
    from quantgate.engines.llamacpp import open_engine as open_llamacpp
    from quantgate.quantize.foreign.gguf import open_gguf_artifact
    from quantgate.quantize.gguf import make_gguf

    model = open_model("quantgate/reference")
    file = make_gguf(model, tmp_path / "reference-Q8_0.gguf", "Q8_0").path
    cases = built_in()
    prompts = [prompt_of(case) for case in cases]
    ours = open_llamacpp(model, open_gguf_artifact(file, model), threads=1).generate(prompts)
    with Launched(LLAMA_LAUNCH, {"artifact": str(file)}, log=tmp_path / "log") as server:
        server.wait()
        for stream in (False, True):
            theirs = open_engine(server.url, stream=stream, dead=server.dead).generate(prompts)
            assert agreement(ours, theirs) >= 0.95
            scores = [[scored(case, one) for case, one in zip(cases, made, strict=True)] for made in (ours, theirs)]
            assert sum(one != two for one, two in zip(*scores, strict=True)) <= 1
        tokens = [(one.tokens, two.tokens) for one, two in zip(ours, theirs, strict=True)]  # type: ignore[union-attr]
        assert all(counted is None for _, counted in tokens)  # this server counts no streamed tokens


@transformers_serve
def test_transformers_serve_answers_like_our_engine(tmp_path: Path) -> None:
    from quantgate.engines.torch import open_engine as open_torch
    from quantgate.quantize import baseline

    model = open_model("quantgate/reference")
    with Launched(SERVE_LAUNCH, {"artifact": str(model.path)}, log=tmp_path / "log") as server:
        prompts = [prompt_of(case) for case in built_in()]
        ours = open_torch(model, baseline(model)).generate(prompts)  # while the server starts
        server.wait()
        engine = open_engine(server.url, model=str(model.path), dead=server.dead, concurrency=2)
        assert agreement(ours, engine.generate(prompts)) >= 0.95
        (plain,) = engine.generate([Prompt(turns=(("user", "What is 2 + 3?"),), plain=True, max_tokens=4)])
        assert isinstance(plain, Completion) and plain.tokens is not None and 0 < plain.tokens <= 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The built-in model as two GGUF files."""
    from quantgate.quantize.gguf import make_gguf

    folder, model = tmp_path_factory.mktemp("served"), open_model("quantgate/reference")
    return [str(make_gguf(model, folder / f"{kind}.gguf", kind).path) for kind in ("F16", "Q8_0")]


@llama_server
def test_a_release_is_served_by_the_command_that_it_names(release: Any, files: list[str]) -> None:
    endpoint = {"launch": LLAMA_LAUNCH, "concurrency": 4}
    variants = [{"artifact": files[1], "engine": "openai", "endpoint": endpoint, "name": "served"}]
    capabilities = {"math": {"cases": 100, "margin": "20%"}}
    config = load_config(release(model="quantgate/reference", variants=variants, capabilities=capabilities))
    first = pipeline.run(config)
    (evidence,), log = first.evidence, Path(config.out) / "servers" / "served.log"
    assert evidence.comparisons[0].finding.verdict == "pass" and not evidence.comparisons[0].unscored
    assert not evidence.declared and "answered as" in evidence.kernels[-1] and "bytes" not in evidence.kernels[-1]
    assert "Application startup complete" in log.read_text()
    spent = log.read_text().count("POST /v1/chat/completions")
    assert pipeline.run(config).evidence[0].engine == evidence.engine  # on another port
    checks = 3
    assert log.read_text().count("POST /v1/chat/completions") == spent + checks  # the bytes are known: answers are kept


@llama_server
def test_compare_launches_both_sides_by_one_command(files: list[str], tmp_path: Path) -> None:
    asked = ["compare", *files, "--suite", "math", "--cases", "100", "--margin", "20%", "--launch", LLAMA_LAUNCH,
             "--noise", "5", "--out", str(tmp_path / "o"), "--quiet"]  # fmt: skip
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "baseline: answered as" in done.output and "variant: answered as" in done.output
    assert sorted(one.name for one in (tmp_path / "o" / "servers").iterdir()) == ["baseline.log", "variant.log"]


# --- addresses, secrets, lost requests ---


def test_two_addresses_are_compared_without_any_model_here(right: ScriptedServer, place: Path, tmp_path: Path) -> None:
    with ScriptedServer(lambda body: "?", models=("wrong", "other")) as wrong:
        asked = ["compare", f"{right.url}#right", f"{wrong.url}#wrong", "--suite", *echo(place), "--margin", "20%",
                 "--noise", "5", "--out", str(tmp_path / "o"), "--quiet"]  # fmt: skip
        done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1, done.output
    result = CompareResult.load(tmp_path / "o" / "compare.json")
    assert result.verdicts[0].verdict == "fail" and result.runtime == ("engine=openai",)
    assert "its bytes were not seen" in result.served["variant"] and "'right'" in result.served["baseline"]


def test_a_local_baseline_may_be_held_beside_an_address(right: ScriptedServer, place: Path, tmp_path: Path) -> None:
    asked = (str(place / "model"), right.url, echo(place))
    with pytest.raises(ComparabilityError, match=r"allow: \[template, tokenizer\]"):  # nobody knows the server's
        compare_models(*asked, margin=0.2, noise=0, out=tmp_path)
    result = compare_models(*asked, margin=0.2, noise=0, allow=["template", "tokenizer"], out=tmp_path)
    assert result.verdicts[0].verdict == "pass" and set(result.served) == {"variant"}
    assert result.lock is not None and [one.field for one in result.lock.accepted] == ["template", "tokenizer"]
    assert "stop_tokens (not told by one side)" in [one.field for one in result.lock.noted]


@pytest.mark.parametrize("broken", ["baseline", "variant"])
def test_lost_requests_never_make_a_verdict(right: ScriptedServer, place: Path, tmp_path: Path, broken: str) -> None:
    """Every second request of one side is lost: no pass, and no proven loss either, though answers that came agree."""

    def half(asked: Asked) -> Fault | None:
        return Fault("status", status=400, text="no room") if len(last(asked.body)) % 2 else None

    answers = shouted(place)
    with ScriptedServer(lambda body: answers.get(last(body), "?"), models=("right",), always=half) as bad:
        first, second = (bad.url, right.url) if broken == "baseline" else (right.url, bad.url)
        result = compare_models(first, second, echo(place), margin=0.2, noise=0, out=tmp_path)
    (comparison,) = result.comparisons
    assert result.verdicts[0].verdict == "inconclusive"
    assert len(comparison.unscored) > 0.1 * comparison.asked and "no room" in comparison.unscored[0]


def test_a_prompt_that_the_variant_cannot_read_for_its_length_is_a_loss(
    right: ScriptedServer, place: Path, tmp_path: Path
) -> None:
    full = Fault("status", status=400, text="maximum context length is 4 tokens", code="context_length_exceeded")
    with ScriptedServer(lambda body: "?", models=("small",)) as small:
        first = iter([None, None, None])  # it answers while it is checked
        small.always = lambda _asked: next(first, full)
        result = compare_models(right.url, small.url, echo(place), margin=0.2, noise=0, out=tmp_path)
    assert result.verdicts[0].verdict == "fail"


def test_a_killed_comparison_goes_on_under_a_revision_and_only_there(
    right: ScriptedServer, place: Path, tmp_path: Path
) -> None:
    def asked(revision: str | None = None) -> int:
        right.asked.clear()
        side = EndpointConfig(url=right.url, revision=revision)
        compare_models(right.url, right.url, echo(place), margin=0.2, noise=0, out=tmp_path, endpoint=side,
                       baseline_endpoint=side)  # fmt: skip
        return len(right.asked)

    whole, checks = asked(revision="r1"), 2 * 3
    assert asked(revision="r1") == checks and whole > checks
    assert asked() == whole and asked() == whole
    assert asked(revision="r2") == whole


def test_a_secret_is_in_no_file_and_on_no_screen(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = shouted(place)
    monkeypatch.setenv("SCRIPTED_KEY", SECRET)
    with ScriptedServer(lambda body: answers.get(last(body), "?"), key=SECRET) as server:
        some = Fault("status", status=400, text=f"bad request by {SECRET}")
        server.always = lambda asked: some if last(asked.body).endswith("1") else None
        asked = ["compare", server.url, server.url, "--suite", *echo(place), "--margin", "20%", "--noise", "5",
                 "--out", str(tmp_path / "o"), "--quiet", "--api-key-env", "SCRIPTED_KEY"]  # fmt: skip
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 3 and SECRET not in done.output, done.output
        files = [one for one in tmp_path.rglob("*") if one.is_file()]
        assert len(files) >= 3 and not [one for one in files if SECRET.encode() in one.read_bytes()]
        result = CompareResult.load(tmp_path / "o" / "compare.json")
        assert "bad request by ***" in result.comparisons[0].unscored[0]
        monkeypatch.delenv("SCRIPTED_KEY")
        told = CliRunner().invoke(app, asked)
        assert isinstance(told.exception, UsageError)
        assert str(told.exception) == (
            "endpoint: the variable SCRIPTED_KEY is not set; export it, or leave 'api_key_env' out"
        )


def test_both_sides_of_a_release_may_be_servers(release: Any, place: Path, right: ScriptedServer) -> None:
    endpoint = {"url": right.url, "revision": "today"}
    config = load_config(
        release(
            baseline={"engine": "openai", "endpoint": endpoint},
            variants=[{"scheme": "W8A16", "engine": "openai", "endpoint": endpoint, "name": "served"}],
            capabilities={"echo": {"suite": str(place / "echo.jsonl"), "margin": "20%"}},
            judge={"noise": 0},
        )
    )
    report = pipeline.run(config)
    (evidence,) = report.evidence
    assert evidence.declared and evidence.runtime == ("engine=openai",)
    assert report.decision.verdicts[0].sentence.endswith("that the server ran these very bytes is its operator's word")


def test_settings_of_engines_and_a_server_do_not_go_together(
    right: ScriptedServer, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="the variant is a server, whose settings stand in its own command"):
        compare_models(right.url, right.url, echo(place), engine="llamacpp", margin=0.2, out=tmp_path)
    with pytest.raises(UsageError, match="engine openai asks a server; name its address"):
        compare_models(right.url, str(place / "model"), echo(place), engine="openai", margin=0.2, out=tmp_path)
    with pytest.raises(UsageError, match="is read by the model it was made from, and the baseline is a server"):
        compare_models(right.url, "some.gguf", echo(place), margin=0.2, out=tmp_path)
