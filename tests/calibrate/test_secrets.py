"""Secrets: known positives and negatives of every kind, and masks that hold none and look like what they stand for."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.calibrate.kinds import KINDS, VENDORS, luhn, mod97
from quantgate.calibrate.secrets import Masker, find

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RAN = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5bC7dE9fG1hJ3kL5mN7pQ9rS1tU3vW5xY7z"
HEX = "0123456789abcdef" * 4
# made up here from the published prefix and length, in two parts, so that no scanner takes this file for a leak
KEYS = {
    "anthropic": "sk-ant-" + "api03-" + RAN[:60],
    "openai": "sk-" + "proj-" + RAN[:48],
    "github": "gh" + "p_" + RAN[:36],
    "gitlab": "gl" + "pat-" + RAN[:20],
    "aws": "AK" + "IA" + "QX7DM2PLZ8KWT4VR",
    "google": "AI" + "za" + RAN[:35],
    "google oauth": "ya29" + "." + RAN[:40],
    "slack": "xo" + "xb-" + "2468013579-" + RAN[:24],
    "stripe": "sk_" + "live_" + RAN[:24],
    "stripe webhook": "wh" + "sec_" + RAN[:32],
    "hugging face": "h" + "f_" + RAN[:34],
    "npm": "np" + "m_" + RAN[:36],
    "pypi": "py" + "pi-" + RAN[:60],
    "sendgrid": "S" + "G." + RAN[:22] + "." + RAN[:43],
    "digitalocean": "do" + "p_v1_" + HEX,
    "twilio": "S" + "K" + HEX[:32],
    "telegram": "123456789:" + "AA" + RAN[:33],
    "databricks": "da" + "pi" + HEX[:32],
    "groq": "gs" + "k_" + RAN[:52],
    "nvidia": "nv" + "api-" + RAN[:64],
    "shopify": "sh" + "pat_" + HEX[:32],
    "vault": "hv" + "s." + RAN[:24],
}
BLOCK = "-----BEGIN RSA PRIVATE " + "KEY-----\n" + RAN + "\n" + RAN + "\n-----END RSA PRIVATE " + "KEY-----"
OTHERS = [
    ("private key", BLOCK),
    ("web token", "ey" + "JhbGciOiJIUzI1NiJ9." + "ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + RAN[:43]),
    ("password in an address", "postgres://app:" + "hunter2x@db.internal:5432/prod"),
    ("e-mail address", "jane.doe+news@mail.acme.co.uk"),
    ("phone number", "+49 30 901820"),
    ("phone number", "+1 (212) 736-5000"),
    ("phone number", "(212) 736-5000"),
    ("phone number", "212-736-5000"),
    ("phone number", "030 1234 5678"),
    ("phone number", "+33 1 42 68 53 00"),
    ("card number", "4111 1111 1111 1111"),
    ("card number", "378282246310005"),
    ("card number", "5555-5555-5555-4444"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("IBAN", "GB82WEST12345698765432"),
    ("IBAN", "FR1420041010050500013M02606"),
    ("IP address", "81.2.69.142"),
    ("IP address", "2a00:1450:4001:81b::200e"),
]
POSITIVE = [*((f"{name} key", key) for name, key in KEYS.items()), *OTHERS]
NEGATIVE = (
    "4111 1111 1111 1112",  # Luhn
    "DE88370400440532013000",  # mod 97
    "She has 1234567890123 stars and 16 more.",
    "Version 1.2.3.4.5 of 2024-11-22, 12:34:56, ratio 3:4:5:6",
    "Call 911, or dial 555-0123.",
    "pi is 3.14159265358979323846264338327950288",
    "write to user@example.com, ann@localhost or @ann; 5@3 is no address",
    "sk-learn, sklearn and sk-short are libraries; hf_hub, npm_config_registry",
    "203.0.113.7, 127.0.0.1, 0.0.0.0, 255.255.255.0 and 999.1.2.3 are nobody's",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    "1 + 2 = 3, 10-20-30, 2,500,000 people and 1 000 000 000 000 years",
    "a digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "http://host:8080/path and c++::std::vector",
    "x = 1234567890\ny = 9876543210",
)


def test_every_kind_has_a_positive() -> None:
    assert set(KEYS) == set(VENDORS)
    assert {kind.name for kind in KINDS} == {name for name, _ in POSITIVE}


@pytest.mark.parametrize(("name", "secret"), POSITIVE, ids=[f"{at}-{name}" for at, (name, _) in enumerate(POSITIVE)])
@pytest.mark.parametrize("around", ["{}", "My key is {}, thanks.", '{{"k": "{}"}}', "({})", "x\n{}\ny"])
def test_a_secret_is_found_by_its_kind_and_masked(name: str, secret: str, around: str) -> None:
    text = around.format(secret)
    assert [one.kind.name for one in find(text)] == [name]
    masker = Masker()
    masked = masker.text(text)
    assert secret not in masked
    assert find(masked) == []
    assert masker.counts == {name: 1}
    assert 0.5 * len(text) <= len(masked) <= 1.5 * len(text) + 12
    hidden = "".join(text[one.start : one.end] for one in find(text))
    assert not any(hidden[at : at + 8] in masked for at in range(len(hidden) - 7)), "a part of the secret is left"


@pytest.mark.parametrize("text", NEGATIVE)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert find(text) == []
    assert Masker().text(text) == text


def test_numbers_that_follow_do_not_hide_a_number() -> None:
    for text in ("4111 1111 1111 1111 12", "7 4111 1111 1111 1111", "4111111111111111 378282246310005"):
        assert "card number" in {one.kind.name for one in find(text)}
    assert find("DE89 3704 0044 0532 0130 00 THEN")[0].kind.name == "IBAN"
    assert len(find("+49 30 901820 212-736-5000")) == 2


def test_check_digits_by_known_numbers() -> None:
    assert luhn("79927398713")
    assert [digit for digit in "0123456789" if luhn("7992739871" + digit)] == ["3"]
    assert mod97("GB82WEST12345698765432") == 1
    assert mod97("NL91ABNA0417164300") == 1
    assert mod97("GB82WEST12345698765431") != 1


def test_a_secret_that_occurs_twice_has_one_mask_and_another_has_another() -> None:
    masker = Masker()
    first = masker.text("a@acme.io b@acme.io")
    again = masker.text("reply to a@acme.io")
    assert again == f"reply to {first.split()[0]}"
    assert first.split()[0] != first.split()[1]
    assert masker.counts == {"e-mail address": 2}


def test_masks_keep_prefix_layout_and_country() -> None:
    mask = Masker()
    assert re.fullmatch(r"ghp_MASKED\w{30}", mask.text(KEYS["github"]))
    assert re.fullmatch(r"\d{4} \d{4} \d{4} \d{4}", mask.text("4111 1111 1111 1111"))
    assert re.fullmatch(r"DE00 \d{4} \d{4} \d{4} \d{4} \d\d", mask.text("DE89 3704 0044 0532 0130 00"))
    assert re.fullmatch(r"\+49 \d\d \d{6}", mask.text("+49 30 901820"))
    assert mask.text(BLOCK).endswith(BLOCK[-28:])


def test_every_text_of_a_value_is_masked_names_of_keys_too() -> None:
    value = {"a@acme.io": ["b@acme.io", {"deep": "c@acme.io"}], "n": 5, "none": None}
    assert not re.search("acme", json.dumps(Masker().value(value)))
    assert Masker().value({"n": 5, "none": None, "t": True}) == {"n": 5, "none": None, "t": True}


SECRET = st.sampled_from([secret for _, secret in POSITIVE])
NOISE = st.text(alphabet=st.sampled_from("ab1 0@.:-+/_\n,\u00e9AKIA"), max_size=12)


@given(st.lists(st.one_of(NOISE, SECRET, st.text(max_size=8)), max_size=8).map("".join))
def test_a_masked_text_holds_nothing_that_would_be_found(text: str) -> None:
    assert find(Masker().text(text)) == []


@given(st.lists(st.tuples(SECRET, st.sampled_from([" ", ", ", "\n", "; "])), min_size=1, max_size=6))
def test_no_secret_outlives_its_mask(parts: list[tuple[str, str]]) -> None:
    masked = Masker().text("".join(secret + between for secret, between in parts))
    assert not any(secret in masked for secret, _ in parts)


def _public() -> Iterator[str]:
    for name, key in (("gsm8k/test.jsonl", "question"), ("humaneval/HumanEval.jsonl", "prompt")):
        yield from (json.loads(line)[key] for line in (DATA / name).read_text("utf-8").splitlines())
    with (DATA / "xstest" / "xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        yield from (row["prompt"] for row in csv.DictReader(file))


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the repository")
def test_public_problems_hold_no_secret() -> None:
    texts = list(_public())
    assert len(texts) > 1900
    assert [text for text in texts if find(text)] == []
