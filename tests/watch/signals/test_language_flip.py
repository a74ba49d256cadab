"""language_flip: clearly one language in, clearly another out, unasked; what is short, near or asked for is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.signals.made import read

from quantgate.watch import Message, Talk
from quantgate.watch.signals.language_flip import clear, mark

TEXTS = {
    "en": "The train that you asked for leaves from the second platform, and it will be there on time for you.",
    "de": "Der Zug, nach dem Sie gefragt haben, fährt auf dem zweiten Gleis ab, und er ist für Sie nicht zu spät.",
    "fr": "Le train que vous avez demandé part sur la deuxième voie, et il est à l'heure pour vous et les autres.",
    "es": "El tren por el que preguntó sale de la segunda vía, y no llega tarde a la ciudad como los otros.",
    "it": "Il treno che hai chiesto parte dal secondo binario e non è in ritardo come gli altri della mattina.",
    "nl": "De trein waar je naar vroeg vertrekt van het tweede spoor, en hij is op tijd voor de reis met ons.",
    "pl": "Pociąg, o który pytasz, odjeżdża z drugiego peronu i nie jest już spóźniony, ale może być po drodze.",
    "tr": "Sorduğunuz tren ikinci perondan kalkıyor ve bu sabah için çok geç değil, ama bir saat daha var mı?",
    "ru": "Поезд, о котором вы спросили, отправляется со второго пути и прибывает вовремя.",
    "ar": "القطار الذي سألت عنه يغادر من الرصيف الثاني وهو في موعده هذا الصباح.",
    "hi": "जिस ट्रेन के बारे में आपने पूछा वह दूसरे प्लेटफ़ॉर्म से समय पर जाती है।",
    "zh": "您询问的列车从第二站台发车，今天早上准时到达，请您提前十分钟到。",
    "ja": "お尋ねの列車は二番線から発車します。今朝は定刻どおりですので、ご安心ください。",
    "ko": "문의하신 열차는 두 번째 승강장에서 출발하며 오늘 아침에는 정시에 운행합니다.",
}


def asked(prompt: str, answer: str, *before: Message, structured: bool = False) -> float | None:
    return mark(
        Talk(
            [*before, {"role": "user", "content": prompt}],
            [{"role": "assistant", "content": answer}],
            "stop",
            structured,
        )
    )


@pytest.mark.parametrize("one", TEXTS)
@pytest.mark.parametrize("other", TEXTS)
def test_every_pair_of_languages(one: str, other: str) -> None:
    assert asked(TEXTS[one], TEXTS[other]) == float(one != other)


def test_near_relatives_are_one() -> None:
    danish = "Toget som du har spurgt om kører fra det andet spor, og det er ikke for sent med at komme."
    swedish = "Tåget som du har frågat om går från det andra spåret, och det är inte för sent att komma med."
    assert asked(danish, swedish) in (0.0, None)
    assert (
        asked(TEXTS["es"], "O trem que você pediu não é para as dez, e por isso não vai com os outros da manhã.") == 0.0
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "Translate this, which I got from my landlord, and tell me what it is that he wants from me.",
        "What is the German word for the thing that you put on the table, and how do I say it?",
        "Answer in French: what is it that the people of this city do on the first day of the year?",
        "In which language is the letter that I have from my aunt, and what does she want from me in it?",
    ],
)
def test_a_language_that_was_asked_for_is_no_flip(prompt: str) -> None:
    assert asked(prompt, TEXTS["de"]) is None


def test_a_language_of_the_system_prompt_or_of_an_earlier_turn_is_no_flip() -> None:
    assert asked(TEXTS["en"], TEXTS["de"], {"role": "system", "content": "Always answer in German."}) is None
    assert asked(TEXTS["en"], TEXTS["fr"], {"role": "system", "content": "Always answer in German."}) == 1.0
    assert asked(TEXTS["en"], TEXTS["de"], {"role": "system", "content": "Answer in the user's language."}) == 1.0
    assert asked(TEXTS["en"], TEXTS["de"], {"role": "user", "content": TEXTS["de"]}) is None


def test_a_flip_in_the_middle_of_an_answer_is_one() -> None:
    assert asked(TEXTS["en"], TEXTS["en"] * 8 + " " + TEXTS["zh"] * 12) == 1.0
    assert asked(TEXTS["en"], TEXTS["en"] * 20) == 0.0


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("ok", TEXTS["de"]),
        (TEXTS["de"], "42"),
        (TEXTS["de"], ""),
        (TEXTS["de"], '{"train": "the one that you have asked for, and it is on the way to you"}'),
        (TEXTS["de"], "```python\n# the train that you asked for is on the way, and it is for you\nprint(1)\n```"),
        (TEXTS["de"] + " " * 10 + TEXTS["en"] * 10, TEXTS["en"]),
        ("Fix `the code that is on the way to you, and not for the others`", TEXTS["de"]),
    ],
)
def test_what_is_short_or_code_or_mixed_tells_nothing(prompt: str, answer: str) -> None:
    assert asked(prompt, answer) is None


def test_structured_answers_and_results_of_tools_are_left_alone() -> None:
    assert asked(TEXTS["de"], TEXTS["en"], structured=True) is None
    prompt: list[Message] = [{"role": "user", "content": TEXTS["de"]}, {"role": "tool", "content": "{}"}]
    assert mark(Talk(prompt, [{"content": TEXTS["en"]}])) is None
    assert mark(Talk([], [{"content": TEXTS["en"]}])) is None


@given(st.text(max_size=500))
def test_a_text_is_in_its_own_language(text: str) -> None:
    assert asked(text, text) in (None, 0.0)
    assert clear(text) is None or isinstance(clear(text), str)


def test_it_is_read_from_its_mark() -> None:
    assert read("language_flip", marks={"language_flip": 1.0}) == 1.0
    assert read("language_flip") is None
