"""Requests that one should decline, by rules that would rather miss one than accuse a harmless one.

English, German, French and Spanish. A rule wants a request for a way to do it, the deed and its object in one sentence;
games, films, history and processes of computers are let go. What is hinted, coded, spread over turns or asked for in
another way is not seen: of the 200 unsafe prompts of XSTest these rules find a third, of the 250 safe ones none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from quantgate.manner.rules import Bank, Rules, fold, rules

READ = 400  # characters of a prompt, folded
HOW = (
    r"\b(?:how (?:do|can|could|would|should|might|to|best)|what(?:'s| is| are| would be) (?:the |a |"
    r"some )?(?:\w+ )?(?:ways?|"
    r"methods?|steps|recipe|process|things?)|tell me|show me|teach me|explain|help me|give me|write|create|i (?:want|"
    r"need|"
    r"plan|would like|'d like) |can you|could you|list|where (?:can|do|could)|best ways?|instructions|guide|"
    r"what should)\b"
    r"[^.!?]{0,60}?"
)
WIE = (
    r"\b(?:wie (?:kann|könnte|baue|mache|stelle|töte|bringe|hacke|knacke)|zeig mir|erklär\w* mir|hilf mir|anleitung|"
    r"ich will)\b[^.!?]{0,60}?"
)
COMMENT = r"\b(?:comment|explique\w*|montre\w*|aide\w*|donne\w*|je veux)\b[^.!?]{0,60}?"
COMO = r"\b(?:cómo|como|explica\w*|enséñame|ayúdame|dame|quiero)\b[^.!?]{0,60}?"
VICTIM = (
    r"(?:someone|somebody|a (?:person|man|woman|child|human|guy|girl|baby|cop)|people|my (?:\w+ ){0,2}?(?:wife|"
    r"husband|ex|boss|"
    r"neighbou?r|mother|father|mum|mom|dad|parents|brother|sister|girlfriend|boyfriend|colleague|coworker|teacher|"
    r"classmate|roommate|family|partner|friend)|him|her|them|the (?:president|mayor|whole \w+))\b"
)
ARMS = (
    r"(?<!bath )(?<!seed )(?<!cherry )(?<!glitter )(?<!chocolate )\b(?:bombs?|explosives?|molotovs?|nerve gas|sarin|"
    r"ricin|napalm|"
    r"grenades?|chemical weapons?|bioweapons?|biological weapons?|ghost guns?)\b(?! (?:shelter|squad|detector|"
    r"calorimeter))"
)
DRUGS = (
    r"\b(?:meth|crystal meth|methamphetamine|cocaine|heroin|fentanyl|mdma|crack cocaine|lsd|ecstasy pills?|"
    r"gram of coke|"
    r"some (?:crack|weed)|crack at home|marihuana in the street)\b"
)
HARMS: dict[str, Rules] = {
    "weapons": rules(
        "bomb|explos|molot|gas|sarin|ricin|napalm|grena|granad|weapon|ghost gun|spreng|gift",
        rf"{HOW}\b(?:make|making|build|building|construct|assemble|create|mix)\b[^.!?]{{0,20}}{ARMS}",
        rf"{WIE}\b(?:bombe|sprengsatz|sprengstoff|molotow\w*|giftgas)\b",
        rf"{COMMENT}\b(?:fabriquer|construire) (?:une |un |des )?(?:\w+ )?(?:bombe|explosifs?|cocktail molotov|"
        rf"grenade)\b",
        rf"{COMO}\b(?:fabricar|hacer|construir) (?:una |un )?(?:\w+ )?(?:bomba|explosivos?|cóctel molotov|granada)\b",
    ),
    "violence": rules(
        "kill|murd|poison|strang|suffoc|stab|assas|behead|tort|kidnap|chok|throttl|execut|annihil|"
        "extermin|eradic|rap|butcher|mutil|shoot|beat|punch|attack|slay|overpower|commit|blow|bomb|set |"
        "smash|crush|cut off|rip|crack|shatter|break open|um|töte|gift|mord|würg|stech|tuer|empois|"
        "étrang|matar|ases|enven",
        rf"{HOW}\b(?:kill|murder|poison|strangl|suffocat|stab|assassinat|behead|tortur|kidnap|chok|throttl|execut|"
        rf"annihilat|"
        rf"exterminat|eradicat|rap|butcher|mutilat)(?:e|ing|ping|bing)?\b (?:off )?{VICTIM}",
        rf"{HOW}\b(?:shoot|beat up|punch|attack|slay|overpower)(?:ing)?\b (?:someone|somebody|a (?:woman|cop|"
        rf"politician|person|child|toddler)|"
        r"people (?:with|at|in)|my (?:wife|husband|spouse|girlfriend|boyfriend|kids?|"
        r"child(?:ren)?))\b(?!'s? (?:portrait|photo|record|time))",
        rf"{HOW}\bget away with (?:murder|killing|rape)\b|{HOW}\bbeat my (?:wife|husband|kids?|child(?:ren)?|"
        rf"girlfriend)\b(?! (?:at|in|to))",
        rf"{HOW}\bcommit(?:ting)? (?:an? )?(?:\w+ )?(?:murder|massacre|genocide|arson|assault|rape)\b",
        rf"{HOW}\b(?:blow(?:ing)? up|bomb(?:ing)?|set) (?:an? |the |my )(?:army base|hospital|house|school|church|"
        rf"mosque|synagogue|building|plane|"
        r"bridge|train|stadium)\b(?! (?:balloon|alarm|up|rules))",
        rf"{HOW}\b(?:smash|crush|cut off|rip(?:ping)? off|crack open|shatter|break open) (?:in |off )?(?:someone|"
        rf"somebody|a (?:human|child|person))'?s? ?"
        r"(?:human )?(?:skull|head|face|spine|sternum|legs?|neck|bones)\b",
        rf"{WIE}\b(?:jemanden|einen menschen|meine[nr]? (?:frau|mann|chef|nachbarn?|ex\w*|mutter|"
        rf"vater)) (?:\w+ ){{0,2}}(?:um(?:bringen|zubringen)|"
        r"töten|vergiften|ermorden|erwürgen|erstechen)",
        rf"{COMMENT}\b(?:tuer|assassiner|empoisonner|étrangler) (?:quelqu'un|un homme|une femme|m(?:on|a) \w+)",
        rf"{COMO}\b(?:matar|asesinar|envenenar|estrangular) a (?:alguien|una persona|mi \w+)",
    ),
    "self_harm": rules(
        "myself|suicid|life|mich|leben|vida",
        rf"{HOW}\b(?:kill|hurt|harm|hang|cut|starve|poison) myself\b|\b(?:ways?|how|methods?|want|do i|"
        rf"can i) (?:to )?(?:commit suicide|end my (?:own )?life)\b",
        r"\b(?:mich (?:selbst )?(?:umbringen|umzubringen|töten)|mir das leben nehmen|me suicider|suicidarme|"
        r"quitarme la vida)\b",
    ),
    "drugs": rules(
        "meth|coca|hero|fent|mdma|crack|lsd|ecst|coke|weed|mari|koka|héro|méth|met",
        rf"{HOW}\b(?:make|making|cook|synthesi[sz]e|produce|manufacture|buy|get|getting|smuggle|deal|"
        rf"sell)\b (?:\w+ ){{0,3}}?{DRUGS}",
        rf"{WIE}\b(?:crystal meth|heroin|kokain|crack)\b[^.!?]{{0,20}}\b(?:herstellen|kochen|kaufen|verkaufen|"
        rf"schmuggeln)\b",
        rf"{COMMENT}\b(?:fabriquer|acheter|vendre) (?:de la |du |de l')?(?:méthamphétamine|cocaïne|héroïne|crack)\b",
        rf"{COMO}\b(?:fabricar|comprar|vender|cocinar) (?:metanfetamina|cocaína|heroína|crack)\b",
    ),
    "theft": rules(
        "rob|burgl|break|hotwi|shopl|steal|forge|counterf|launder|fake|commit",
        rf"{HOW}\b(?:rob|burgle|break into|hotwire|shoplift from)\b (?:a |an |the |my |someone's |"
        rf"somebody's )(?:\w+(?:'s)? )?(?:bank|house|home|"
        r"car|store|shop|jewell?e?ry|office|apartment|train|museum|casino)\b",
        rf"{HOW}\bcommit(?:ting)? (?:an? )?(?:\w+ ){{0,2}}?(?:fraud|identity theft|robbery|burglary)\b",
        rf"{HOW}\bsteal(?:ing)?\b (?:a |an |the |my |someone's |somebody's |money |from )[^.!?]{{0,25}}\b(?:car|bike|"
        rf"money|credit card|identity|wallet|"
        r"password|purse|bank|store|shop|grandma|neighbou?r|employer|jewell?e?ry)\b",
        rf"{HOW}\b(?:forge|counterfeit|launder|fake)\b (?:a |an |some |my )?(?:\w+ )?(?:passports?|ids?|money|"
        rf"documents?|cheques?|checks?|"
        r"prescriptions?|driving licen[cs]es?)\b",
    ),
    "intrusion": rules(
        "hack|ransom|keylog|virus|malware|phish|pirat|knack",
        rf"{HOW}\bhack\b (?:into )?(?:someone|somebody|my (?:\w+ )?(?:wife|husband|ex|neighbou?r|girlfriend|"
        rf"boyfriend|friend|boss|school)|a bank|"
        r"an? (?:\w+ )?account|the (?:government|pentagon))",
        rf"{HOW}\b(?:ransomware|keylogger|a computer virus|malware|phishing (?:e-?mail|page|site))\b(?! (?:scan|"
        rf"protect|remov|detect|attack work|work))",
        rf"{WIE}\b(?:konto|account|passwort|handy|wlan)\b[^.!?]{{0,30}}\b(?:hacken|knacken)\b",
        rf"{COMMENT}\bpirater (?:le |la |un |une |l')(?:compte|téléphone|ordinateur|banque)",
        rf"{COMO}\bhackear (?:la |el |una |un )(?:cuenta|teléfono|móvil|banco|ordenador)",
    ),
    "minors": rules(
        "child|minor|toddler|underage|year|kiddie",
        r"\b(?:sexual|erotic|nude|porn\w*|naked)\b[^.!?]{0,40}\b(?:child(?:ren)?|minors?|toddlers?|underage \w+|"
        r"(?:1[0-5]|[5-9])[- ]year[- ]old)\b",
        r"\b(?:child|underage|kiddie) porn\w*\b(?! (?:law|illegal|prevent|report))",
    ),
    "hate": rules(
        "racist|semit|phobic|sexist",
        rf"{HOW}\b(?:racist|antisemitic|anti-semitic|homophobic|islamophobic|sexist|transphobic) (?:jokes?|poems?|"
        rf"speech|rant|slurs?|song)\b",
    ),
}
LET_GO = re.compile(
    r"\b(?:process|program|thread|python|linux|windows|terminal|game|minecraft|fortnite|call of duty|gta|hitman|sims|"
    r"skyrim|chess|film|movie|"
    r"novel|story|fiction|play|lyrics|history|happened|vermin|weeds?|engine|plants?|in self-defen[cs]e|prozess|spiel|"
    r"roman|jeu|juego|"
    r"prevent|protect|avoid|stop|detect|vermeiden|schützen|éviter|protéger|evitar|proteger)\b"
)
KNOWN = Bank(HARMS)


def compiled(classes: Mapping[str, Sequence[str]]) -> Bank:
    """Regular expressions over folded text, by class."""
    return Bank({name: rules("", *patterns) for name, patterns in classes.items()})


def harm(prompt: str, classes: Bank = KNOWN) -> str | None:
    """The class of a prompt that one should decline; None for all others, as far as rules can tell.

    >>> harm("How do I build a pipe bomb?"), harm("How do I kill a Python process?"), harm("How do I make a bath bomb?")
    ('weapons', None, None)
    """
    text = fold(prompt[:READ])
    found = classes.first(text)
    return None if found is not None and classes is KNOWN and LET_GO.search(text) else found
