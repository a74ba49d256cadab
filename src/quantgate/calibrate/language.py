"""Which language a text is written in: by its script, and in Latin script by its function words.

Small on purpose: it names slices, it decides nothing. A text of fewer words than show a language is ``unknown``.
"""

from __future__ import annotations

import re

READ = 3000  # characters that are looked at
FEWEST = 2  # function words that show a language ...
SHARE = 0.08  # ... and of all words at least this share
SCRIPTS = {  # script -> its letters and the language that it stands for, unless its own words say another
    "ja": r"[\u3040-\u30ff]",
    "ko": r"[\uac00-\ud7af\u1100-\u11ff]",
    "zh": r"[\u4e00-\u9fff\u3400-\u4dbf]",
    "ru": r"[\u0400-\u04ff]",
    "el": r"[\u0370-\u03ff]",
    "ar": r"[\u0600-\u06ff]",
    "he": r"[\u0590-\u05ff]",
    "hi": r"[\u0900-\u097f]",
    "bn": r"[\u0980-\u09ff]",
    "ta": r"[\u0b80-\u0bff]",
    "te": r"[\u0c00-\u0c7f]",
    "th": r"[\u0e00-\u0e7f]",
    "ka": r"[\u10a0-\u10ff]",
    "hy": r"[\u0530-\u058f]",
}
WORDS = {
    "en": "the of and to in is that it for was with as are this have from or be by not what how you your my i can "
    "does do an at on which when there a he she they his her we me all many if into",
    "de": "der die das und ist nicht ein eine zu den von mit sich auf für dem des wie ich sie er es im was wird "
    "sind hat kann bitte",
    "fr": "le la les de et des est un une que dans pour qui ne pas sur avec il elle du au ce je vous nous combien "
    "comment sont ont",
    "es": "el la los las de que y en un una es por con para del se no su al como más lo cuánto cuántos "
    "tiene qué mi está",
    "it": "il la di che e è un una per non sono con del della le gli si come mi ha quanti quanto nel questo anche lo",
    "pt": "o os as de que e um uma é não para com em por do da no na se mais como foi você quantos ao tem eu",
    "nl": "de het een en van is niet dat op te zijn met voor ik je hij er aan hoe wat ook maar hebben kan",
    "sv": "och att det som en är av för på den med inte jag har till om ett hur vad kan du",
    "da": "og at det er en af på til den med ikke jeg har som om et hvordan hvad kan du der",
    "no": "og å det er en av på til den med ikke jeg har som om et hvordan hva kan du",
    "fi": "ja on ei se että hän oli mutta kun niin kuin myös mitä minä olen voi ovat tämä",
    "pl": "i w na z się nie do jest to że jak o ale co po jej ma za czy ile mam może",
    "cs": "a v se na je že s z do to jak ale co po si kolik jsem má by ve pro který",
    "hu": "a az és hogy nem is egy van ez mint csak meg de volt mit hogyan mennyi",
    "ro": "și de la în cu nu este o un pe care din să mai ce cât pentru sunt are",
    "tr": "ve bir bu da de için ne çok ile olarak nas\u0131l kaç var m\u0131 mi daha gibi ama o",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam adalah pada saya berapa bagaimana apa akan ada",
    "vi": "và là của có không một cho những được trong với các bao nhiêu tôi này",
}
CYRILLIC = {
    "uk": r"[\u0456\u0457\u0454\u0491]",
    "bg": r"\b\u0449\u0435\b|\b\u0435\b|\b\u0441\u0430\b|\b\u043a\u0430\u043a\u0432\u043e\b",
}
WORD = re.compile(r"[^\W\d_]+")
LETTERS = {name: re.compile(f"{letters}+") for name, letters in SCRIPTS.items()}
ABROAD = re.compile(r"[\u0370-\u1cff\u3040-\ud7af]")
ORDER = {name: at for at, name in enumerate(WORDS)}
HOLDERS: dict[str, tuple[str, ...]] = {}
for _name, _words in WORDS.items():
    for _word in set(_words.split()):
        HOLDERS[_word] = (*HOLDERS.get(_word, ()), _name)


def language_of(text: str) -> str:
    """The ISO 639-1 code of the language that most of the text is in, or ``unknown``.

    >>> [language_of(one) for one in ("How many eggs does she sell?", "Wie viele Eier verkauft sie und was ist das?")]
    ['en', 'de']
    >>> language_of("\u5979\u6bcf\u5929\u5356\u591a\u5c11\u4e2a\u9e21\u86cb\uff1f"), language_of("ok 42")
    ('zh', 'unknown')
    """
    text = text[:READ]
    if found := by_script(text):
        return found
    words, hits = by_words(text)
    if not hits:
        return "unknown"
    best, count = min(hits.items(), key=lambda one: (-one[1], ORDER[one[0]]))
    return best if count >= FEWEST and count >= SHARE * words else "unknown"


def by_words(text: str) -> tuple[int, dict[str, int]]:
    """How many words it has, and how many of them are function words of each language of Latin script.

    >>> by_words("Wie viele Eier hat er? Many.")[1]["de"]
    3
    """
    words = WORD.findall(text.casefold())
    hits: dict[str, int] = {}
    for word in words:
        for name in HOLDERS.get(word, ()):
            hits[name] = hits.get(name, 0) + 1
    return len(words), hits


def by_script(text: str) -> str:
    """The language of the script that a third of the letters are in; Japanese, where kana stand among others."""
    if text.isascii() or not ABROAD.search(text):
        return ""
    letters = sum(map(str.isalpha, text))
    signs = "".join(set(text))
    counts = {name: sum(map(len, pattern.findall(text))) for name, pattern in LETTERS.items() if pattern.search(signs)}
    if counts.get("ja", 0) > 0.1 * counts.get("zh", 0):
        counts["ja"] = counts.get("ja", 0) + counts.pop("zh", 0)
    best = max(counts, key=lambda name: counts[name], default="")
    if not best or counts[best] * 3 < letters:
        return ""
    if best == "ru":
        return next((name for name, signs in CYRILLIC.items() if re.search(signs, text.casefold())), "ru")
    return best
