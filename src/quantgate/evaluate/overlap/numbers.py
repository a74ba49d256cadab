"""Numbers in a text, in a form that survives translation: digits of all scripts, separators, number words.

English, German, Spanish, French, Italian, Portuguese, Dutch and Chinese number words are read up to twenty and in tens,
with halves, doubles and dozens. "one" and its like are left out: in most languages they are also the article. So are
words that mean something else in another of these languages ("once", "due", "sei").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

DIGITS = re.compile(r"\d+(?:[.,'\u2019\u00a0\u202f ]\d{3}(?!\d))*(?:[.,\u066b]\d+)?")
LETTERS = re.compile(r"[^\W\d_]+")
HAN = re.compile("[\u4e8c\u4e24\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341\u767e]+|\u4e00?\u534a|\u53cc")
HAN_DIGITS = {char: at for at, char in enumerate("\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d")} | {
    "\u4e24": 2
}
HAN_TENS = {"\u5341": 10, "\u767e": 100}

FROM_TWO = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty",
    "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn "
    "neunzehn zwanzig",
    "dos tres cuatro cinco seis siete ocho nueve diez - doce trece catorce quince dieciséis diecisiete dieciocho "
    "diecinueve veinte",
    "deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize - - - vingt",
    "- tre quattro cinque - sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette "
    "diciotto diciannove venti",
    "dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis dezessete dezoito "
    "dezenove vinte",
    "twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien achttien "
    "negentien twintig",
)
TENS_FROM_THIRTY = (
    "thirty forty fifty sixty seventy eighty ninety hundred",
    "dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert",
    "treinta cuarenta cincuenta sesenta setenta ochenta noventa cien",
    "trente quarante cinquante soixante - - - cent",
    "trenta quaranta cinquanta sessanta settanta ottanta novanta cento",
    "trinta quarenta cinquenta sessenta - oitenta - cem",
    "dertig veertig vijftig zestig zeventig tachtig negentig honderd",
)
OTHERS = {
    "1/2": "half hälfte halb halbe halben halbes mitad medio media moitié demi demie metà mezzo metade meio helft",
    "2": "twice double doubled doubles doppelt doppelte zweimal verdoppelt doble doblar doubler doublé doppio dobro "
    "dubbel",
    "3": "triple tripled thrice dreimal dreifache triplo tripler",
    "12": "dozen dozens dutzend docena docenas douzaine douzaines dozzina dúzia dozijn",
}


def _table() -> dict[str, str]:
    found = {word.casefold(): value for value, text in OTHERS.items() for word in text.split()}
    for start, step, lists in ((2, 1, FROM_TWO), (30, 10, TENS_FROM_THIRTY)):
        for text in lists:
            found |= {word.casefold(): str(start + step * at) for at, word in enumerate(text.split()) if word != "-"}
    return found


WORDS = _table()


def numbers(text: str, words: Collection[str] | None = None) -> frozenset[str]:
    """The different numbers of a text, 0 and 1 left out: they are everywhere. ``words`` are its words, if known.

    >>> sorted(numbers("Drei Enten, 1.200 Eier zu je 2,50 \u20ac")), sorted(numbers("three ducks, 1,200 eggs, $2.5"))
    (['1200', '2.5', '3'], ['1200', '2.5', '3'])
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found = {plain(one) for one in DIGITS.findall(text)}
    found |= {WORDS[word] for word in WORDS.keys() & set(LETTERS.findall(text.casefold()) if words is None else words)}
    if not text.isascii():
        found |= {_han(one) for one in HAN.findall(text)}
    return frozenset(found - {"0", "1"})


def plain(text: str) -> str:
    """One written number in one form, whatever its script and separators.

    What stands behind the last separator is a fraction unless it has three digits, as in 1,000 and 1.000; a fraction of
    three digits is so read as thousands, but alike in every language.

    >>> [plain(one) for one in ("1,000", "1.000", "1000", "2,50", "2.5", "05", "\u0663\u0664")]
    ['1000', '1000', '1000', '2.5', '2.5', '5', '34']
    """
    if text.isascii() and text.isdigit():
        return text.lstrip("0") or "0"
    parts = re.split(r"\D+", "".join(str(unicodedata.digit(char)) if char.isdigit() else char for char in text))
    fraction = parts.pop().rstrip("0") if len(parts) > 1 and len(parts[-1]) != 3 else ""
    whole = "".join(parts).lstrip("0") or "0"
    return f"{whole}.{fraction}" if fraction else whole


def _han(text: str) -> str:
    if text.endswith("\u534a"):
        return "1/2"
    if text == "\u53cc":
        return "2"
    total, last = 0, 0
    for char in text:
        if char in HAN_TENS:
            total, last = total + (last or 1) * HAN_TENS[char], 0
        else:
            last = HAN_DIGITS[char]
    return str(total + last)
