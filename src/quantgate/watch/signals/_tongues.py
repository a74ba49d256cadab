"""Names of languages in the languages that they are asked for in, and which are too near to tell apart."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from quantgate.calibrate.language import HOLDERS, ORDER, WORD, by_words

KIN = {
    "da": "da", "no": "da", "sv": "da", "es": "es", "pt": "es", "pl": "pl", "cs": "pl",
    "ru": "ru", "uk": "ru", "bg": "ru",
}  # fmt: skip
_NAMES = {
    "en": r"\b(?:english|englisch\w*|anglaise?|inglés|ingles|inglese|inglês|engels|angielsk\w+|ingilizce|"
    r"английск\w+)\b|"
    r"英语|英文|英語|영어|الإنجليزية|الانجليزية|अंग्रेज",
    "de": r"\b(?:german|deutsch\w*|allemande?|alemán|tedesco|alemão|duits|niemieck\w+|almanca|немецк\w+)\b|德语|德文|"
    r"ドイツ語|독일어|الألمانية|जर्मन",
    "fr": r"\b(?:french|französisch\w*|française?|francés|francese|francês|frans|francusk\w+|fransızca|французск\w+)\b|"
    r"法语|法文|フランス語|프랑스어|الفرنسية|फ़्रेंच|फ्रेंच",
    "es": r"\b(?:spanish|spanisch\w*|espagnole?|español|spagnolo|espanhol|spaans|hiszpańsk\w+|ispanyolca|испанск\w+|"
    r"portuguese|portugiesisch\w*|portugaise?|portugués|portoghese|português|portugees|portekizce|португальск\w+)\b|"
    r"西班牙语|スペイン語|스페인어|الإسبانية|स्पेनिश|葡萄牙语|ポルトガル語|البرتغالية",
    "it": r"\b(?:italian|italienisch\w*|italienne?|italiano|italiaans|włosk\w+|italyanca|итальянск\w+)\b|意大利语|"
    r"イタリア語|이탈리아어|الإيطالية|इतालवी",
    "nl": r"\b(?:dutch|niederländisch\w*|holländisch\w*|néerlandaise?|holandés|neerlandés|olandese|"
    r"holandês|nederlands)\b",
    "pl": r"\b(?:polish|polnisch\w*|polonaise?|polaco|polacco|polonês|pools|polsk\w+|lehçe|"
    r"польск\w+|czech|tschechisch\w*)\b",
    "tr": r"\b(?:turkish|türkisch\w*|turque|turco|turks|tureck\w+|türkçe|турецк\w+)\b|土耳其语",
    "ru": r"\b(?:russian|russisch\w*|russe|ruso|russo|rosyjsk\w+|rusça|русск\w+|ukrain\w+|украинск\w+)\b|俄语|ロシア語|"
    r"러시아어|الروسية|रूसी",
    "ar": r"\b(?:arabic|arabisch\w*|arabe|árabe|arabo|arabsk\w+|arapça|арабск\w+)\b|阿拉伯语|العربية|अरबी",
    "hi": r"\b(?:hindi)\b|हिंदी|हिन्दी|印地语|ヒンディー語",
    "zh": r"\b(?:chinese|mandarin|chinesisch\w*|chinoise?|chino|cinese|chinês|chinees|chińsk\w+|çince|китайск\w+)\b|"
    r"中文|汉语|漢語|中国語|중국어|الصينية|चीनी",
    "ja": r"\b(?:japanese|japanisch\w*|japonaise?|japonés|giapponese|japonês|japans|japońsk\w+|japonca|японск\w+)\b|"
    r"日语|日文|日本語|일본어|اليابانية|जापानी",
    "ko": r"\b(?:korean|koreanisch\w*|coréenne?|coreano|koreaans|koreańsk\w+|korece|корейск\w+)\b|"
    r"韩语|韓国語|한국어|الكورية",
    "da": r"\b(?:danish|norwegian|swedish|dänisch\w*|norwegisch\w*|schwedisch\w*|dansk|norsk|svenska?)\b",
    "vi": r"\b(?:vietnamese|tiếng việt)\b|越南语",
    "id": r"\b(?:indonesian?|bahasa)\b",
    "he": r"\b(?:hebrew|hebräisch\w*|hébreu|hebreo)\b|עברית",
    "el": r"\b(?:greek|griechisch\w*|grec|griego|greco)\b|ελληνικά",
    "latin": r"\b(?:latin|latein\w*|esperanto|klingon)\b",
}
NAMES = {name: re.compile(words, re.IGNORECASE) for name, words in _NAMES.items()}
TRANSLATE = re.compile(
    r"translat|übersetz|tradui|traduc|traduz|tradur|vertaal|vertal|tłumacz|çevir|tercüme|перевед|перевод|翻译|翻譯|翻訳|訳して|"
    r"번역|ترجم|अनुवाद|\bdịch\b|\b(?:language|sprache|langue|idioma|lingua|taal|język\w*|dil(?:i|de))\b|язык|语言|言語|언어|لغة|भाषा",
    re.IGNORECASE,
)

PAGE = "cp1252"  # of Western Europe: a text in it is divided into words as bytes, which is far cheaper
LETTERS = bytes(one if WORD.match(bytes([one]).decode(PAGE, "replace")) else 32 for one in range(256))
LANGUAGES = tuple(ORDER)
VOTES = {  # a word's languages as one long number, of 16 bits for each
    word.encode(PAGE): sum(1 << 16 * ORDER[name] for name in names)
    for word, names in HOLDERS.items()
    if word == word.encode(PAGE, "replace").decode(PAGE)
}
COUNTS = struct.Struct(f"<{len(LANGUAGES)}H")
STRANGERS = {  # a language's, or its kin's name -> the places of all that are not its kin
    kin: tuple(at for name, at in ORDER.items() if KIN.get(name, name) != kin)
    for kin in {KIN.get(name, name) for name in ORDER}
}


def words_of(text: str) -> tuple[int, Sequence[int]]:
    """How many words a short text has, and how many are function words of each of ``LANGUAGES``.

    >>> count, found = words_of("Wie viele Eier hat er? Many.")
    >>> count, found[LANGUAGES.index("de")], found[LANGUAGES.index("pl")]
    (6, 3, 0)
    """
    try:
        raw = text.casefold().encode(PAGE)
    except UnicodeEncodeError:
        return _counted(text)
    words = raw.translate(LETTERS).split()
    if len(words) >= 1 << 16:
        return _counted(text)
    votes = sum(filter(None, map(VOTES.get, words)))
    return len(words), COUNTS.unpack(votes.to_bytes(COUNTS.size, "little"))


def _counted(text: str) -> tuple[int, Sequence[int]]:
    count, hits = by_words(text)
    return count, [hits.get(name, 0) for name in LANGUAGES]
