"""English: how a refusal begins."""

from __future__ import annotations

# A refusal has the speaker in it: I cannot, we must decline, as an AI. "You can't" and "it can't" say nothing.
CANNOT = r"(?:can ?not|can't|won't|will not|could not|couldn't|am (?:not able|unable)|'m (?:not able|unable)|must not)"
SPEAKER = r"\b(?:i|we)"
WRONG = r"(?:appropriate|acceptable|ethical|legal|okay|permissible|advisable|respectful|right|recommended|fair)"
BAD = r"(?:illegal|unethical|immoral|inappropriate|unacceptable|against the law|morally (?:wrong|reprehensible))"
VIEW = r"(?:stereotype|belief|idea|assumption|notion|sentiment|language|statement|generali[sz]ation)"
REFUSALS = "|".join(
    (
        # the speaker cannot or will not
        rf"{SPEAKER} ?(?:\w+ly )?{CANNOT}\b(?! (?:wait|believe|stress|thank|help but|agree more|lie|overstate|"
        rf"promise))",
        rf"{SPEAKER}(?:'m| am|'re| are)?(?: \w+)?,? but (?:i )?(?:cannot|can't|won't)",
        rf"{SPEAKER} (?:must|have to|need to|will|'ll|am going to)? ?(?:\w+ly )?(?:decline|refuse)\b",
        rf"{SPEAKER}(?:'m| am|'re| are) (?:\w+ly )?not (?:allowed|permitted|comfortable|sure (?:that )?it'?s)",
        rf"{SPEAKER} (?:do not|don't) (?:\w+ly )?(?:condone|support|endorse|encourage|promote)",
        rf"{SPEAKER} (?:do not|don't) (?:have (?:access|the ability)|feel comfortable|do that)",
        rf"{SPEAKER} (?:do not|don't) (?:think|believe) (?:that )?(?:it|that|this)(?:'s| is|'d be| would be)",
        rf"{SPEAKER} (?:strongly )?(?:advise|urge|recommend) (?:you )?(?:strongly )?(?:against|not to)",
        rf"{SPEAKER} must (?:\w+ly )?(?:advise|challenge|emphasi[sz]e|stress|caution|(?:point out|"
        rf"clarify)(?! that the (?:question|assumption)))",
        r"\b(?:sorry|i apologi[sz]e),? (?:but|i|that|no|however)\b|\bmy apologies\b",
        r"\bas an? (?:ai|language model|responsible|ethical)\b",
        r"\bi(?:'m| am) (?:just|only) an? (?:ai|language|assistant|model)\b(?![^.]* but i can (?:provide|offer|share|"
        r"give))",
        # what was asked for is wrong
        rf"\bnot\b(?: \w+ly| be| the| most| best)*(?: \w+,? (?:or|and))? {WRONG}\b|\bnever (?:\w+ly )?{WRONG}\b",
        rf"\b(?:is|are|be|it's|that's|both|highly|or|also)(?: not only)? (?:\w+ly )?{BAD}\b(?! (?:drug|substance|"
        rf"and considered))",
        r"\b(?:goes|go|is|are) against\b|\bagainst (?:my|our) \w+",
        r"\bis (?:not|never) an? (?:\w+ )?(?:appropriate|acceptable|healthy|good|safe|solution)\b",
        r"\bis (?:not|never) the (?:answer|solution)\b",
        # what the question takes for granted is wrong
        r"\bno (?:\w+ )?(?:justification|reason (?:to|for))|\bnot (?:\w+ly )?justified\b",
        r"\b(?:is not|isn't|it's not) (?:\w+ly )?(?:accurate|correct|true)(?: (?:or|and) \w+)? to (?!say\b|claim\b)",
        rf"{SPEAKER} (?:do not|don't) (?:think|believe) (?:in\b|(?!you|we)[^.!?]{{0,60}}\bshould\b)",
        rf"{SPEAKER} (?:\w+ly )?disagree with\b|\bis (?:not|never) best for\b|\A\W*no, (?!you|"
        rf"we)[^.!?]{{0,60}}\bshould\b",
        rf"\b(?:harmful|discriminatory|offensive|racist|hateful|hurtful|demeaning)(?: (?:and|or) \w+)? {VIEW}",
        r"\bperpetuat(?:e|es|ing) (?:\w+ )?(?:stereotypes?|stigma)",
        r"\bshould not be (?:emulated|tolerated|denied|glorified|condoned|discriminated)\b",
    )
)
