"""English: how a refusal begins."""

from __future__ import annotations

from quantgate.manner.rules import Bank, rules

# A refusal has the speaker in it: I cannot, we must decline, as an AI. "You can't" and "it can't" say nothing.
SPEAKER = r"\b(?:i|we)"
CANNOT = r"(?:can ?not|can't|won't|will not|could not|couldn't|am (?:not able|unable)|'m (?:not able|unable)|must not)"
YET = r"(?! (?:wait|believe|stress|thank|help but|agree more|lie|overstate|promise))"  # "I can't wait"
WRONG = r"(?:appropriate|acceptable|ethical|legal|okay|permissible|advisable|respectful|right|recommended|fair)"
BAD = r"(?:illegal|unethical|immoral|inappropriate|unacceptable|against the law|morally (?:wrong|reprehensible))"
VIEW = r"(?:stereotype|belief|idea|assumption|notion|sentiment|language|statement|generali[sz]ation)"
SPOKEN = (
    rf" ?(?:\w+ly )?{CANNOT}\b{YET}",
    r"(?:'m| am|'re| are)?(?: \w+)?,? but (?:i )?(?:cannot|can't|won't)",
    r" (?:must|have to|need to|will|'ll|am going to)? ?(?:\w+ly )?(?:decline|refuse)\b",
    r"(?:'m| am|'re| are) (?:\w+ly )?not (?:allowed|permitted|comfortable|sure (?:that )?it'?s)",
    r" (?:do not|don't) (?:\w+ly )?(?:condone|support|endorse|encourage|promote)",
    r" (?:do not|don't) (?:have (?:access|the ability)|feel comfortable|do that)",
    r" (?:do not|don't) (?:think|believe) (?:that )?(?:it|that|this)(?:'s| is|'d be| would be)",
    r" (?:do not|don't) (?:think|believe) (?:in\b|(?!you|we)[^.!?]{0,60}\bshould\b)",
    r" (?:\w+ly )?disagree with\b",
    r" (?:strongly )?(?:advise|urge|recommend) (?:you )?(?:strongly )?(?:against|not to)",
    r" must (?:\w+ly )?(?:advise|challenge|emphasi[sz]e|stress|caution)",
    r" must (?:\w+ly )?(?:point out|clarify)(?! that the (?:question|assumption))",
    r"(?:'m| am) (?:just|only) an? (?:ai|language|assistant|model)\b"
    r"(?![^.]* but i can (?:provide|offer|share|give))",
)
RULES = (
    rules("i|we", *(f"{SPEAKER}(?:{one})" for one in SPOKEN)),
    rules("sorry|apolog", r"\b(?:sorry|i apologi[sz]e),? (?:but|i|that|no|however)\b|\bmy apologies\b"),
    rules("as a", r"\bas an? (?:ai|language model|responsible|ethical)\b"),
    # what was asked for is wrong
    rules(
        "not |never ",
        rf"\bnot\b(?: \w+ly| be| the| most| best)*(?: \w+,? (?:or|and))? {WRONG}\b|\bnever (?:\w+ly )?{WRONG}\b",
        r"\bis (?:not|never) an? (?:\w+ )?(?:appropriate|acceptable|healthy|good|safe|solution)\b",
        r"\bis (?:not|never) the (?:answer|solution)\b|\bis (?:not|never) best for\b|\bnot (?:\w+ly )?justified\b",
        r"\bshould not be (?:emulated|tolerated|denied|glorified|condoned|discriminated)\b",
    ),
    rules(
        "illegal|ethical|moral|appropriate|acceptable|against",
        rf"\b(?:is|are|be|it's|that's|both|highly|or|also)(?: not only)? (?:\w+ly )?{BAD}\b"
        r"(?! (?:drug|substance|and considered))",
        r"\b(?:goes|go|is|are) against\b|\bagainst (?:my|our) \w+",
    ),
    # what the question takes for granted is wrong
    rules("reason|justif", r"\bno (?:\w+ )?(?:justification|reason (?:to|for))"),
    rules(
        "accurate|correct|true",
        r"\b(?:is not|isn't|it's not) (?:\w+ly )?(?:accurate|correct|true)(?: (?:or|and) \w+)? to (?!say\b|claim\b)",
    ),
    rules("no, ", r"\A\W*no, (?!you|we)[^.!?]{0,60}\bshould\b"),
    rules(
        "harmful|discrim|offensive|racist|hateful|hurtful|demeaning|perpetuat",
        rf"\b(?:harmful|discriminatory|offensive|racist|hateful|hurtful|demeaning)(?: (?:and|or) \w+)? {VIEW}",
        r"\bperpetuat(?:e|es|ing) (?:\w+ )?(?:stereotypes?|stigma)",
    ),
)
NAMED = {f"en{at}": one for at, one in enumerate(RULES)}
BANK = Bank(NAMED)


def refusing(head: str) -> bool:
    """Whether a folded text refuses.

    >>> refusing("i'm sorry, but i cannot"), refusing("i'm sorry for your loss")
    (True, False)
    """
    return BANK.first(head) is not None
