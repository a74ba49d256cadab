"""Number words from 0 to 999 in English, German, Spanish, French and Italian."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


EN = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
EN_TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
DE = words(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
DE_TENS = words("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
ES = words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve"
)
ES_TENS = words("treinta cuarenta cincuenta sesenta setenta ochenta noventa")
ES_HUNDREDS = words(
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
FR = words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
    "dix-neuf"
)
FR_TENS = words("vingt trente quarante cinquante soixante")
IT = words(
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove"
)
IT_TENS = words("venti trenta quaranta cinquanta sessanta settanta ottanta novanta")


def english(n: int) -> str:
    if n >= 100:
        rest = f" and {english(n % 100)}" if n % 100 else ""
        return f"{EN[n // 100]} hundred{rest}"
    if n < 20:
        return EN[n]
    return EN_TENS[n // 10 - 2] + (f"-{EN[n % 10]}" if n % 10 else "")


def german(n: int) -> str:
    if n >= 100:
        front = "ein" if n // 100 == 1 else DE[n // 100]
        return f"{front}hundert" + (german(n % 100) if n % 100 else "")
    if n < 20:
        return DE[n]
    unit = "ein" if n % 10 == 1 else DE[n % 10]
    return (f"{unit}und" if n % 10 else "") + DE_TENS[n // 10 - 2]


def spanish(n: int) -> str:
    if n == 100:
        return "cien"
    if n > 100:
        return ES_HUNDREDS[n // 100 - 1] + (f" {spanish(n % 100)}" if n % 100 else "")
    if n < 30:
        return ES[n]
    return ES_TENS[n // 10 - 3] + (f" y {ES[n % 10]}" if n % 10 else "")


def french(n: int) -> str:
    if n >= 100:
        front = "cent" if n // 100 == 1 else f"{FR[n // 100]} cent"
        if n % 100 == 0:
            return front if n == 100 else f"{front}s"
        return f"{front} {french(n % 100)}"
    if n < 20:
        return FR[n]
    if n < 70:
        tens, unit = FR_TENS[n // 10 - 2], n % 10
        return tens + ("" if unit == 0 else " et un" if unit == 1 else f"-{FR[unit]}")
    if n < 80:  # sixty and ten to nineteen
        return "soixante et onze" if n == 71 else f"soixante-{FR[n - 60]}"
    return "quatre-vingts" if n == 80 else f"quatre-vingt-{FR[n - 80]}"


def italian(n: int) -> str:
    if n >= 100:
        front = ("" if n // 100 == 1 else IT[n // 100]) + "cento"
        rest = italian(n % 100) if n % 100 else ""
        rest = "tré" if rest == "tre" else rest
        return (front[:-1] if rest.startswith("ott") else front) + rest  # centotto, centottanta
    if n < 20:
        return IT[n]
    tens, unit = IT_TENS[n // 10 - 2], n % 10
    if unit in (1, 8):  # ventuno, ventotto
        tens = tens[:-1]
    return tens + ("" if unit == 0 else "tré" if unit == 3 else IT[unit])
