"""The choice: it covers what the traffic holds, depends on content and seed alone, and lets no secret through."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantgate.calibrate import Rules, chosen_of, from_traffic, select
from quantgate.calibrate.conversation import conversation
from quantgate.calibrate.folder import RECORD, SAMPLES, Kept, read_folder, write_folder
from quantgate.calibrate.near import ALIKE, Near, jaccard, shingles
from quantgate.errors import DataError, RecordError, UsageError

WORDS = [
    "river", "stone", "cloud", "winter", "paper", "garden", "silver", "window", "market", "bridge", "forest", "candle",
    "harbor", "copper", "meadow",
]  # fmt: skip
SECRETS = (
    "jane.doe@acme.io",
    "+49 30 901820",
    "4111 1111 1111 1111",
    "gh" + "p_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5",
)


def plain(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Different questions in English, each with an answer."""
    rng = random.Random(seed)
    return [
        {
            "prompt": f"What is the {' and the '.join(rng.choices(WORDS, k=8))}?",
            "completion": " ".join(rng.choices(WORDS, k=6)),
        }
        for _ in range(count)
    ]


def german(count: int) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [{"prompt": f"Was ist das und wie ist es mit {' '.join(rng.choices(WORDS, k=9))}?"} for _ in range(count)]


def test_rare_slices_are_covered_where_a_plain_sample_would_miss_them(small: Any, write: Any) -> None:
    tool = {"type": "function", "function": {"name": "book", "parameters": {}}}
    rare = [{"messages": [{"role": "user", "content": f"Book {WORDS[at]}."}], "tools": [tool]} for at in range(5)]
    path = write(plain(2000) + german(6) + rare)
    found = select(small, [path], Rules(48))
    rows = {row.name: row for row in found.audit.slices}
    assert len(found.samples) == 48
    assert rows["language=de"].traffic == 6
    assert rows["language=de"].samples >= 3
    assert rows["tool=book"].samples >= 3
    assert rows["language=en"].samples > 24  # half is drawn as the traffic is
    assert sum(row.samples for row in found.audit.slices if row.name.startswith("length=")) == 48
    assert sum(row.traffic for row in found.audit.slices if row.name.startswith("language=")) == 2011


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_choice_does_not_depend_on_the_order_of_the_lines_or_their_files(
    small: Any, tmp_path: Path, rng: random.Random, seed: int
) -> None:
    rows = [json.dumps(row) for row in plain(60) + german(8) + plain(10)]  # ten are said twice
    expected = None
    for turn in range(2):
        paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
        at = 0 if turn == 0 else rng.randrange(len(rows))
        for path, part in zip(paths, (rows[:at], rows[at:]), strict=True):
            path.write_text("".join(f"{row}\n" for row in part))
        found = select(small, paths, Rules(16, seed=seed))
        seen = ([one.digest for one in found.samples], [one.digest for one in found.held_out], found.audit.slices)
        assert expected in (None, seen)
        assert found.audit.repeated == 10
        expected = seen
        rng.shuffle(rows)


def test_another_seed_is_another_choice(small: Any, write: Any) -> None:
    path = write(plain(300))
    first, again, other = (select(small, [path], Rules(20, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert {one.digest for one in first.samples} != {one.digest for one in other.samples}


def test_samples_and_held_out_conversations_are_all_different(small: Any, write: Any) -> None:
    found = select(small, [write(plain(200) * 3)], Rules(32))
    digests = [one.digest for one in (*found.samples, *found.held_out)]
    assert len(set(digests)) == len(digests) == 32 + 16
    assert found.audit.held_out == tuple(digests[32:])
    assert found.audit.repeated == 400


def test_near_duplicates_are_dropped_and_counted(small: Any, write: Any) -> None:
    long = " ".join(WORDS * 4)
    near = [{"prompt": f"{long} {at}"} for at in range(40)]  # 2 of some 60 shingles differ
    system = "You are a very long system prompt. " * 30
    far = [
        {"messages": [{"role": "system", "content": system}, {"role": "user", "content": row["prompt"]}]}
        for row in plain(20)
    ]
    found = select(small, [write(near + far)], Rules(30))
    assert found.audit.near_duplicates == 39
    assert len(found.samples) + len(found.held_out) == 21  # a shared system prompt is no likeness


def test_proposed_pairs_are_compared_in_truth() -> None:
    rng = random.Random(3)
    base = [rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(80)]
    near, missed, truly = Near(), 0, 0
    near.keep("base", shingles(conversation(" ".join(base))))
    for changed in range(40):
        other = list(base)
        for at in rng.sample(range(80), changed // 2):
            other[at] = "x"
        found = shingles(conversation(" ".join(other)))
        alike = jaccard(found, shingles(conversation(" ".join(base)))) >= ALIKE
        twin = near.twin_of(found) == "base"
        truly += alike
        missed += alike and not twin
        assert alike or not twin  # never a pair that is not alike in truth
    assert truly >= 6
    assert missed == 0


def test_requirements_are_met_or_refused_in_one_sentence(small: Any, write: Any) -> None:
    rows = plain(300) + german(12) + [{"prompt": "word " * 500 + str(at), "completion": WORDS[at]} for at in range(1)]
    path = write(rows)
    found = select(small, [path], Rules(20, require={"language=de": 12, "length>=2048": 1}))
    rows_of = {row.name: row.samples for row in found.audit.slices}
    assert rows_of["language=de"] == 12
    assert rows_of["length=2048..4095"] == 1
    with pytest.raises(
        DataError, match=r"language=fr: 2 required, the traffic holds 0; add conversations of 'language=fr'"
    ):
        select(small, [path], Rules(20, require={"language=fr": 2}))
    with pytest.raises(DataError, match=r"among the samples there is room for"):
        select(small, [path], Rules(20, require={"language=de": 12, "language=en": 12}))
    with pytest.raises(DataError, match=r"tools: 1 required, .*; add requests with the 'tools'"):
        select(small, [path], Rules(20, require={"tools": 1}))
    with pytest.raises(UsageError, match="did you mean 'tools'"):
        select(small, [path], Rules(20, require={"tolls": 1}))


def test_too_many_broken_lines_are_refused_and_a_few_are_listed(small: Any, write: Any) -> None:
    path = write([*plain(99), b'{"prompt": '])
    found = select(small, [path], Rules(10))
    assert (found.audit.lines, found.audit.conversations, found.audit.broken) == (100, 99, 1)
    assert [(one.file, one.line) for one in found.audit.broken_lines] == [("traffic.jsonl", 100)]
    with pytest.raises(
        DataError, match=r"1 of 100 lines of the traffic are broken, 0 % of them may be: .*line 100: not val"
    ):
        select(small, [path], Rules(10, broken=0))
    path = write([*plain(5), *([b"{"] * 2000)])
    assert len(select(small, [path], Rules(4, broken=0.999)).audit.broken_lines) == 1000
    with pytest.raises(DataError, match=r"2000 of 2005 lines .* and 1997 more"):
        select(small, [path], Rules(4))


def test_secrets_are_masked_dropped_or_refused_as_the_rule_says(small: Any, write: Any) -> None:
    rows = plain(30)
    rows[4]["prompt"] += f" Write to {SECRETS[0]}."
    rows[5]["completion"] += f" {SECRETS[2]} and {SECRETS[2]}"
    path = write(rows)
    masked = select(small, [path], Rules(30))
    assert masked.audit.secrets == {"card number": 1, "e-mail address": 1}
    assert (len(masked.samples), masked.audit.masked, masked.audit.dropped) == (30, 2, 0)
    dropped = select(small, [path], Rules(30, secrets="drop"))
    assert (len(dropped.samples), dropped.audit.masked, dropped.audit.dropped) == (28, 0, 2)
    with pytest.raises(DataError, match=r"traffic\.jsonl, line 5: holds 1 x e-mail address, and the rule is") as told:
        select(small, [path], Rules(30, secrets="refuse"))
    assert "acme" not in str(told.value)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_secret_is_in_any_file_that_is_written(small: Any, tmp_path: Path, data: st.DataObject) -> None:
    """Wherever a secret stands: in a message, a call's arguments, a tool's schema, the name of a key, a broken line."""
    secret = data.draw(st.sampled_from(SECRETS))
    places: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": f"I am {secret}."},
                {"role": "assistant", "content": f"Hi {secret}"},
            ]
        },
        {"messages": [{"role": "system", "content": secret}, {"role": "user", "content": "q"}]},
        {
            "messages": [
                {"role": "user", "content": "call it"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "f", "arguments": json.dumps({secret: [secret]})}}],
                },
            ],
            "tools": [{"type": "function", "function": {"name": secret, "description": secret, "enum": [secret]}}],
            "response_format": {"type": "json_schema", "json_schema": {"default": secret}},
        },
        {"messages": [{"role": secret, "content": "q"}]},
        {"messages": [{"role": "user", "content": [{"type": secret}]}]},
        {"prompt": 5, secret: secret},
        {"request": {"prompt": secret}, "response": {"choices": [{"text": secret}]}},
    ]
    some = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4))
    path, out = tmp_path / "t.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in some + plain(3)))
    found = select(small, [path], Rules(12, broken=0.999))
    chosen = chosen_of(small, found.samples, source="t", asked=12, max_tokens=64, audit=found.audit)
    kept = Kept(source="t", seed=0, asked=12, samples=chosen.record.samples, audit=found.audit)
    write_folder(out, kept, found.samples, found.held_out)
    chosen.record.save(out / "set.json")
    for file in out.iterdir():
        text = file.read_text("utf-8")
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text


def test_a_folder_reads_back_as_the_same_samples_and_an_edited_one_is_refused(
    small: Any, write: Any, tmp_path: Path
) -> None:
    rows = [
        *plain(40),
        {**conversation(plain(1, 9)[0]).body(), "tools": [{"function": {"name": "b", "a": {"z": 1, "c": 2}}}]},
    ]
    found, out = select(small, [write(rows)], Rules(41)), tmp_path / "set"
    digests = tuple(one.digest for one in found.samples)
    write_folder(out, Kept(source="t", seed=0, asked=41, samples=digests, audit=found.audit), found.samples, [])
    kept, samples = read_folder(out)
    assert samples == found.samples
    assert kept.audit == found.audit
    direct = from_traffic(small, write(rows), Rules(41), max_tokens=64)
    again = from_traffic(small, out, Rules(3), max_tokens=64)
    assert (again.ids, again.record.samples, again.record.audit) == (direct.ids, direct.record.samples, found.audit)
    text = (out / SAMPLES).read_text()
    (out / SAMPLES).write_text(text.replace("river", "brook", 1))
    with pytest.raises(DataError, match=r"samples\.jsonl, line \d+: not what the record names"):
        read_folder(out)
    (out / SAMPLES).write_text(text.partition("\n")[2])
    with pytest.raises(DataError, match=r"not what the record names; run quantgate calibrate again"):
        read_folder(out)
    (out / RECORD).unlink()
    with pytest.raises(RecordError, match=r"holds no calibration\.json; name a JSONL file"):
        from_traffic(small, out, Rules(3), max_tokens=64)


def test_missing_slices_are_named_with_what_to_add(small: Any, write: Any) -> None:
    missing = select(small, [write(plain(30))], Rules(10)).audit.missing
    told = Counter(sentence.split("'")[1] for sentence in missing)
    assert told["tools"] == told["refuses"] == told["system"] == 1
    assert any("add whole exchanges in which the answer refuses" in sentence for sentence in missing)


def test_functions_that_no_sample_is_of_are_told_in_one_sentence(small: Any, write: Any) -> None:
    rows = [
        {**conversation(row["prompt"]).body(), "tools": [{"function": {"name": f"f{at}"}}]}
        for at, row in enumerate(plain(60))
    ]
    found = select(small, [write(rows)], Rules(12))
    told = [sentence for sentence in found.audit.missing if "functions" in sentence]
    assert told == ["no sample is of 48 of the functions in the traffic: take more samples, or require them"]


def test_memory_holds_candidates_and_not_the_traffic(small: Any, tmp_path: Path) -> None:
    """Four times the lines, within a tenth the same candidates in memory."""
    from quantgate.calibrate.scan import HELD_OUT, SPARE, Scan, Survey

    sizes = []
    for count in (1500, 6000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in plain(count)))
        rules = Rules(16)
        scan = Scan(Survey(small, [path], rules, lambda *_: None), rules, lambda *_: None)
        sizes.append(len(scan.overall.kept) + sum(len(heap.kept) for heap in scan.by_name.values()))
        assert len(scan.overall.kept) == SPARE * 16 + HELD_OUT
    assert sizes[1] <= 1.1 * sizes[0]
