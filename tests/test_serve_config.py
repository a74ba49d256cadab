"""serve.yaml: what is written is what is meant, and everything else is one sentence."""

from __future__ import annotations

import pytest

from quantgate.errors import UsageError
from quantgate.serve_config import NANO, Budget, ServeConfig, allowance, read_config

SERVERS = """
target: fleet
live: {baseline: BF16, canary: W4A16, share: 0.05}
variants:
  BF16: {endpoint: {url: "http://127.0.0.1:9000/v1"}, price: {prompt: 0.50/M, answer: 1.50/M}}
  W4A16: {endpoint: {url: "http://127.0.0.1:9001/v1"}, dialect: vllm}
rules:
  - {name: long prompts, when: {prompt_over: 8000}, variant: baseline}
routes:
  - {name: tools, when: {tools: true}, stream: buffer, confirm: {rules: [{tool: pay}]}, budgets: {queue: 200ms}}
"""


def read(tmp_path, text: str) -> ServeConfig:
    (tmp_path / "serve.yaml").write_text(text)
    return read_config(tmp_path / "serve.yaml")


def test_an_empty_file_is_the_default(tmp_path):
    found = read(tmp_path, "")
    assert found.model_copy(update={"data": ".quantgate"}) == ServeConfig()
    assert (found.host, found.port) == ("127.0.0.1", 8000)
    assert found.data == str(tmp_path / ".quantgate")


def test_a_whole_file_is_read(tmp_path):
    found = read(tmp_path, SERVERS)
    assert found.live is not None
    assert (found.live.canary, found.live.share) == ("W4A16", 0.05)
    assert found.routes[0].budgets == {"queue": 0.2}
    assert found.rules[0].when.prompt_over == 8000
    assert ServeConfig.model_validate(found.body()) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot: 1", "unknown key 'prot'; did you mean 'port'?"),
        ("[", "serve.yaml: cannot be read"),
        ("port: 70000", "'port': input should be less than or equal to 65535, found 70000"),
        ("live: {baseline: B}", "'live.baseline' is 'B', which is none of 'variants'"),
        ("variants: {A: {}}", "names 'variants' and not which is live"),
        ("registry: sqlite:///x.db\nlive: {baseline: A}\nvariants: {A: {}}", "both 'registry' and 'live'"),
        (
            "live: {baseline: A}\nvariants: {A: {}}\nworkers: 2",
            "'workers' over 1 would open or launch models several times",
        ),
        ("routes: [{name: a, budgets: {que: 1s}}]", "'que' is no stage; did you mean 'queue'?"),
        ("routes: [{name: a}, {name: a}]", "two of 'routes' bear one name"),
        ("routes: [{name: a, stream: fast}]", "'routes.0.stream': input should be"),
        ("rules: [{name: a, variant: x, when: {headers: {Authorization: x}}}]", "which holds a secret"),
        ("shadow: {variant: A, budget: {tokens: 1M/year}}", "expected such as 1M/day, 60/min or 500k"),
        ("variants: {A: {endpoint: {url: x}}}", "is no address"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UsageError) as told:
        read(tmp_path, text)
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_config(tmp_path / "serve.yaml")


def test_files_are_seen_from_where_the_configuration_lies(tmp_path):
    text = "live: {baseline: A}\nvariants: {A: {artifact: runs/A}}"
    assert read(tmp_path, text).variants["A"].artifact == str(tmp_path / "runs/A")


@pytest.mark.parametrize("text", ["0/day", "-1", "1e9", "1M/year", "", "M", "1 M"])
def test_an_allowance_that_is_none(text):
    with pytest.raises(ValueError, match="expected such as"):
        allowance(text)


def test_money_is_counted_without_rounding():
    found = Budget.model_validate({"money": "$0.1/day", "tokens": 5})
    assert found.money is not None
    assert found.money.amount == NANO // 10
    assert Budget.model_validate(found.body()) == found
    assert set(found.limits) == {"tokens", "money"}
