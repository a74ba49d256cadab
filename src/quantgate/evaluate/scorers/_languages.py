"""In which language a text is: by its script, and among languages of one script by their commonest words and letters.

For the question "is this answer in the language that was asked for?", over languages that are known beforehand. A text
that shows none of them is in no language: a word like "abc" is not English. ``docs/decisions/0016`` has the figures.
"""

from __future__ import annotations

import re
from collections import Counter

SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {  # Unicode blocks
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "cyrillic": ((0x400, 0x52F),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)),
    "devanagari": ((0x900, 0x97F),),
    "he": ((0x590, 0x5FF),),
    "bn": ((0x980, 0x9FF),),
    "pa": ((0xA00, 0xA7F),),
    "gu": ((0xA80, 0xAFF),),
    "ta": ((0xB80, 0xBFF),),
    "te": ((0xC00, 0xC7F),),
    "kn": ((0xC80, 0xCFF),),
    "ml": ((0xD00, 0xD7F),),
    "th": ((0xE00, 0xE7F),),
    "ko": ((0xAC00, 0xD7AF), (0x1100, 0x11FF)),
    "ja": ((0x3040, 0x30FF),),
    "zh": ((0x4E00, 0x9FFF),),
    "el": ((0x370, 0x3FF),),
}
WORDS: dict[str, dict[str, str]] = {  # commonest words of each language of a script that several share
    "latin": {
        "en": "the of and to in is you that it he was for on are as with his they be at this have from or had by not "
        "but what all were we when your can there use an each which she do how their if will up other about out",
        "es": "de la que el en y los se del las un por con no una su para es al lo como más o pero sus le ha me si sin "
        "sobre este ya entre cuando todo esta ser son dos también fue había era muy hasta desde está",
        "pt": "de que o e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou "
        "quando muito nos já eu também só pelo pela até isso ela entre depois sem mesmo são você está",
        "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec ou "
        "son cette vous nous aux mais on elle leur ses été être même comme très fait si ces",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
        "er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder ich aber",
        "it": "di e il la che in a per un del non sono le una con si da come più lo è dei nel alla i al della anche ma "
        "delle gli ha questo su se o essere loro stato tutti molto quando ci cui degli perché nella",
        "fi": "ja on ei että se oli hän mutta ovat kun niin joka myös olla tai kuin voi sen ole sitä hänen mitä jos "
        "sekä minä sinä tämä vain jo kaikki nyt ne siitä jotka oman mukaan sitten hyvin vielä paljon eri",
        "sw": "ya na wa kwa ni katika la za cha kuwa hii kama hiyo yake hilo kutoka huo au lakini pia sana watu yao "
        "vya mtu moja hizo wake hao zaidi baada kila bila ambao ambayo hapa wakati huu yangu wetu siku",
        "pl": "w i na z się nie do jest że to o jak po co za od tak ale czy dla przez przy był może tylko są już jego "
        "jej tym które który która oraz być ich ten ta także pod gdy bardzo",
        "vi": "và của là có được không cho một trong các với này những người đã đến để từ khi về như nhiều cũng hay "
        "tôi sẽ ra rất vào trên bạn nhưng đó thể làm nếu lại phải chúng",
    },
    "cyrillic": {
        "ru": "и в не на что с я он как это по но из за то все так его для от же вы бы мы они был была или есть чтобы "
        "если уже только когда при также быть очень может их этот",
        "bg": "и на в да се за от не е са по че като ще с си или това бяха беше които който която има може към при до "
        "след така още само много със във ако тези ние вие той",
        "uk": "і в не на що з я він як це за до та у по але від для є так його вони був була або бути ще також при "
        "якщо вже тільки коли дуже може їх цей ми ви її про",
    },
    "devanagari": {
        "hi": "है हैं का की के में को से और पर यह नहीं ने भी एक कर लिए था थे थी हो गया कि तो इस वह करने ही अपने जो साथ आप मैं",
        "mr": "आहे आहेत आणि हे या ते तो ती नाही होते होता होती केले एक त्या मध्ये साठी पण की काही आपण असे म्हणून तर मी आपल्या",
        "ne": "छ छन् र हो थियो भने पनि गर्न गर्ने गरेको भएको यो लागि हुन्छ तपाईं "
        "मा को का गरी एक हुन् थिए यस त्यो म रहेको लाई बाट कृपया गर्नुहोस् अथवा गरिएको सक्छ",
    },
    "arabic": {
        "ar": "في من على إلى أن هذا هذه التي الذي مع عن كان لا ما أو كل بعد هو هي قد كما لم بين ذلك غير يمكن عند حيث",
        "fa": "و در به از که این را با است برای آن یک خود تا بر بود شد می هم نیز شود کرد ما اما شما هر اگر باید های",
        "ur": "کے میں کی ہے اور سے کا کو اس ہیں نے پر کہ یہ بھی ایک نہیں تھا کر ہو لیے جو وہ تو آپ گیا ہم تھے",
    },
}
LETTERS: dict[str, dict[str, str]] = {  # letters that one language of a script has and its neighbours lack
    "latin": {
        "vi": "ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
        "pl": "łśźżćńęą",
        "de": "ß",
        "es": "ñ¿¡",
        "pt": "ãõ",
    },
    "cyrillic": {"ru": "ыэё", "uk": "іїєґ"},
    "devanagari": {"mr": "ळ"},
    "arabic": {"ar": "ةىإأؤ", "fa": "پچژگ", "ur": "ٹڈڑںےہھ"},
}
BLOCKS = tuple((low, high, script) for script, ranges in SCRIPTS.items() for low, high in ranges)
VOCABULARY = {
    script: {language: frozenset(words.split()) for language, words in known.items()} for script, known in WORDS.items()
}
LANGUAGES = frozenset({"en"} | {one for known in WORDS.values() for one in known} | (set(SCRIPTS) - set(WORDS)))
MARK = 3  # a letter that only one language has weighs a third of a common word
TOKEN = re.compile(r"[^\s\d.,;:!?()\[\]{}\"«»„“”*#<>/|_।،؟-]+")


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language, or None where the text shows none.

    >>> language_of("THE CAT IS ON THE TABLE."), language_of("Die Katze ist auf dem Tisch."), language_of("abc")
    ('en', 'de', None)
    >>> language_of("猫在桌子上。"), language_of("ねこはつくえのうえです。"), language_of("Это и есть стол.")
    ('zh', 'ja', 'ru')
    """
    text = text.casefold()
    scripts = Counter(script for letter in text if (script := _script(ord(letter))))
    if not scripts:
        return None
    script = scripts.most_common(1)[0][0]
    if scripts["ja"] * 10 > scripts["zh"] + scripts["ja"] and script in ("zh", "ja"):
        return "ja"  # Japanese is written with Chinese characters, too
    if script not in WORDS:
        return script
    return _by_words(text, script)


def _script(code: int) -> str | None:
    return next((script for low, high, script in BLOCKS if low <= code <= high), None)


def _by_words(text: str, script: str) -> str | None:
    tokens = Counter(TOKEN.findall(text))
    letters = Counter(text)
    points = {
        language: MARK * sum(count for token, count in tokens.items() if token in words)
        + sum(letters[letter] for letter in LETTERS[script].get(language, ""))
        for language, words in VOCABULARY[script].items()
    }
    best = max(points, key=lambda language: points[language])
    return best if points[best] else None
