"""Writes answers that follow IFEval's instructions: a baseline for tests, right on most prompts and known to be so.

It composes: a body of so many words or sentences, then what the instructions ask to be in it, then its frame. Where two
instructions get in each other's way, the answer may be wrong; the scorer tells.
"""

from __future__ import annotations

import json
from typing import Any

from quantgate.evaluate.suites import Case

BODY = {
    "en": ["They go to the old town with all of their good friends", "You can see the sun on the water from here"],
    "de": ["Das ist der Weg und er ist nicht weit von hier"],
    "hi": ["यह एक अच्छा दिन है और हम साथ में काम कर रहे हैं"],
    "mr": ["हे आहे आणि ते मराठी मध्ये आहे"],
    "ne": ["यो राम्रो छ र हामी काम गर्न लागि तयार छन्"],
    "kn": ["ಇದು ಒಳ್ಳೆಯ ದಿನ"],
    "vi": ["Đây là một ngày đẹp và chúng tôi rất vui"],
    "ko": ["오늘은 좋은 날입니다"],
    "sw": ["Hii ni siku nzuri na watu wote wako hapa kwa sababu ya kazi"],
    "pa": ["ਇਹ ਇੱਕ ਚੰਗਾ ਦਿਨ ਹੈ"],
    "fa": ["این یک روز خوب است و ما با هم کار می کنیم"],
    "ru": ["Это очень хороший день и мы все были там"],
    "bg": ["Това е добър ден и ние сме тук със всички"],
    "pt": ["Este é um dia muito bom e nós não vamos para casa"],
    "gu": ["આ સારો દિવસ છે"],
    "te": ["ఇది మంచి రోజు"],
    "it": ["Questo è un giorno molto bello e non sono a casa"],
    "ar": ["هذا يوم جيد في المدينة مع كل الناس"],
    "ta": ["இது ஒரு நல்ல நாள்"],
    "fi": ["Tämä on hyvä päivä ja me olemme myös täällä"],
    "ur": ["یہ ایک اچھا دن ہے اور ہم سب کام کر رہے ہیں"],
    "th": ["วันนี้เป็นวันที่ดี"],
    "bn": ["আজ একটি ভালো দিন"],
}


def write(case: Case) -> str:
    instructions: Any = case.reference["instructions"]  # type: ignore
    asked = {one["id"].partition(":")[2]: one["kwargs"] for one in instructions}
    first = _inside(asked)
    if "two_responses" in asked:
        return f"{_framed(first, asked)}\n******\n{_framed(first + ' Yes.', asked)}"
    return _framed(first, asked)


def _inside(asked: dict[str, dict[str, Any]]) -> str:
    """The body: sentences enough, and every thing that has to stand somewhere in them."""
    sentence = BODY[asked.get("response_language", {}).get("language", "en")][0]
    parts = [f"{sentence}." for _ in range(_sentences(asked, len(sentence.split())))]
    parts += [f"{word}." for word in asked.get("existence", {}).get("keywords", [])]
    often = asked.get("frequency", {})
    if often and often["relation"] == "at least":
        parts += [f"{often['keyword']}."] * often["frequency"]
    letters = asked.get("letter_frequency", {})
    if letters and letters["let_relation"] == "at least":
        parts.append(letters["letter"] * letters["let_frequency"])
    capitals = asked.get("capital_word_frequency", {})
    if capitals and capitals["capital_relation"] == "at least":
        parts += ["NASA"] * capitals["capital_frequency"]
    parts += [f"[slot {at}]" for at in range(asked.get("number_placeholders", {}).get("num_placeholders", 0))]
    parts += [f"see *part {at}*" for at in range(asked.get("number_highlighted_sections", {}).get("num_highlights", 0))]
    return " ".join(parts)


def _sentences(asked: dict[str, dict[str, Any]], width: int) -> int:
    count = 1
    words, sentences = asked.get("number_words", {}), asked.get("number_sentences", {})
    if words and words["relation"] == "at least":
        count = max(count, words["num_words"] // width + 1)
    if sentences and sentences["relation"] == "at least":
        count = max(count, sentences["num_sentences"])
    return count


def _framed(text: str, asked: dict[str, dict[str, Any]]) -> str:
    if "json_format" in asked:
        return json.dumps({"text": text})
    if "number_paragraphs" in asked:
        text = "\n***\n".join([text] * asked["number_paragraphs"]["num_paragraphs"])
    if "nth_paragraph_first_word" in asked:
        given = asked["nth_paragraph_first_word"]
        paragraphs = [text] * given["num_paragraphs"]
        paragraphs[given["nth_paragraph"] - 1] = f"{given['first_word']} {text}"
        text = "\n\n".join(paragraphs)
    if "multiple_sections" in asked:
        given = asked["multiple_sections"]
        text = "\n".join(f"{given['section_spliter']} {at + 1}\n{text}" for at in range(given["num_sections"]))
    text += "".join(f"\n- point {at}" for at in range(asked.get("number_bullet_lists", {}).get("num_bullets", 0)))
    if "constrained_response" in asked:
        text += " My answer is yes."
    if "title" in asked:
        text = f"<<the title>>\n{text}"
    if "postscript" in asked:
        text += f"\n{asked['postscript']['postscript_marker']} That is all."
    if "repeat_prompt" in asked:
        text = f"{asked['repeat_prompt']['prompt_to_repeat']}\n{text}"
    if "end_checker" in asked:
        text += f" {asked['end_checker']['end_phrase']}"
    if "quotation" in asked:
        text = f'"{text}"'
    if "no_comma" in asked:
        text = text.replace(",", "")
    return text.upper() if "english_capital" in asked else text.lower() if "english_lowercase" in asked else text
