"""The 25 instructions of IFEval, each a check of an answer (Zhou et al. 2023, arXiv:2311.07911, table 1).

A check takes the answer and its published arguments and says what is wrong, or nothing. The rules are those of the
published verifiers, with two departures. Sentences are told by their end marks and a list of abbreviations, where those
use a trained splitter; and a language by ``_languages``, where those use a statistical one that gives every text the
benefit of the doubt: an answer too short to be in any language is not in the one that was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from quantgate.evaluate.scorers._languages import language_of

Check = Callable[[str, dict[str, Any]], str]  # answer, arguments -> what is wrong, "" if nothing is
ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|e\.g|i\.e|no|inc|ltd|co|fig|approx|u\.s|a\.m|p\.m|ph\.d)|\b[a-z])\.$",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f\u0964]+[\"'\u201d\u2019)\]*]*(?=\s|\Z)")
CAPITAL_WORD = re.compile(r"[^\W\d_]+(?:[-.'\u2019][^\W_]+)*")
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
FENCE = re.compile(r"\A```(?:json)?|```\Z", re.IGNORECASE)


def _relation(have: int, wanted: int, relation: str, noun: str) -> str:
    """``at least`` n, or ``less than`` n: the two relations of the publication."""
    holds = have >= wanted if relation == "at least" else have < wanted
    return "" if holds else f"{have} {noun} where {relation} {wanted} were asked"


def no_comma(text: str, given: dict[str, Any]) -> str:
    return "a comma was not to be used" if "," in text else ""


def highlights(text: str, given: dict[str, Any]) -> str:
    """``*one*`` and ``**two**`` are highlighted sections, if something stands in them."""
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return _relation(
        sum(bool(one.strip()) for one in single + double), given["num_highlights"], "at least", "highlights"
    )


def number_words(text: str, given: dict[str, Any]) -> str:
    return _relation(len(re.findall(r"\w+", text)), given["num_words"], given["relation"], "words")


def count_sentences(text: str) -> int:
    """Sentences by their end marks; a mark after an abbreviation ends none, and a last one needs no mark.

    >>> count_sentences("Dr. Smith came at 5 p.m. on Monday. Did he stay? Yes")
    3
    """
    start, found = 0, 0
    for end in SENTENCE_END.finditer(text):
        piece = text[start : end.end()]
        if (
            end.group().startswith(".")
            and end.end() < len(text.rstrip())
            and ABBREVIATION.search(piece.rstrip("\"')]*"))
        ):
            continue
        found += bool(re.search(r"\w", piece))
        start = end.end()
    return found + bool(re.search(r"\w", text[start:]))


def number_sentences(text: str, given: dict[str, Any]) -> str:
    return _relation(count_sentences(text), given["num_sentences"], given["relation"], "sentences")


def number_paragraphs(text: str, given: dict[str, Any]) -> str:
    """Paragraphs apart by ``***``; only the first and the last may be empty, and do not count."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    if not all(parts[1:-1]):
        return "a paragraph between two *** is empty"
    have, wanted = sum(map(bool, parts)), given["num_paragraphs"]
    return "" if have == wanted else f"{have} paragraphs apart by *** where {wanted} were asked"


def first_word(text: str, given: dict[str, Any]) -> str:
    """So many paragraphs apart by blank lines, one of which begins with a word."""
    parts = text.split("\n\n")
    have, wanted, nth = sum(bool(part.strip()) for part in parts), given["num_paragraphs"], given["nth_paragraph"]
    if have != wanted:
        return f"{have} paragraphs where {wanted} were asked"
    words = parts[nth - 1].split() if nth <= len(parts) else []
    begin = re.match(r"[\"']*([^.,?!'\"]*)", words[0]) if words else None
    word = begin[1] if begin else ""
    return "" if word.casefold() == given["first_word"].casefold() else f"paragraph {nth} begins with '{word}'"


def existence(text: str, given: dict[str, Any]) -> str:
    missing = [word for word in given["keywords"] if word.casefold() not in text.casefold()]
    return f"'{missing[0]}' is missing" if missing else ""


def forbidden(text: str, given: dict[str, Any]) -> str:
    used = [word for word in given["forbidden_words"] if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)]
    return f"'{used[0]}' was not to be used" if used else ""


def frequency(text: str, given: dict[str, Any]) -> str:
    have = text.casefold().count(given["keyword"].casefold())
    return _relation(have, given["frequency"], given["relation"], f"times '{given['keyword']}'")


def letter_frequency(text: str, given: dict[str, Any]) -> str:
    have = text.lower().count(given["letter"].lower())
    return _relation(have, given["let_frequency"], given["let_relation"], f"times '{given['letter']}'")


def response_language(text: str, given: dict[str, Any]) -> str:
    found = language_of(text)
    return "" if found == given["language"] else f"in {found or 'no language'} instead of {given['language']}"


def capital(text: str, given: dict[str, Any]) -> str:
    return "not in capital letters" if not text.isupper() else response_language(text, {"language": "en"})


def lowercase(text: str, given: dict[str, Any]) -> str:
    return "not in small letters" if not text.islower() else response_language(text, {"language": "en"})


def capital_words(text: str, given: dict[str, Any]) -> str:
    have = sum(word.isupper() for word in CAPITAL_WORD.findall(text))
    return _relation(have, given["capital_frequency"], given["capital_relation"], "words in capitals")


def postscript(text: str, given: dict[str, Any]) -> str:
    """``P.S.`` may be written ``p. s.``; any other marker as it is."""
    marker = given["postscript_marker"]
    letters = [one for one in marker.split(".") if one]
    pattern = r"\.\s?".join(map(re.escape, letters)) if "." in marker else re.escape(marker)
    return "" if re.search(pattern, text, re.IGNORECASE) else f"'{marker}' is missing"


def placeholders(text: str, given: dict[str, Any]) -> str:
    return _relation(len(re.findall(r"\[.*?\]", text)), given["num_placeholders"], "at least", "[placeholders]")


def constrained(text: str, given: dict[str, Any]) -> str:
    return "" if any(choice in text for choice in CHOICES) else "none of the allowed answers is given"


def json_format(text: str, given: dict[str, Any]) -> str:
    try:
        json.loads(FENCE.sub("", text.strip()).strip())
    except (ValueError, RecursionError):
        return "not valid JSON"
    return ""


def sections(text: str, given: dict[str, Any]) -> str:
    have = len(re.findall(rf"{re.escape(given['section_spliter'])}\s?\d+", text))
    return _relation(have, given["num_sections"], "at least", f"sections '{given['section_spliter']} N'")


def bullets(text: str, given: dict[str, Any]) -> str:
    have, wanted = len(re.findall(r"^\s*(?:\*[^*].*|-.*)$", text, re.MULTILINE)), given["num_bullets"]
    return "" if have == wanted else f"{have} bullets where {wanted} were asked"


def title(text: str, given: dict[str, Any]) -> str:
    found = any(one.strip("<> \t") for one in re.findall(r"<<[^\n]+>>", text))
    return "" if found else "no title in << >>"


def repeat_prompt(text: str, given: dict[str, Any]) -> str:
    begins = text.strip().casefold().startswith(given["prompt_to_repeat"].strip().casefold())
    return "" if begins else "does not begin with the request, word for word"


def two_responses(text: str, given: dict[str, Any]) -> str:
    parts = [part.strip() for part in text.split("******")]
    if not all(parts[1:-1]):
        return "a response between two ****** is empty"
    answers = [part for part in parts if part]
    if len(answers) != 2:
        return f"{len(answers)} responses apart by ****** where 2 were asked"
    return "the two responses are the same" if answers[0] == answers[1] else ""


def end_phrase(text: str, given: dict[str, Any]) -> str:
    ends = text.strip().strip('"').casefold().endswith(given["end_phrase"].strip().casefold())
    return "" if ends else f"does not end with '{given['end_phrase']}'"


def quotation(text: str, given: dict[str, Any]) -> str:
    text = text.strip()
    return "" if len(text) > 1 and text[0] == text[-1] == '"' else "not in double quotes"


CHECKS: dict[str, tuple[Check, dict[str, type]]] = {  # published id -> check, and the arguments that it needs
    "change_case:capital_word_frequency": (capital_words, {"capital_frequency": int, "capital_relation": str}),
    "change_case:english_capital": (capital, {}),
    "change_case:english_lowercase": (lowercase, {}),
    "combination:repeat_prompt": (repeat_prompt, {"prompt_to_repeat": str}),
    "combination:two_responses": (two_responses, {}),
    "detectable_content:number_placeholders": (placeholders, {"num_placeholders": int}),
    "detectable_content:postscript": (postscript, {"postscript_marker": str}),
    "detectable_format:constrained_response": (constrained, {}),
    "detectable_format:json_format": (json_format, {}),
    "detectable_format:multiple_sections": (sections, {"num_sections": int, "section_spliter": str}),
    "detectable_format:number_bullet_lists": (bullets, {"num_bullets": int}),
    "detectable_format:number_highlighted_sections": (highlights, {"num_highlights": int}),
    "detectable_format:title": (title, {}),
    "keywords:existence": (existence, {"keywords": list}),
    "keywords:forbidden_words": (forbidden, {"forbidden_words": list}),
    "keywords:frequency": (frequency, {"keyword": str, "frequency": int, "relation": str}),
    "keywords:letter_frequency": (letter_frequency, {"letter": str, "let_frequency": int, "let_relation": str}),
    "language:response_language": (response_language, {"language": str}),
    "length_constraints:nth_paragraph_first_word": (
        first_word,
        {"first_word": str, "nth_paragraph": int, "num_paragraphs": int},
    ),
    "length_constraints:number_paragraphs": (number_paragraphs, {"num_paragraphs": int}),
    "length_constraints:number_sentences": (number_sentences, {"num_sentences": int, "relation": str}),
    "length_constraints:number_words": (number_words, {"num_words": int, "relation": str}),
    "punctuation:no_comma": (no_comma, {}),
    "startend:end_checker": (end_phrase, {"end_phrase": str}),
    "startend:quotation": (quotation, {}),
}
