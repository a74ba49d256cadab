"""What a training set holds: which tokens count, where problems come from, what is cut, doubled or a gate's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.calibrate import Conversation, Turns
from quantgate.errors import ComparabilityError, DataError, Overlap
from quantgate.evaluate import suites
from quantgate.evaluate.suites import Case, Message
from quantgate.models import OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.train import Document, TrainingSet, tokens_of
from quantgate.train._rendering import Drawn, Told, documents, ending, of_turns
from quantgate.train.data import check_overlap, check_teacher, training_set
from quantgate.train.options import TrainOptions

SMALL = TrainOptions(documents=120, tune=16, max_tokens=400)
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SYSTEM_IN_LAST = (  # as Mistral's: the system prompt stands in front of the last question, wherever that is
    "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages if m['role'] != 'system' %}<|{{ m['role'] }}|>"
    "{% if m['role'] == 'user' and m == users[-1] and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }} "
    "{% endif %}"
    "{{ m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKING = (  # as DeepSeek's and Qwen's: thoughts of earlier answers are left out, and a new answer begins with some
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
TRIMMED = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TOOLS = (
    "{% if tools %}<|system|>{{ tools | length }} tools<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TRIMMED


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    """Its tokens are bytes, so that what counts can be read."""
    return open_model(save_random(tmp_path_factory.mktemp("bytes"), hidden=32, feed_forward=32))


def with_template(folder: Path, template: str) -> OpenedModel:
    opened = open_model(save_random(folder, hidden=32, feed_forward=32))
    opened.tokenizer.chat_template = template
    return opened


def counting(model: OpenedModel, document: Document, least: float = 1.0) -> list[str]:
    """The stretches of text whose tokens count at least so much."""
    found, open_ = list[list[int]](), False
    for one, weight in zip(document.ids, document.wanted, strict=True):
        if weight >= least:
            found = found if open_ else [*found, []]
            found[-1].append(one)
        open_ = weight >= least
    return [model.tokenizer.decode(ids) for ids in found]


def asked_in(document: Document) -> tuple[Message, ...]:
    """What stands in front of the last answer, as a case has it."""
    return tuple(Message.model_validate({"role": role, "content": said}) for role, said in document.turns[:-1])


def copied(document: Document) -> Case:
    """A gate's case that asks what ``document`` asks."""
    return Case(suite="math", id="math-copied", scorer="exact", reference="", messages=asked_in(document))


def rendered(model: OpenedModel, turns: Turns | Conversation, told: Told | None = None, limit: int = 999) -> Document:
    conversation = turns if isinstance(turns, Conversation) else of_turns(turns)
    (found,) = documents(model, [Drawn("traffic", conversation)], prompts=0.25, limit=limit, told=told or Told())
    assert found is not None
    return found


TALK = (
    ("system", "Be brief."),
    ("user", "What is 2 + 2?"),
    ("assistant", "4"),
    ("user", "And 3 + 3?"),
    ("assistant", "6, caf\u00e9."),
)


@pytest.mark.parametrize("template", ["", CHATML, TRIMMED])
def test_answers_count_with_their_ends_and_all_else_a_little(template: str, tmp_path: Path, model: OpenedModel) -> None:
    opened = with_template(tmp_path / "m", template) if template else model
    document = rendered(opened, TALK)
    assert counting(opened, document) == ["4<|end|>", "6, caf\u00e9.<|end|>"]
    assert document.wanted[0] == 0 and set(document.wanted[1:]) == {0.25, 1.0}
    assert len(document.ids) == len(document.wanted)


def test_a_document_is_what_an_engine_asks_and_then_the_answer(model: OpenedModel) -> None:
    document, asked = rendered(model, TALK), [{"role": role, "content": text} for role, text in TALK[:-1]]
    prompt = model.encode(asked)
    assert document.ids[: len(prompt)] == prompt
    assert document.counted[-1] == len(document.ids) - 2


def test_a_template_that_moves_what_came_before_hides_only_the_earlier_answers(tmp_path: Path) -> None:
    opened, told = with_template(tmp_path / "m", SYSTEM_IN_LAST), Told()
    assert counting(opened, rendered(opened, TALK, told)) == ["6, caf\u00e9.<|end|>"]
    assert told.hidden == 1


def test_thoughts_that_a_template_drops_are_not_taken_for_an_answer(tmp_path: Path) -> None:
    opened, told = with_template(tmp_path / "m", THINKING), Told()
    thought = (*TALK[:2], ("assistant", "<think>hm</think>4"), *TALK[3:])
    assert counting(opened, rendered(opened, thought, told)) == ["6, caf\u00e9.<|end|>"]
    assert told.hidden == 1


def test_a_template_without_an_end_gets_the_tokenizers(tmp_path: Path) -> None:
    opened = with_template(tmp_path / "m", BARE)
    assert ending(opened) == "<|end|>"
    assert counting(opened, rendered(opened, TALK[1:3])) == ["4<|end|>"]


def test_calls_of_tools_count_where_the_template_writes_them(tmp_path: Path) -> None:
    opened = with_template(tmp_path / "m", TOOLS)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    asked = Conversation(
        (
            {"role": "user", "content": "2 + 2"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is 4."},
        ),
        tools=({"type": "function", "function": {"name": "add"}},),
    )
    document = rendered(opened, asked)
    assert opened.tokenizer.decode(document.ids).startswith("<|system|>1 tools<|end|>")
    assert counting(opened, document) == ["CALL add<|end|>", "It is 4.<|end|>"]


def test_a_conversation_that_the_template_refuses_is_left_out_and_told(tmp_path: Path) -> None:
    opened = with_template(tmp_path / "m", REFUSES)
    traffic = [TALK, *(((("user", f"question {at}")), ("assistant", f"answer {at}")) for at in range(20))]
    found = training_set(opened, turns=traffic, options=SMALL)
    assert len(found.documents) + len(found.tune) == 20
    assert "1 conversations were left out, because the chat template refuses them" in found.notes


def test_an_unanswered_conversation_counts_as_a_prompt(model: OpenedModel) -> None:
    document = rendered(model, (("user", "hello"),))
    assert set(document.wanted[1:]) == {0.25}


def test_what_is_cut_in_front_of_its_answer_is_told(model: OpenedModel) -> None:
    told = Told()
    document = rendered(model, (("user", "x" * 100), ("assistant", "y")), told, limit=50)
    assert len(document.ids) == 50 and max(document.wanted) == 0.25
    assert (told.cut, told.unanswered) == (1, 1)


text = st.text(st.characters(codec="utf-8", exclude_characters="<|"), max_size=20)


@settings(max_examples=60)
@given(st.lists(st.tuples(text, text), min_size=1, max_size=4), st.integers(2, 200))
def test_weights_stand_beside_tokens_for_any_conversation(
    model: OpenedModel, pairs: list[tuple[str, str]], limit: int
) -> None:
    turns = tuple(turn for asked, said in pairs for turn in (("user", asked), ("assistant", said)))
    document, whole = rendered(model, turns, limit=limit), rendered(model, turns, limit=10_000)
    assert len(document.ids) == len(document.wanted) == min(limit, len(whole.ids))
    assert document.wanted[0] == 0 and document.ids == whole.ids[:limit] and document.wanted == whole.wanted[:limit]
    said = "".join(f"{answer}<|end|>" for _, answer in pairs)
    assert "".join(counting(model, whole)) == said


def test_suites_have_as_many_tokens_each_and_only_train_and_tune_problems(model: OpenedModel) -> None:
    names = ("math", "chat", "refusals")
    found = training_set(model, suites=names, options=SMALL)
    tokens = {name: tokens_of([one for one in found.documents if one.source == name]) for name in names}
    assert max(tokens.values()) < 1.35 * min(tokens.values())
    assert abs(len(found.documents) - SMALL.documents) <= 3
    assert Counter(one.source for one in found.tune) == dict.fromkeys(names, 6)
    gate = {case.messages for name in names for case in suites.cases(name, "gate", 300)}
    for one in (*found.documents, *found.tune):
        asked = asked_in(one)
        assert asked not in gate and len(one.ids) <= SMALL.max_tokens
    assert found.summary.documents == dict(Counter(one.source for one in found.documents))
    assert found.summary.tokens == tokens_of(found.documents) and found.summary.tune == len(found.tune)


def test_nothing_stands_there_twice_and_nothing_that_trains_decides_when_to_stop(model: OpenedModel) -> None:
    traffic = [(("user", f"q{at % 40}"), ("assistant", "a")) for at in range(80)]
    found = training_set(model, turns=traffic, suites=["math"], options=SMALL)
    every = [tuple(one.ids) for one in (*found.documents, *found.tune)]
    assert len(every) == len(set(every))
    assert Counter(one.source for one in found.documents)["traffic"] == 36
    assert Counter(one.source for one in found.tune)["traffic"] == 4
    assert "40 conversations stood there twice" in found.notes


def test_the_same_seed_gives_the_same_set_and_its_digest_covers_every_weight(model: OpenedModel) -> None:
    first = training_set(model, suites=["math"], options=SMALL)
    assert training_set(model, suites=["math"], options=SMALL) == first
    for changed in ({"seed": 1}, {"prompts": 0.2}, {"max_tokens": 100}, {"documents": 119}):
        other = training_set(model, suites=["math"], options=SMALL.model_copy(update=changed))
        assert other.summary.content != first.summary.content, changed


def test_which_traffic_is_held_out_follows_from_content_and_not_from_order(model: OpenedModel) -> None:
    traffic = [(("user", f"q{at}"), ("assistant", f"a{at}")) for at in range(50)]
    one, other = (training_set(model, turns=some, options=SMALL) for some in (traffic, traffic[::-1]))
    assert {tuple(x.ids) for x in one.tune} == {tuple(x.ids) for x in other.tune}


def test_further_sources_keep_their_names(model: OpenedModel) -> None:
    rows = [(("user", f"q{at}"), ("assistant", f"a{at}")) for at in range(30)]
    found = training_set(model, others={"gsm8k": rows}, suites=["math"], options=SMALL)
    assert found.summary.documents["gsm8k"] == 27


def test_nothing_to_train_on_is_one_sentence(model: OpenedModel) -> None:
    with pytest.raises(DataError, match="neither traffic nor a suite is named"):
        training_set(model, options=SMALL)
    with pytest.raises(DataError, match="suite 'long_context': no conversation of at most 40 tokens"):
        training_set(model, suites=["long_context"], options=SMALL.model_copy(update={"max_tokens": 40}))
    with pytest.raises(DataError, match="1 conversations to train on and 0 to stop by"):
        training_set(model, turns=[TALK], options=SMALL)


def test_a_document_that_a_gate_asks_stops_everything_and_is_listed(model: OpenedModel, tmp_path: Path) -> None:
    case = suites.cases("math", "gate", 1)[0]
    said = [(one.role, one.content) for one in case.messages]
    stolen: Turns = (*said, ("assistant", case.answer or ""))
    others = [(("user", f"how is the weather on day {at}?"), ("assistant", "fine")) for at in range(30)]
    found = training_set(model, turns=[stolen, *others], options=SMALL)
    with pytest.raises(Overlap, match=r"training data overlaps with the gate: .* is 'math-.*all listed in") as told:
        check_overlap(found, [case], record=tmp_path / "pairs.json")
    assert str(tmp_path / "pairs.json") in str(told.value) and (tmp_path / "pairs.json").is_file()
    assert check_overlap(found, [case], allowed=["math"]).allowed == 1


def test_a_documents_text_that_is_in_the_gate_is_found_also_where_a_suite_drew_it(model: OpenedModel) -> None:
    found = training_set(model, suites=["math"], options=SMALL)
    case = copied(found.documents[0])
    clean = suites.cases("math", "gate", 50)
    assert check_overlap(found, clean).items == 0
    with pytest.raises(Overlap, match="math-copied"):
        check_overlap(found, [*clean, case])


def test_held_out_documents_are_held_against_the_gates_too(model: OpenedModel) -> None:
    found = training_set(model, suites=["math"], options=SMALL)
    case = copied(found.tune[0])
    with pytest.raises(Overlap):
        check_overlap(TrainingSet(found.documents, found.tune, found.summary), [case])


def test_a_teacher_of_other_tokens_or_another_template_is_refused(model: OpenedModel, tmp_path: Path) -> None:
    reference = open_model("quantgate/reference")
    with pytest.raises(ComparabilityError, match="another tokenizer"):
        check_teacher(model, reference)
    other = save_random(tmp_path / "m", hidden=32, feed_forward=32, seed=1)
    assert check_teacher(model, open_model(other)).path == other
    settings = other / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")  # other bytes, the same tokenizer
    assert check_teacher(model, open_model(other)).path == other
    settings.write_text(settings.read_text().replace("<|assistant|>", "<|user|>"))
    with pytest.raises(ComparabilityError, match="another chat template"):
        check_teacher(model, open_model(other))
