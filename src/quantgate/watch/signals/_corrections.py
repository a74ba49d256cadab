"""How people say that the last answer was wrong, in fifteen languages.

``DENIED`` stands at the start, and is an answer where a question was asked before ("No."); ``TOLD`` says by itself that
something was wrong. Thanks that begin with a no are none of them.
"""

from __future__ import annotations

import re

from quantgate.manner.rules import Bank, Rules, rules

POLITE = re.compile(  # a no that thanks, in any of them
    r"thank|gracias|está bien|grazie|va bene|obrigad|tudo bem|merci|dank|dzięk|teşekkür|спасибо|شكرا|धन्यवाद|谢|謝|"
    r"ありがとう|감사|고마"
)
END = r"(?=[,.!;:]|$)"
DENIED: dict[str, Rules] = {
    "en": rules(
        "no|nah|wrong|incorrect|false",
        r"\A(?:no|nope|nah)(?:[,.!;:]| no\b|$)(?! ?(?:thanks?|thank you|that's (?:all|it|fine|ok)|that is all|"
        r"problem|"
        r"worries|i'm (?:good|fine)|it's (?:fine|ok|good)|all good|not (?:yet|really|now)|nothing|need))",
        r"\A(?:wrong|incorrect|false)\b(?! (?:positive|negative|friend))",
    ),
    "de": rules(
        "ne|nö|falsch|quatsch",
        rf"\A(?:nein|nee|nö|falsch|quatsch){END}(?!,? (?:danke|alles (?:gut|klar)|das (?:ist|war|wär)\w* (?:es|"
        rf"alles)|"
        r"schon gut|nicht nötig|passt|mehr nicht|kein problem))",
    ),
    "fr": rules(
        "non|faux|incorrect|pas du tout",
        rf"\A(?:non|faux|incorrect|pas du tout) ?{END}(?!,? (?:merci|c'est (?:tout|bon)|ça va|pas de|rien|tout va))",
    ),
    "es": rules(
        "no|incorrecto|falso|mal",
        rf"\A(?:no|incorrecto|falso|mal){END}(?!,? (?:gracias|está bien|eso es todo|nada|hay|te preocupes|es todo))",
    ),
    "it": rules(
        "no|sbagliato|falso",
        rf"\A(?:no|sbagliato|falso){END}(?!,? (?:grazie|va bene|è tutto|niente|basta))",
    ),
    "pt": rules(
        "não|errado|incorreto|falso",
        rf"\A(?:não|errado|incorreto|falso){END}(?!,? (?:obrigad|está bem|tá bom|é só|é tudo|tudo bem|nada|precisa))",
    ),
    "nl": rules(
        "nee|fout|onjuist",
        rf"\A(?:nee|fout|onjuist){END}(?!,? (?:dank|bedankt|dat (?:is|was) alles|prima|hoor))",
    ),
    "pl": rules("nie|źle|błąd", rf"\A(?:nie|źle|błąd){END}(?!,? (?:dzięk|to wszystko|w porządku|trzeba|ma sprawy))"),
    "tr": rules("hayır|yanlış", rf"\A(?:hayır|yanlış){END}(?!,? (?:teşekkür|sağ ol|hepsi bu|gerek yok|bu kadar))"),
    "ru": rules(
        "нет|неверно|неправильно",
        rf"\A(?:нет|неверно|неправильно){END}(?!,? (?:спасибо|это всё|это все|не надо|всё|проблем))",
    ),
    "ar": rules("لا|خطأ|كلا", r"\A(?:لا|خطأ|كلا)(?=[،,.!]|$)(?![،,.!]? ?(?:شكرا|هذا كل|بأس|داعي|مشكلة))"),
    "hi": rules("नहीं|गलत", r"\A(?:नहीं|गलत)(?=[,।!]|$)(?![,।!]? ?(?:धन्यवाद|शुक्रिया|बस|ठीक है|कोई))"),
    "zh": rules(
        "不|错|錯",
        r"\A(?:不|不是|不是的|不对|不對|错|錯|错了|錯了)(?=[,。!;、 ]|$)(?![,。!、 ]?(?:谢谢|用了|谢了|没事|謝謝))",
    ),
    "ja": rules(
        "いいえ|いや|違",
        r"\A(?:いいえ|いや|違う|違います)(?=[、,。! ]|$)(?![、,。! ]?(?:結構|大丈夫|ありがとう|以上|特に))",
    ),
    "ko": rules(
        "아니|아뇨|틀렸", r"\A(?:아니요?|아니오|아니야|아뇨|틀렸\w*)(?=[,.! ]|$)(?![,.!]? ?(?:괜찮|됐|감사|없|고마))"
    ),
}
TOLD: dict[str, Rules] = {
    "en": rules(
        "that|n't|not |this|i |you|wrong|work|again|still|incorrect",
        r"\b(?:that|this|it)(?:'s| is| was) (?:\w+ )?(?:wrong|incorrect|not (?:right|correct|true|what|it\b|"
        r"quite right))",
        r"\b(?:that|this|it) (?:isn't|wasn't) (?:right|correct|true|what)\b|\bthat's not it\b",
        r"\bnot what i (?:\w+ )?(?:asked|meant|wanted|said|need|was (?:asking|looking))",
        r"\A(?:\w+,? ){0,3}i (?:meant|asked (?:for|you|about)|said|didn't (?:ask|say|mean)|did not (?:ask|say|mean)|"
        r"was asking)\b",
        r"\byou (?:\w+ )?(?:misunderstood|misread|are wrong|got (?:it|that|this) wrong|made (?:a|an|"
        r"the same) (?:\w+ )?mistake|"
        r"forgot|missed|ignored|left out|didn't (?:answer|follow|read|use|include|do)|did not (?:answer|follow|"
        r"read))\b|"
        r"\byou're (?:wrong|mistaken)\b",
        r"\bstill (?:wrong|not (?:right|correct|working|what)|broken|fails|failing|the same|doesn't|does not|"
        r"getting)\b",
        r"\b(?:it|that|this|code|which) (?:just |still )?(?:doesn't|does not|didn't|did not|isn't|is not) (?:work|"
        r"compile|run|help)",
        r"\A(?:please )?(?:try|do it|read (?:it|that|my question|the question)) again\b|\bwrong (?:answer|file|one|"
        r"language)\b",
    ),
    "de": rules(
        "das |nicht|ich |du |sie |falsch|versuch|lies|irr",
        r"\bdas (?:stimmt (?:\w+ ){0,2}nicht|(?:ist|war) (?:\w+ ){0,2}(?:falsch|nicht (?:richtig|korrekt|das|was|"
        r"wahr|ganz richtig)))",
        r"\bnicht (?:das|wonach|was|danach),? (?:was )?(?:ich|habe ich|hatte ich) (?:\w+ )?(?:gefragt|gemeint|"
        r"gesucht|gesagt|wollte|meinte|meine)",
        r"\bdanach (?:habe|hatte) ich (?:\w+ )?nicht gefragt|\bich meinte\b|\bich (?:habe|hatte) (?:dich |"
        r"sie )?(?:doch|nicht) (?:\w+ )?"
        r"(?:nach|gesagt|gefragt)|\bich wollte (?:doch|eigentlich|nicht)\b",
        r"\b(?:du hast|sie haben|hast du|haben sie) [^.!?]{0,30}(?:falsch|missverstanden|vergessen|übersehen|"
        r"ignoriert|verwechselt)",
        r"\b(?:funktioniert|geht|klappt|läuft) (?:\w+ ){0,2}nicht\b|\bimmer noch (?:falsch|nicht|der gleiche|"
        r"derselbe|dasselbe)",
        r"\A(?:bitte )?versuch\w* (?:es )?(?:noch ?mal|noch einmal|erneut)|\A(?:bitte )?lies (?:noch|meine|die)|"
        r"\b(?:du|da) irrst\b",
    ),
    "fr": rules(
        "pas|faux|incorrect|inexact|je |j'ai|tromp|compris|réessa|relis|toujours|oublié",
        r"\b(?:ce n'est|c'est|ce n'était) (?:\w+ )?pas (?:ce que|ça|correct|exact|juste|vrai|bon|la bonne|du tout)",
        r"\bc'est (?:\w+ )?(?:faux|incorrect|inexact|erroné)\b|\bje voulais dire\b|\bje parlais d|"
        r"\bje n'ai pas (?:dit|demandé)",
        r"\A(?:\w+,? ){0,3}(?:j'ai (?:dit|demandé)|je (?:t'ai|vous ai) (?:dit|demandé))\b|\b(?:tu te|tu t'es|"
        r"vous vous) (?:êtes )?tromp",
        r"\b(?:tu n'as|vous n'avez) pas (?:compris|répondu|lu|bien)|\bmal compris\b|\b(?:tu as|vous avez) oublié",
        r"\b(?:ça|cela|ce code) ne (?:marche|fonctionne) (?:toujours )?pas|\bréessa(?:ie|yez)\b|\btoujours (?:faux|"
        r"la même erreur)|\Arelis",
    ),
    "es": rules(
        "no |eso|mal|refería|quise|quería|pedí|pregunt|dije|equivoc|funciona|intént|olvid|falt",
        r"\beso (?:no es (?:lo|correcto|cierto|así|verdad)|está mal|es (?:incorrecto|falso|erróneo))|"
        r"\bno es (?:lo que|correcto|cierto)\b",
        r"\bme refería\b|\bquise decir\b|\bquería decir\b|\bno (?:te )?(?:pedí|pregunté|dije)\b|\b(?:yo|te|"
        r"le) (?:pedí|pregunté|dije)\b",
        r"\bte equivoca|\busted se equivoca|\b(?:has entendido|entendiste|ha entendido) mal|\b(?:sigue sin|no) funcion|"
        r"\bte olvidaste",
        r"\b(?:inténtalo|inténtelo|prueba) (?:de nuevo|otra vez)|\bvuelve a (?:intentar|leer)|\btodavía (?:está mal|"
        r"no)\b",
    ),
    "it": rules(
        "non |sbagli|errat|falso|intendevo|volevo|chiesto|detto|frainte|capito|dimentic|riprova|rileggi",
        r"\bnon è (?:quello|corretto|giusto|vero|ciò|quanto|così)\b|\bè (?:\w+ )?(?:sbagliat|errat|falso)",
        r"\bintendevo\b|\bvolevo dire\b|\b(?:ti|le|vi) (?:ho|avevo) (?:chiesto|detto)|\bnon (?:ti |"
        r"le )?ho (?:chiesto|detto)|\Aho (?:chiesto|detto)",
        r"\b(?:hai|avete) (?:sbagliato|frainteso|capito male|dimenticato|ignorato|saltato)|\bti sbagli\b|"
        r"\bsi sbaglia\b",
        r"\bnon funziona\b|\A(?:per favore,? )?(?:riprova|rileggi)\b",
    ),
    "pt": rules(
        "não|errad|incorret|quis|queria|pedi|pergunt|disse|errou|entendeu|engan|esqueceu|tente|leia|ainda",
        r"\bnão (?:é|está|foi|era) (?:\w+ )?(?:o que|isso|isto|certo|correto|verdade|bem assim)|\b(?:está|"
        r"é) (?:\w+ )?(?:errad|incorret)",
        r"\beu quis dizer\b|\bqueria dizer\b|\b(?:eu|te|lhe) (?:pedi|perguntei|disse)\b|\bnão (?:te )?(?:pedi|"
        r"perguntei|disse)\b|\bnão foi isso",
        r"\b(?:você|tu) (?:\w+ )?(?:errou|entendeu mal|enganou|esqueceu|ignorou|não (?:entendeu|respondeu|leu))|"
        r"\bestá enganado",
        r"\bnão (?:está )?funcion|\b(?:ainda|continua) (?:errad|sem funcionar|não)|\A(?:por favor,? )?(?:tente|"
        r"leia) (?:de novo|novamente|outra vez)",
    ),
    "nl": rules(
        "dat |niet|ik |je |vergis|werkt|probeer|steeds|lees",
        r"\bdat (?:klopt (?:\w+ )?niet|(?:is|was) (?:\w+ )?(?:fout|onjuist|verkeerd|niet (?:juist|goed|wat|correct|"
        r"waar)))",
        r"\bniet wat ik (?:vroeg|bedoel|wilde|zei)|\bik bedoelde\b|\A(?:\w+,? ){0,3}ik (?:vroeg|zei)\b|"
        r"\bik heb (?:\w+ )?niet gevraagd",
        r"\bje (?:hebt|begrijpt|bent)[^.!?]{0,30}(?:verkeerd|vergeten|niet (?:goed )?(?:begrepen|gelezen|"
        r"beantwoord))|\bje vergist",
        r"\bwerkt (?:\w+ ){0,2}niet\b|\A(?:alsjeblieft )?probeer (?:het )?(?:opnieuw|nog eens|nog een keer)|"
        r"\bnog steeds (?:fout|dezelfde|niet)",
    ),
    "pl": rules(
        "nie|źle|błęd|chodziło|myśli|pytał|prosił|mówił|myl|spróbuj|zapomnia",
        r"\bto (?:nie (?:jest )?(?:to\b|prawda|tak\b|poprawn)|(?:jest )?(?:błędn|źle\b|nieprawd|niepoprawn))|"
        r"\bnie o to\b",
        r"\bchodziło mi\b|\bmiał[ae]m na myśli|\A(?:\w+,? ){0,3}(?:pytał|prosił|mówił|powiedział)[ae]m\b|"
        r"\bnie (?:pytał|prosił|mówił)[ae]m",
        r"\bmylisz|\bpomyli|\bźle (?:mnie )?zrozumia|\b(?:nadal |wciąż )?nie działa\b|"
        r"\A(?:proszę )?spróbuj (?:jeszcze raz|ponownie)|\bzapomnia(?:łeś|łaś)",
    ),
    "tr": rules(
        "değil|yanlış|istedi|sormadım|demedim|istemedim|kastet|hata|yanıl|çalışm|dene|aynı",
        r"\b(?:bu|öyle|o|cevap) (?:doğru değil|yanlış)|\byanlış (?:anla|cevap|oldu|yaptın)|\bdemek istediğim\b|"
        r"\b(?:onu|bunu) (?:sormadım|demedim|istemedim)",
        r"\bdemek istemedim\b|\bkastet(?:tiğim|miştim|medim)|\bhata yaptın|\byanılıyorsun|\bçalışm(?:ıyor|adı)|"
        r"\A(?:lütfen )?(?:tekrar|yeniden) dene|\bh[aâ]l[aâ] (?:yanlış|aynı|çalışm)",
    ),
    "ru": rules(
        "не |невер|неправил|ошиб|я |забыл|попробу|опять|перечитай",
        r"\bэто (?:\w+ )?(?:не (?:так|то\b|верно|правильно|правда)|неверно|неправильно|ошибка)|\bне то,? (?:что|"
        r"о ч[её]м)",
        r"\bя (?:имел[аи]? в виду|не (?:спрашивал|просил|говорил|об этом|то\b)|(?:же )?(?:спрашивал|просил|говорил|"
        r"сказал)а?)\b",
        r"\b(?:ты|вы) (?:\w+ )?(?:не (?:понял|ответил|прочитал)|ошиб|неправильно|забыл)|\b(?:опять|снова|"
        r"вс[её] ещ[её]|вс[её] равно) (?:не|та же|ошибка)",
        r"\bне работает\b|\A(?:пожалуйста,? )?(?:попробуй(?:те)? (?:ещ[её]|снова|заново)|перечитай)",
    ),
    "ar": rules(
        "هذا|هذه|ذلك|ليس|أقصد|قصدت|لم |أخطأ|مخطئ|فهمت|يعمل|حاول|إجاب|أعد|زال",
        r"(?:هذا|هذه|ذلك) (?:غير صحيح|ليس صحيح|ليست صحيح|خطأ|خاطئ|ليس ما|ليست ما)|ليس (?:هذا )?ما (?:طلبت|سألت|قصدت|"
        r"أردت)",
        r"\b(?:كنت )?أقصد\b|\bقصدت\b|\bلم أ(?:طلب|سأل|قل|قصد)|\bمخطئ|\bأخطأت|فهمت(?:ني)? خطأ|لم تفهم|\b(?:لا|"
        r"لم) (?:يعمل|تعمل)",
        r"حاول مر[ةه] أخرى|ما زال (?:خطأ|لا)|إجاب(?:ة|تك) (?:خاطئ|خطأ|غير صحيح)|أعد (?:المحاولة|قراءة)",
    ),
    "hi": rules(
        "गलत|सही|ठीक|मतलब|मैंने|काम|फिर|दोबारा|अभी",
        r"(?:यह|ये|वह) (?:उत्तर |जवाब )?(?:गलत|सही नहीं|ठीक नहीं)|गलत (?:है|जवाब|उत्तर)|मेरा मतलब|"
        r"मैंने (?:[^ ।]+ ){0,3}नहीं (?:पूछ|कह|मांग|माँग)",
        r"(?:आपने|तुमने) (?:[^ ।]+ ){0,2}(?:गलत|भूल)|काम नहीं कर|फिर से (?:कोशिश|प्रयास)|दोबारा (?:कोशिश|पढ)|"
        r"अभी भी (?:गलत|वही)",
    ),
    "zh": rules(
        "不|错|錯|我|你|重新|再试|还是|還是|仍然",
        r"不是我(?:要|问|問|想|說|说|的意思)|(?:这|那|這|答案|结果|回答)[^,。!?]{0,4}(?:不对|不對|是错|错了|錯了|"
        r"是錯|不正确|不正確|有误)",
        r"我(?:的意思是|是说|是說|说的是|說的是|问的是|問的是|要的是|没问|沒問|没有问|没让你)|你(?:理解错|搞错|弄错|"
        r"弄錯|说错|错了|錯了|没有?(?:理解|回答|看)|忘了|漏)|答非所问",
        r"(?:还是|仍然|還是)(?:不行|不对|不對|错|報錯|报错|不能|一样)|运行不了|\A请?再试(?:一次|试)|\A请?重新(?:回答|"
        r"来|写|做|看)",
    ),
    "ja": rules(
        "た|だ|違|間違|正しく|誤|じゃな|ではな|意味|動|もう一度|やり直|うまく",
        r"(?:それ|これ|答え|回答|結果)(?:は|が)?[^。!?]{0,8}(?:違い|違う|間違|正しくな|正しくあ|誤り)|間違(?:って|"
        r"えて|いです)|そう(?:じゃな|ではな)",
        r"(?:聞いた|訊いた|頼んだ|言った|欲しかった|質問した|聞きたかった)(?:の|こと)(?:は|と|では|じゃ)|"
        r"という意味(?:です|では|じゃ)|勘違い|誤解して",
        r"(?:動きません|動かない|動作しません|うまくいきません|うまくいかな)|もう一度(?:やり|試|考|読|確認)|やり直し",
    ),
    "ko": rules(
        "아니|틀렸|틀린|잘못|말은|제가|내가|오해|다시|여전히|아직도|안 |않",
        r"(?:그건|그게|이건|이게|답이|답변이|그거|결과가)[^.!?]{0,8}(?:아니|틀렸|틀린|잘못)|(?:제|내) 말은|(?:제가|"
        r"내가) (?:물어본|말한|요청한|원한|부탁한)",
        r"잘못 (?:이해|알|답|하셨|됐|되)|오해하|틀렸(?:어|습|네)|(?:여전히|아직도|계속)[^.!?]{0,12}(?:안 |틀|오류|"
        r"같은)|(?:작동|동작|실행)(?:이|하지|"
        r"되지)? ?(?:안 |않)",
        r"\A다시 (?:해|시도|작성|확인|읽)",
    ),
}
DENYING, TELLING = Bank(DENIED), Bank(TOLD)


def denied(head: str) -> bool:
    """Whether a folded turn begins with a no that refuses no offer."""
    return DENYING.first(head) is not None and not POLITE.search(head[:40])


def told(head: str) -> bool:
    """Whether a folded turn says by itself that something was wrong."""
    return TELLING.first(head) is not None
