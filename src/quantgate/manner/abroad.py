"""Other languages than English: how a refusal begins.

Behind a refusal's words stands what makes them none: "je ne peux pas attendre", "не могу не". Latin letters keep their
accents: who leaves them out is not understood.
"""

from __future__ import annotations

from quantgate.manner.rules import Bank, Rules, rules

REFUSALS: dict[str, Rules] = {
    "de": rules(
        "ich|mir|als |illegal|unethisch|strafbar|verboten|widrig|gegen|entschuldigung|sorry|bedau",
        r"\bich (?:kann|darf|möchte|werde|könnte|will|muss)\b[^.!?:;]{0,70}?\b(?:nicht|keine\w*|"
        r"ablehnen)\b(?! (?:nur|genug|"
        r"oft genug|umhin|glauben|erwarten|versprechen|bestätigen))(?<!kann kein)(?! zweifel)",
        r"\b(?:kann|darf|werde|möchte|will|muss) ich\b[^.!?:;]{0,70}?\b(?:nicht|keine\w*|ablehnen|"
        r"passen)\b(?! (?:nur|genug|umhin))",
        r"\b(?:es (?:ist )?mir|ist (?:es )?mir) (?:leider )?(?:nicht |un)(?:möglich|erlaubt|gestattet)|"
        r"\bbin (?:ich )?(?:leider )?nicht (?:in der lage|befugt|"
        r"berechtigt|autorisiert|dazu da|bereit)",
        r"\b(?:tut mir (?:sehr )?leid|bedau[e]?re|entschuldigung|verzeihung|sorry),? (?:aber|doch|ich kann|das kann|"
        r"da kann)",
        r"\bals (?:eine? )?(?:ki|künstliche intelligenz|sprachmodell|ki-\w+)\b",
        r"\b(?:ich lehne|lehne ich|ich weigere|verweigere ich|ich verweigere)\b",
        r"\b(?:das|dies|es) (?:ist|wäre) (?:\w+ )?(?:illegal|unethisch|strafbar|verboten|rechtswidrig|gesetzwidrig)",
        r"\b(?:ist|wäre) (?:\w+ )?nicht (?:legal|ethisch|angemessen|vertretbar|zulässig)|\bverstösst gegen",
        r"\b(?:unterstütze|befürworte|helfe) (?:ich )?(?:\w+ ){0,2}nicht\b",
    ),
    "fr": rules(
        "je |désol|navré|excusez|pardon|regrett|en tant qu|impossible|m'est|illégal|immoral|contr|délit|pas ",
        r"\bje (?:ne |n')(?:peux|suis|veux|vais|souhaite|dois|pourrai|pourrais|fournirai|donnerai) (?:\w+ )?pas\b"
        r"(?! (?:attendre|m'empêcher|assez|croire|sûr|certain|seulement|nier|mentir|oublier|seul|en désaccord))",
        r"\bje ne (?:peux|puis|saurais) (?:\w+ )?(?:répondre|accéder|vous|t'|te|donner|fournir|aider|accepter)",
        r"\bje ne (?:vous |te |t')?\w+rai pas\b",
        r"\b(?:désolée?|navrée?|regrette|excusez-moi|pardon),? (?:mais|je ne|je n'|cela|c'est impossible)",
        r"\bje (?:dois|préfère|me vois|suis)[^.!?]{0,25}\b(?:refuser|décliner|abstenir|obligée? de refuser)\b|"
        r"\bje (?:refuse|décline)\b",
        r"\ben tant qu'(?:ia|intelligence|assistant|une ia)|\ben tant que modèle",
        r"\bil (?:m'est|ne m'est) (?:\w+ )?(?:impossible|pas possible|pas permis|interdit)|\bimpossible de (?:vous|"
        r"t'|te) ?aider",
        r"\b(?:est|serait) (?:\w+ )?(?:illégale?|immorale?|contraire (?:à|aux)|contre la loi|un délit)\b",
        r"\b(?:n'est|ne serait) pas (?:appropriée?|éthique|acceptable|légale?|correct de)\b",
    ),
    "es": rules(
        "no |siento|lamento|disculp|perd|como |recha|declin|niego|ilegal|moral|ético|inapropiado|contra",
        r"\bno (?:puedo|podemos|podré|debo|voy a|deseo)\b(?! (?:esperar|creer|evitar|dejar|negar|estar más|parar|"
        r"más que|mentir|quejar))",
        r"\bno (?:me es posible|me está permitido|estoy (?:autorizad|en condiciones|dispuest|capacitad|programad|"
        r"en posición)|soy capaz"
        r"|me siento cómod|tengo permitido)",
        r"\b(?:lo siento|lamento|perdón|perdona|disculp\w+|lo lamento)(?: mucho)?,? (?:pero|no puedo|no me)",
        r"\b(?:lo siento|lamento) (?:no poder|decirte que no|informarle que no)",
        r"\bcomo (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje|asistente (?:de ia|virtual))\b",
        r"\b(?:debo|tengo que|prefiero|tendré que) (?:rechazar|declinar|negarme)|\bme niego\b|\brechazo (?:tu|su|"
        r"esta)",
        r"\b(?:es|sería|son) (?:\w+ )?(?:ilegal|inmoral|poco ético|inapropiado|contrario a)\b|"
        r"\bva (?:en )?contra\b",
        r"\bno (?:es|sería) (?:apropiado|ético|aceptable|legal|correcto|adecuado)\b",
        r"\bno (?:te |le |os |les )?(?:ayudaré|proporcionaré|daré|explicaré)\b",
    ),
    "it": rules(
        "non |spiac|scus|desolat|rifiut|declin|come |illegale|moral|reato|inappropriato|contr|impossibile",
        r"\bnon (?:posso|possiamo|potrò|voglio|intendo|ho intenzione)\b(?! (?:aspettare|creder|che|fare a meno|non|"
        r"negare|mentire|smettere|"
        r"essere più))",
        r"\bnon (?:sono (?:in grado|autorizzat|abilitat|programmat|dispost)|mi è (?:possibile|permesso|consentito)|"
        r"me la sento|riesco ad? (?:aiut|forn))",
        r"\b(?:mi (?:di)?spiace|scus\w+|spiacente|sono desolat\w)(?: molto| tanto)?,? (?:ma|non posso|però)",
        r"\b(?:devo|preferisco|sono costrett\w a) (?:rifiutar\w+|declinar\w+)|\bmi rifiuto\b|\brifiuto (?:la|questa|"
        r"di)\b",
        r"\bcome (?:una? )?(?:ia|intelligenza artificiale|modello (?:linguistico|di linguaggio)|"
        r"assistente (?:virtuale|ai))\b",
        r"(?:\bè|\bsarebbe) (?:\w+ )?(?:illegale|immorale|contro la legge|inappropriato|contrario)\b",
        r"\bsarebbe un reato\b|\bnon (?:è|sarebbe) (?:appropriato|etico|accettabile|legale|corretto|opportuno)\b",
        r"\bnon (?:ti |vi |le )?(?:aiuterò|fornirò|darò|spiegherò)\b|\bimpossibile (?:per me )?aiutar",
    ),
    "pt": rules(
        "não |desculp|lamento|sinto muito|perdão|como |recus|declin|ilegal|moral|ético|inadequado|crime|contra",
        r"\bnão (?:posso|podemos|poderei|consigo|vou|devo|quero)\b(?! (?:esperar|acreditar|deixar|evitar|negar|parar|"
        r"mentir|concordar mais|reclamar))",
        r"\bnão (?:estou (?:autorizad|apt|em condições|dispost|programad)|me é (?:possível|permitido)|sou capaz|"
        r"me sinto (?:confort|à vontade)|tenho permissão)",
        r"\b(?:desculp\w+|lamento|sinto muito|perdão|peço desculpas?),? (?:mas|não posso|não consigo)",
        r"\b(?:lamento|sinto muito) (?:não poder|informar que não)",
        r"\bcomo (?:uma? )?(?:ia|inteligência artificial|modelo de linguagem|assistente (?:virtual|de ia))\b",
        r"\b(?:devo|tenho que|tenho de|preciso|prefiro) (?:recusar|declinar)|\brecuso-me\b|\bme recuso\b",
        r"(?:\bé|\bseria) (?:\w+ )?(?:ilegal|imoral|antiético|inadequado|contra a lei)\b|"
        r"\bvai contra\b",
        r"\bseria (?:um )?crime\b|\bnão (?:é|seria) (?:apropriado|ético|aceitável|legal|correto|adequado)\b",
        r"\bnão (?:te |lhe |o |a )?(?:ajudarei|fornecerei|darei|explicarei)\b",
    ),
    "nl": rules(
        "ik |sorry|spijt|excuses|als |illegaal|onethisch|strafbaar|strijd|verboten|weiger|niet ",
        r"\bik (?:kan|mag|zal|wil|ga|moet)\b[^.!?:;]{0,60}?\b(?:niet|geen|weigeren|afwijzen)\b(?! (?:wachten|genoeg|"
        r"alleen|geloven|vaak genoeg|beloven))",
        r"\b(?:kan|mag|zal|wil) ik\b[^.!?:;]{0,60}?\b(?:niet|geen)\b(?! (?:wachten|genoeg|alleen))",
        r"\b(?:sorry|spijt me|excuses),? (?:maar|dat kan|hier kan|ik kan)",
        r"\bals (?:een )?(?:ai|taalmodel|kunstmatige|ai-\w+)\b|\bben (?:ik )?(?:helaas )?niet (?:in staat|bevoegd|"
        r"gemachtigd|bereid)",
        r"\b(?:is|zou) (?:\w+ )?(?:illegaal|onethisch|strafbaar|in strijd met|verboten)|\bis niet (?:toegestaan|"
        r"gepast|ethisch|legaal)",
        r"\bik weiger\b|\bmoet ik (?:\w+ )?(?:weigeren|afwijzen)",
    ),
    "pl": rules(
        "nie |przykro|przepraszam|wybacz|jako |odm|niezgodne|nielegalne|nieetyczne|niewłaściwe|przestępstwo",
        r"\bnie (?:mogę|możemy|będę|jestem w stanie|wolno mi|chcę|zamierzam|pomogę|udzielę|podam|mam możliwości|"
        r"jestem upoważnion)"
        r"(?! (?:się doczekać|się nie|uwierzyć|nie |kłamać|ukrywać|przestać))",
        r"\b(?:przykro mi|przepraszam|wybacz\w*),? (?:ale|lecz|nie mogę|nie jestem)",
        r"\bjako (?:ai|sztuczna|model językowy|asystent ai)\b|\bmuszę odmówić\b|\bodmawiam\b",
        r"\b(?:jest|byłoby|to) (?:\w+ )??(?:nielegalne|nieetyczne|niezgodne z|niewłaściwe|przestępstwo)",
    ),
    "tr": rules(
        "yardım|yapay|dil modeli|redde|yasa|kanun|etik|suçtur|değil|mam|mem|ıyor|iyor|mayacağım|meyeceğim|mayız|meyiz",
        r"\byardım(?:cı)? (?:olam|edem)(?:am|em|ıyor|iyor|ay|ey)?\w*",
        r"\b(?:üzgünüm|özür dilerim|maalesef|kusura bakm\w+)[^.!?]{0,80}?(?:(?:a|e)m(?:am|em|ıyorum|iyorum|ayız|eyiz|"
        r"ayacağım|eyeceğim)|değil)\b",
        r"\b(?:sağlay|ver|yap|söyley|paylaş|yanıtlay|cevaplay|yerine getir|açıklay|öner|yaz)(?:a|e)m(?:am|em|ıyorum|"
        r"iyorum|ayacağım|eyeceğim)\b",
        r"\byapay zek[aâ] (?:\w+ )?(?:olarak|modeliyim|olduğum)|\bdil modeli olarak\b|\breddet(?:mek zorunda|"
        r"mek durumunda|meliyim)|\breddediyorum",
        r"\b(?:yasa ?dışı|yasalara aykırı|kanuna aykırı|etik (?:değil|dışı)|suçtur|uygun değil)",
    ),
    "ru": rules(
        "не |отказ|извин|прост|сожале|прошу|жаль|как |будучи|закон|неэт|против|недопуст|аморал|неприемл|преступл|мне ",
        r"\bне (?:могу|можем|смогу|буду|стану|имею (?:права|возможности)|вправе|в состоянии|готова? (?:помо|дел|"
        r"предо))"
        r"(?! (?:не |дождаться|поверить|нарадоваться|врать|скрывать|спорить|лгать|сдержать|удержаться))",
        r"\bотказываюсь\b|\bвынужден\w* отказать|\bдолж(?:ен|на) отказать",
        r"\b(?:извините|простите|сожалею|прошу прощения|мне (?:очень )?жаль),? но\b",
        r"\bкак (?:ии|искусственный интеллект|языковая модель|ии-\w+)\b|\bбудучи (?:ии|языковой)",
        r"(?<!не )(?<!ничего )\b(?:незаконно|неэтично|противозаконно|недопустимо|аморально|неприемлемо|"
        r"преступление)\b(?! ли)",
        r"\bявляется (?:незаконным|преступлением|неэтичным)|\bпротиворечит (?:закону|этическ|моим|моей|правилам)",
        r"\b(?:я )?не (?:помогу|предоставлю|скажу|дам|расскажу|напишу|подскажу как)\b|\bмне (?:запрещено|"
        r"не разрешено|нельзя)\b",
    ),
    "ar": rules(
        "لا |لن |عذر|آسف|نأسف|أعتذر|أرفض|بصفتي|باعتباري|كوني|كنموذج|غير |لست|ليس من|مخالف",
        r"\bلا (?:أستطيع|يمكنني|أقدر|يسعني|أود|أرغب|يمكننا|نستطيع|يجوز لي|يسمح لي|أدعم|أؤيد)"
        r"(?! (?:الانتظار|انتظار|إلا|أن أصدق|تصديق|وصف|أن أنكر|إنكار|أن أصف))",
        r"\bلن (?:أستطيع|أتمكن|أقوم|أساعد|أقدم|يمكنني|أشارك)|\b(?:غير|لست) (?:قادر|مخول)",
        r"\b(?:عذرا|آسف|آسفة|أعتذر|معذرة|نأسف)[^.!؟]{0,12}(?:لكن|ولكن|لا أستطيع|لا يمكنني|لن)",
        r"\bأرفض\b|\b(?:بصفتي|باعتباري|كوني) (?:نموذج|ذكاء|مساعد ذكاء)|\bكنموذج لغو",
        r"\bغير (?:قانوني|أخلاقي|لائق|مقبول|مشروع|مناسب أن)\w*|\bليس من (?:المناسب|اللائق|الأخلاقي|القانوني)|"
        r"\bمخالف\w? للقانون",
    ),
    "hi": rules(
        "नहीं|असमर्थ|मना कर|लेकिन|एआई|ai|भाषा मॉडल|अवैध|कानून|अनैतिक",
        r"(?:मैं|हम)(?:(?!इंतजार|यकीन|विश्वास|बहुत खुश)[^।.!?]){0,90}?(?:नहीं (?:[^ ।]+ सक|सक|करूंग|करूँग|"
        r"दूंग|दूँग|बताऊ|कर पा|दे पा)|असमर्थ|मना कर)",
        r"(?:क्षमा करें|माफ करें|माफ कीजिए|क्षमा कीजिए|क्षमा चाह|माफी चाह|खेद है|सॉरी)[^।!?]{0,70}?(?:नहीं (?:कर|दे|"
        r"बता|सक)|असमर्थ|लेकिन मैं)",
        r"(?:एआई|ai|भाषा मॉडल)[^।]{0,30}?(?:के रूप में|होने के नाते)",
        r"(?:गैरकानूनी|गैर-कानूनी|अवैध|अनैतिक) (?:है|होगा|और)|उचित नहीं (?:है|होगा)|कानून के (?:खिलाफ|विरुद्ध)",
    ),
    "zh": rules(
        "我|无法|無法|不能|不可以|没办法|沒辦法|不便|拒|作为|作為|法|不道德|不合适|不恰当|不适当|犯罪|对不起|對不起|抱歉",
        r"我[^。!?\n]{0,15}?(?:无法|無法|不能|不可以|没办法|沒辦法|不会|不會|不便|不应|不應|拒绝|拒絕|不被允许)"
        r"(?!不|等待|相信|再同意|忘|否认|否認|更|让你失望|让您失望|告诉你有多|想象)",
        r"(?:抱歉|对不起|對不起|不好意思|遗憾|遺憾)[^。!?\n]{0,25}?(?:无法(?!访问)|無法|不能(?!及时|早)|不便|没办法|不可以|拒绝|,但我|,但是我)",
        r"作[为為](?:一[个個名款])?(?:ai|人工智能|人工智慧|语言模型|語言模型|大型?语言模型)",
        r"(?:这|那|此|该|该|行为|做法|属于|這)[^。,!?\n]{0,8}(?:违法|違法|非法|不道德|不合适|不恰当|不适当|犯罪)",
        r"(?:^|[。,!\n ])(?:无法|無法|不能)(?:提供|协助|協助|回答|帮|幫|满足|为您|为你)",
    ),
    "ja": rules(
        "ません|でき|かね|断り|控え|ai|人工知能|言語モデル|違法|適切|倫理|法律|犯罪",
        r"(?:お手伝い|お答え|回答|提供|協力|支援|対応|お教え|手助け|応じる|お応え|お力|アドバイス|ご案内|作成|説明|共有)[^。!?\n]{0,10}?"
        r"(?:できません|出来ません|できかね|いたしかね|致しかね|しかねます|できない|になれません|差し控え|控えさせ|控えます|お断り)",
        r"申し訳(?:ござい|あり)ません[^。!?\n]{0,60}?(?:できません|出来ません|かねます|控え|お断り|遠慮|られません)",
        r"(?:すみません|すいません|ごめんなさい|残念ながら)[^。!?\n]{0,50}?(?:できません|出来ません|かねます|控え|お断り|手伝えません|教えられません|答えられません)",
        r"お断り(?:し|いた|させ)|(?:手伝え|教えられ|答えられ|応じられ)ません",
        r"(?:ai|人工知能|言語モデル|aiアシスタント)(?:として|ですので|なので|であるため)",
        r"(?:違法(?:です|行為|であ|となり)|不適切です|倫理(?:的に問題|に反)|(?:適切|倫理的)ではありません|法律に(?:違反|反)|犯罪です)",
    ),
    "ko": rules(
        "없|못|않|어렵|어려워|불가|ai|인공지능|언어 모델|거절|불법|비윤리|부적절|위법",
        r"(?:도와|도움|제공|답변|알려|응답|지원|말씀|작성|안내|협조|설명|대답|드릴|따를|수행|가르쳐)[^.!?\n]{0,12}?"
        r"(?:수(?:가|는)? 없(?!이)|못 ?합니다|못 ?해요|않겠|어렵습|어려워|불가)",
        r"(?:죄송|미안|유감)[^.!?\n]{0,40}?(?:수(?:가|는)? 없|못 ?합니다|어렵습니다|않겠|불가)",
        r"(?:ai|인공지능|언어 모델)(?:로서|이기 때문|이라서|이므로)|거절(?:합니다|해야|하겠)",
        r"(?:불법|비윤리적|부적절|위법)(?:적인)?(?:이며|입니다|이고|하며|합니다|한 (?:일|요청)| ?행위)|적절하지 않습",
    ),
}
BANK = Bank(REFUSALS)


def refusing(head: str) -> str | None:
    """The language in which the folded text refuses; None where it does in none of them.

    >>> refusing("ich kann dabei nicht helfen."), refusing("ich kann es kaum erwarten.")
    ('de', None)
    """
    return BANK.first(head)
