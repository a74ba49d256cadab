"""Profiles of products: rules to start from, every one visible, every one the user's to change."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.decide import products
from quantgate.errors import UsageError
from quantgate.examples import example
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig

CAPABILITIES = {"math": {"margin": "10%"}, "extract": {"suite": "json_depth", "margin": "10%"}, "refusals": {}}


def config(**target: Any) -> ReleaseConfig:
    told = {
        "capabilities": CAPABILITIES,
        "variants": ["W4A16"],
        "targets": {"one": {"hardware": "l4", "runtime": "vllm", **target}},
    }
    return parse(ReleaseConfig, told, where="test")


@pytest.mark.parametrize("name", products.names())
def test_every_profile_makes_a_target_with_a_reason_for_each_rule(name: str) -> None:
    chosen = products.product(name)
    target = config(profile=name).targets["one"]
    assert target.profile == name
    assert set(target.capabilities or ()) == set(CAPABILITIES)
    for key, rule in chosen.rules.items():
        assert getattr(target, key) not in (None, {}), key
        assert len(rule.because) > 10
    assert all(len(one.because) > 10 for one in chosen.margins.values())


def test_the_four_that_are_promised_are_there() -> None:
    assert products.names() == ("extraction", "latency-critical", "long-context", "safety-critical")


def test_the_targets_own_word_goes_before_its_profiles_and_that_before_the_releases() -> None:
    found = config(
        profile="extraction", e2e_p95="2s", ledger={"fallback": 3}, capabilities={"math": "1%", "extract": None}
    )
    target = found.targets["one"]
    assert target.e2e_p95 == 2.0
    assert target.ledger == {"fallback": 3}
    assert target.capabilities == {"math": 0.01, "extract": 0.03}  # by the suite that the capability names
    assert config(profile="extraction", e2e_p95=None).targets["one"].e2e_p95 is None
    assert config().targets["one"].capabilities is None


def test_a_record_with_a_profile_reads_back_as_itself() -> None:
    found = config(profile="safety-critical")
    assert ReleaseConfig.model_validate(found.body()) == found


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"profile": "extration"}, "unknown profile 'extration'; did you mean 'extraction'?"),
        ({"profile": 3}, "unknown profile '3'"),
        (
            {"capabilities": {"maths": "3%"}},
            "needs 'maths', which is no capability of this release; did you mean 'math'?",
        ),
        ({"capabilities": []}, "'capabilities' is empty; name what is needed there"),
        ({"capabilities": {"math": "three"}}, "expected a percentage such as 3%, found 'three'"),
        ({"prefer": "cost"}, "goes by cost and has no 'price'; write what a device costs, such as price: 2.50/h"),
        ({"cost": "0.50", "price": "2/h"}, "a price such as 0.50/M with its unit"),
        ({"ledger": {"fallbak": 0}}, "'fallbak' is no event of the ledger; did you mean 'fallback'?"),
        ({"ttft_p95": "-3ms"}, "more than nothing, found '-3ms'"),
        ({"e2e_p99": "2 days"}, "a time such as 300ms with its unit"),
    ],
)
def test_what_a_target_may_not_say_is_one_sentence(told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        config(**told)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [None, *products.names()])
def test_init_writes_each_profile_out_rule_by_rule(name: str | None) -> None:
    text = example(["h100-sxm:vllm", "m4-max:llama.cpp"], name)
    import yaml

    found = parse(ReleaseConfig, yaml.safe_load(text), where="init")
    assert list(found.targets) == ["h100-sxm", "m4-max"]
    if name is not None:
        for key, rule in products.product(name).rules.items():
            assert rule.because in text
            assert getattr(found.targets["m4-max"], key) not in (None, {})


def test_init_refuses_a_place_without_a_runtime() -> None:
    with pytest.raises(UsageError, match="--on h100-sxm: names no runtime; write both, such as h100-sxm:vllm"):
        example(["h100-sxm"])
