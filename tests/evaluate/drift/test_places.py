"""Where positions stand: every token in its place, its band, its slice, its structure, its document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantgate.engines.scripted import END, ScriptedEngine
from quantgate.errors import DataError, EngineError, UsageError
from quantgate.evaluate.drift import drift, measure
from quantgate.evaluate.drift.passages import Passage, parts_of, pieces
from quantgate.evaluate.drift.places import by_structure, doubling, places_of
from quantgate.evaluate.drift.rarity import EDGES, band_of, by_rarity
from quantgate.evaluate.drift.texts import read_documents, windows
from quantgate.evaluate.suites import Case, Message

DATA = Path(__file__).parents[4] / "shared" / "data"
lengths = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=12)


def passages_of(shapes: list[tuple[int, int]]) -> list[Passage]:
    """One for each (first, answer tokens); ids count up, so that every token is told from every other."""
    found, at = [], 0
    for index, (first, answer) in enumerate(shapes):
        found.append(Passage(list(range(at, at + first + answer)), first, index, (f"first={first}",)))
        at += first + answer
    return found


@given(shapes=lengths, batch=st.integers(1, 40))
def test_every_scored_token_is_in_its_place_once(shapes: list[tuple[int, int]], batch: int) -> None:
    passages = passages_of(shapes)
    places = places_of(parts_of(passages, batch))
    seen = sorted(zip(places.token.tolist(), places.position.tolist(), places.answer.tolist(), strict=True))
    wanted = sorted((one.ids[at], at, at - one.first + 1) for one in passages for at in range(one.first, len(one.ids)))
    assert seen == wanted
    for token, document in zip(places.token.tolist(), places.document.tolist(), strict=True):
        assert token in passages[document].ids


@given(shapes=lengths, batch=st.integers(1, 60), most=st.integers(1, 25))
def test_pieces_score_the_same_positions_in_the_same_order(
    shapes: list[tuple[int, int]], batch: int, most: int
) -> None:
    for part in parts_of(passages_of(shapes), batch):
        whole = part.targets.tolist()
        parts = list(pieces(part, most))
        assert [token for _, _, targets in parts for token in targets.tolist()] == whole
        assert all(int(at.sum()) == len(targets) <= most for _, at, targets in parts)
        for ids, at, targets in parts:  # the token in front of each target is the one that is scored
            before = ids[at].tolist()
            assert all(part.ids.flatten().tolist().count(one) >= 1 for one in before)
            assert len(before) == len(targets)


def test_pieces_of_one_token_give_the_drift_of_the_whole(sums: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [ScriptedEngine({}, tilt=0.3)]
    (whole,) = drift(sums.engine(), variants, sums.cases(10))
    monkeypatch.setattr("quantgate.evaluate.drift.LOGITS_AT_ONCE", 257 * 2)
    assert drift(sums.engine(), variants, sums.cases(10)) == [whole]


@given(values=st.lists(st.integers(1, 5000), min_size=1, max_size=50), first=st.sampled_from([1, 2, 16]))
def test_every_number_is_in_one_group_whose_name_holds_it(values: list[int], first: int) -> None:
    groups = doubling(torch.tensor(values), first)
    assert torch.stack([mask for _, mask in groups]).sum(0).tolist() == [1] * len(values)
    for name, mask in groups:
        low, _, high = name.partition("-")
        assert all(int(low) <= values[at] <= int(high or low) for at in mask.nonzero()[:, 0].tolist())


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=80).filter(any))
def test_bands_hold_the_mass_that_they_are_named_after(counts: list[int]) -> None:
    """A token is in a band when the commoner ones make up at least its lower edge, and less than its upper one."""
    numbers = np.array(counts)
    bands, total = band_of(numbers), sum(counts)
    for token, band in enumerate(bands):
        if counts[token] == 0:
            assert band == -1
            continue
        commoner = sum(
            count for other, count in enumerate(counts) if (-count, other) < (-counts[token], token)
        )  # equally frequent ones by the tokenizer's order
        assert EDGES[band] * total <= commoner + 1e-9
        assert commoner < EDGES[band + 1] * total + 1e-9


def test_rare_tokens_are_rare_in_the_whole_text_not_among_the_scored() -> None:
    text = [[7] * 900 + [8] * 90 + [9] * 9 + [5]]
    groups = by_rarity(torch.tensor([5, 7]), text)
    assert [(name, mask.tolist()) for name, mask, _ in groups] == [
        ("commonest 50 %", [False, True]),
        ("rarest 1 %", [True, False]),
    ]
    assert groups[1][2] == "2 tokens, seen 1 to 9 times each; middle id 7"


def json_case(at: int, answer: str) -> Case:
    turn = Message(role="user", content=f"call {at}")
    return Case(suite="tools", id=str(at), messages=(turn,), scorer="exact", reference=answer, answer=answer)


def test_structure_is_counted_inside_json_answers_alone() -> None:
    answers = ['{"a":[1,2]}', "no_tool, sorry: none"]
    found = drift(ScriptedEngine({}), [ScriptedEngine({}, tilt=0.2)], [json_case(*one) for one in enumerate(answers)])
    assert found[0].detail is not None
    table = next(one for one in found[0].detail.tables if one.by == "structure of JSON answers")
    counts = {row.name: row.tokens for row in table.rows}
    assert counts == {
        "{ or }": 2, "[ or ]": 2, "quote": 2, "comma": 1, "colon": 1, "any of these": 8, "none of these": 4,
    }  # fmt: skip


def test_text_without_json_has_no_table_of_structure() -> None:
    places = places_of(parts_of([Passage([1, 2, 123], 1, 0)]))
    assert by_structure(places, ScriptedEngine({}).spell) == []


def test_tables_cover_every_position_once_where_groups_do_not_overlap(sums: Any) -> None:
    (found,) = drift(sums.engine(), [ScriptedEngine({}, tilt=0.3)], sums.cases(40))
    assert found.detail is not None
    tables = {table.by: table.rows for table in found.detail.tables}
    for by in ("position in the sequence", "position in the answer", "rarity of the true token", "slice"):
        assert sum(row.tokens for row in tables[by]) == found.tokens
        mean = sum(row.kl_mean * row.tokens for row in tables[by]) / found.tokens
        assert mean == pytest.approx(found.kl_mean, rel=1e-9)
    assert [row.name for row in tables["slice"]] == ["last=0", "last=1"]  # one suite alone makes no group
    assert {row.documents for row in tables["slice"]} == {20}
    for row in tables["slice"]:
        assert row.kl_low is not None and row.kl_high is not None
        assert row.kl_low <= row.kl_mean <= row.kl_high


def test_drift_of_one_slice_shows_in_its_row(sums: Any) -> None:
    """A variant that is tilted behind an odd number alone."""

    class Half(ScriptedEngine):
        def logits(self, ids: Any, at: Any = None) -> Any:
            plain, tilted = ScriptedEngine({}).logits(ids), super().logits(ids)
            odd = torch.tensor([bytes(row[: row.index(32)])[-1] % 2 == 1 for row in ids.tolist()])
            out = torch.where(odd[:, None, None], tilted, plain)
            return out if at is None else out[at]

    (found,) = drift(sums.engine(), [Half({}, tilt=0.5)], sums.cases(30))
    assert found.detail is not None
    rows = {row.name: row for table in found.detail.tables if table.by == "slice" for row in table.rows}
    assert rows["last=0"].kl_mean == 0 and rows["last=0"].same_top == 1
    assert rows["last=1"].kl_low is not None and rows["last=1"].kl_low > 0.02


def refusal_case(at: int, expect: str, answer: str) -> Case:
    turn = Message(role="user", content=f"{expect} {at}")
    reference: Any = {"expect": expect}
    return Case(suite="r", id=f"{at}", messages=(turn,), scorer="refusal", reference=reference, answer=answer)


class Opening(ScriptedEngine):
    """Likeliest at once: N where a refusal is asked for, Y where not; ``swap`` of the way to the other one."""

    def __init__(self, swap: float) -> None:
        super().__init__({}, runtime=(f"swap={swap}",))
        self.swap = swap

    def logits(self, ids: Any, at: Any = None) -> Any:
        out = torch.zeros(*ids.shape, END + 1)
        refuse = ids[:, 0] == ord("r")
        for sign, where in (("N", refuse), ("Y", ~refuse)):
            out[where, :, ord(sign)] = 9 * (1 - self.swap)
            out[where, :, ord("NY"[sign == "N"])] = 9 * self.swap
        return out if at is None else out[at]


def test_refusals_that_tip_over_show_at_their_first_token() -> None:
    cases = [refusal_case(at, "refuse", "No") for at in range(10)] + [
        refusal_case(at, "comply", "Yes") for at in range(12)
    ]
    same, tipped = drift(Opening(0.0), [Opening(0.0), Opening(0.6)], cases)
    assert same.detail is not None and same.detail.refusals is not None
    assert same.detail.refusals.openers == ("N",)
    assert [(row.expect, row.cases, row.tv) for row in same.detail.refusals.rows] == [
        ("refuse", 10, 0),
        ("comply", 12, 0),
    ]
    assert tipped.detail is not None and tipped.detail.refusals is not None
    refuse, comply = tipped.detail.refusals.rows
    likely, other = (float(torch.tensor([a, b] + [0.0] * 255).softmax(0)[0]) for a, b in ((9, 0), (3.6, 5.4)))
    assert [refuse.baseline, refuse.variant] == pytest.approx([likely, other])
    assert comply.variant > 0.4 > 0.001 > comply.baseline
    assert refuse.high is not None and refuse.high < 0 and comply.low is not None and comply.low > 0


def test_without_refusals_or_without_a_way_to_tell_them_there_is_no_table(sums: Any) -> None:
    (found,) = drift(sums.engine(), [sums.engine()], sums.cases(4))
    assert found.detail is not None and found.detail.refusals is None

    class Same(Opening):
        def logits(self, ids: Any, at: Any = None) -> Any:
            out = torch.zeros(*ids.shape, END + 1)
            out[..., 65] = 5.0
            return out if at is None else out[at]

    cases = [refusal_case(0, "refuse", "No"), refusal_case(1, "comply", "Yes")]
    (alike,) = drift(Same(0.0), [Same(0.0)], cases)
    assert alike.detail is not None and alike.detail.refusals is None


def test_a_killed_measurement_goes_on_and_asks_nothing_twice(sums: Any, tmp_path: Path) -> None:
    variant, calls = ScriptedEngine({}, tilt=0.3), [0]
    (whole,) = drift(sums.engine(), [variant], sums.cases(12), tokens_per_batch=20)
    plain = variant.logits

    def counted(ids: Any, at: Any = None) -> Any:
        calls[0] += 1
        return plain(ids, at)

    variant.logits = counted  # type: ignore[method-assign]

    def stop(done: int, total: int) -> None:
        assert total > 3
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drift(sums.engine(), [variant], sums.cases(12), stop, tokens_per_batch=20, keep=tmp_path)
    assert (calls[0], len(list(tmp_path.iterdir()))) == (3, 3)
    broken = min(tmp_path.iterdir())
    broken.write_bytes(b"cut off")
    assert drift(sums.engine(), [variant], sums.cases(12), tokens_per_batch=20, keep=tmp_path) == [whole]
    again = calls[0]
    assert again == len(list(tmp_path.iterdir())) + 1  # the broken one alone was measured twice
    assert drift(sums.engine(), [variant], sums.cases(12), tokens_per_batch=20, keep=tmp_path) == [whole]
    assert calls[0] == again


def test_tapes_of_another_engine_are_not_read(sums: Any, tmp_path: Path) -> None:
    little, much = (ScriptedEngine({}, tilt=tilt, weights=f"tilt {tilt}") for tilt in (0.1, 0.5))
    (first,) = drift(sums.engine(), [little], sums.cases(6), keep=tmp_path)
    (second,) = drift(sums.engine(), [much], sums.cases(6), keep=tmp_path)
    assert first.kl_mean < second.kl_mean


def test_logits_that_are_not_finite_are_told_in_a_sentence(sums: Any) -> None:
    class Broken(ScriptedEngine):
        def logits(self, ids: Any, at: Any = None) -> Any:
            return super().logits(ids, at) * float("nan")

    with pytest.raises(EngineError, match="a model gives logits that are NaN or infinite"):
        drift(sums.engine(), [Broken({})], sums.cases(4))


def test_different_vocabularies_are_told_in_a_sentence(sums: Any) -> None:
    class Wider(ScriptedEngine):
        def logits(self, ids: Any, at: Any = None) -> Any:
            found = super().logits(ids, at)
            return torch.cat([found, found[..., :3]], -1)

    with pytest.raises(EngineError, match="the baseline tells 257 tokens apart and the variant 260"):
        drift(sums.engine(), [Wider({})], sums.cases(4))


def test_files_of_running_text_fall_into_documents(tmp_path: Path) -> None:
    plain, marked, wiki, lines = (tmp_path / name for name in ("a.txt", "b.txt", "c.txt", "d.jsonl"))
    plain.write_text("One.\n\nTwo.\n")
    marked.write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n")
    wiki.write_text("\n = First = \n\ntext\n\n = = Section = = \n\nmore\n\n = Second one = \n\nend\n")
    lines.write_text(json.dumps({"text": "One."}) + "\n\n" + json.dumps("Two.") + "\n")
    assert read_documents(plain) == ["One.\n\nTwo."]
    assert read_documents(marked) == ["One.", "Two."]
    assert read_documents(lines) == ["One.", "Two."]
    first, second = read_documents(wiki)
    assert "Section" in first and second.startswith(" = Second one = ")
    lines.write_text('{"text": "One."}\n{"body": 3}\n')
    with pytest.raises(DataError, match="line 2: holds no text"):
        read_documents(lines)
    plain.write_text(" \n")
    with pytest.raises(DataError, match="holds no text"):
        read_documents(plain)
    with pytest.raises(DataError, match=r"missing\.txt: cannot be read"):
        read_documents(tmp_path / "missing.txt")


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    context=st.integers(2, 17),
    begins=st.booleans(),
)
def test_windows_hold_every_token_of_every_document_once_and_none_is_too_long(
    sizes: list[int], context: int, begins: bool
) -> None:
    texts = [chr(97 + at) * size for at, size in enumerate(sizes)]

    def encode(text: str) -> list[int]:
        return [1] * begins + [ord(one) for one in text]

    def cut() -> list[Passage]:
        return windows([("file", texts)], encode, context, start=1 if begins else None)

    if not any(size + begins >= 2 for size in sizes):
        with pytest.raises(DataError, match="no document has two tokens"):
            cut()
        return
    found = cut()
    assert all(2 <= len(one.ids) <= context and one.first == 1 for one in found)
    assert all(one.ids[0] == 1 for one in found) or not begins
    for size, letter in zip(sizes, range(97, 105), strict=False):
        mine = sum(one.ids.count(letter) for one in found)
        dropped = 0 if begins else int(size % context == 1)  # a last window of one token predicts nothing
        assert mine == size - dropped
    whole = sum(size + begins >= 2 for size in sizes)
    assert len({one.document for one in found}) == (whole if whole > 1 else len(found))


def test_a_budget_of_tokens_takes_documents_in_a_seeded_order() -> None:
    texts = [chr(97 + at) * 10 for at in range(20)]

    def taken(seed: int) -> list[Passage]:
        return windows([("f", texts)], lambda text: [ord(one) for one in text], 8, most=40, seed=seed)

    assert taken(1) == taken(1) != taken(2)
    assert 40 <= sum(len(one.ids) - 1 for one in taken(1)) < 50


def test_a_budget_of_tokens_takes_many_documents_before_more_of_one() -> None:
    texts = ["a" * 30, "b" * 30, "c" * 9]
    found = windows([("f", texts)], lambda text: [ord(one) for one in text], 10, most=50)
    taken = ["".join(map(chr, one.ids)) for one in found]
    assert sorted(taken[:3]) == ["a" * 10, "b" * 10, "c" * 9]
    assert sorted(taken[3:]) in (["a" * 10, "a" * 10, "b" * 10], ["a" * 10, "b" * 10, "b" * 10])


def test_a_window_of_one_token_is_refused() -> None:
    with pytest.raises(UsageError, match="a window of 1 tokens leaves nothing to score"):
        windows([("f", ["abc"])], lambda text: [1, 2, 3], 1)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not beside the repository")
def test_real_texts_fall_into_their_documents() -> None:
    wiki = read_documents(DATA / "wikitext2" / "wikitext2_raw_test.txt")
    assert wiki[0].split("\n")[0].strip() == "= Robert Boulter ="
    assert len(wiki) == 62  # 60 articles, one of which has two formulas that look like headings
    stories = read_documents(DATA / "tinystories" / "tinystories_sample.txt")
    assert len(stories) == 2317 and all("<|endoftext|>" not in one for one in stories)


def test_running_text_has_full_positions_and_no_table_of_answers() -> None:
    engine, variant = ScriptedEngine({}), ScriptedEngine({}, tilt=0.3)
    texts = [("f", [f"document {at}, " * 8 for at in range(9)])]
    found = measure(engine, [variant], windows(texts, lambda text: list(text.encode()), 64))[0]
    assert found.detail is not None
    tables = {table.by: table.rows for table in found.detail.tables}
    assert set(tables) == {"position in the sequence", "rarity of the true token"}
    assert [row.name for row in tables["position in the sequence"]] == ["1-15", "16-31", "32-63"]
    assert found.detail.documents == 9
