"""Noisy text: what people type in a hurry. Known misspellings and chat spellings (English), and signs of any language.

A sign is counted per word; a text is noisy when one word in twenty shows one, and at least two do. Known misspellings
alone need only be two. Rare correct words are no noise: they are jargon (``jargon.py``).
"""

from __future__ import annotations

import re

READ = 4000  # characters that are looked at
FEWEST, SHARE = 2, 0.05
_MISSPELT = """
    teh hte adn nad taht thsi thier recieve recieved definately seperate seperately occured untill wich becuase
    becasue beacuse goverment enviroment adress begining beleive calender cemetary collegue comming commited
    concious dissapear embarass existance familar finaly foward freind greatful happend harrass immediatly
    independant knowlege liason libary maintainance neccessary neccesary noticable ocasion occassion orginal
    paralell peice percieve persistant posession prefered priviledge probly publically reccomend recomend refering
    relevent religous remeber resistence responsability succesful sucessful suprise tommorow tommorrow tounge truely
    unforseen wierd writting yuo waht whta hwo cna oyu jsut dont doesnt cant wont isnt didnt shouldnt couldnt
    wouldnt thats whats im ive youre theyre lets alot plese pleese
"""
MISSPELT = frozenset(_MISSPELT.split())
_CHAT = """
    u ur pls plz plss thx thnx tnx ty btw idk imo imho omg lol lmao rofl wtf gonna wanna gotta gimme lemme cuz coz
    bc tho thru b4 l8r gr8 m8 2day 2moro tmrw msg ppl sth smth ofc rn asap dunno kinda sorta ya yea yep nope
"""
CHAT = frozenset(_CHAT.split())
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
SURFACE = (
    re.compile(r"([^\W\d_])\1\1"),  # sooo
    re.compile(r"[!?]{3,}|,,|(?<=[^\W\d_]) [,?!](?=\s|$)|(?<=[a-z]{2}),(?=[a-z]{2})"),  # ???, "word ,", "word,word"
    re.compile(r"\u00c3[\u0080-\u00bf\u2018-\u203a]|\u00e2\u20ac|\ufffd"),  # UTF-8 that was read as Latin-1
    re.compile(r"\b[a-z]*[bcdfghjklmnpqrstvwxz]{6,}[a-z]*\b"),  # a hand that slipped
    re.compile(r"\b[a-z]{2,}[A-Z]{2,}[a-z]+\b"),  # lEFT shift
)
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`]*`|https?://\S+", re.DOTALL)


def is_noisy(text: str) -> bool:
    """Whether a person's text shows many slips.

    >>> is_noisy("pls teh report asap,i cant open it!!!"), is_noisy("Please send the report, I cannot open it.")
    (True, False)
    """
    text = CODE.sub(" ", text[:READ])
    words = [word.casefold() for word in WORD.findall(text)]
    misspelt = sum(word in MISSPELT for word in words)
    signs = misspelt + sum(word in CHAT for word in words) + sum(len(one.findall(text)) for one in SURFACE)
    return signs >= FEWEST and (signs >= SHARE * len(words) or misspelt >= FEWEST)
