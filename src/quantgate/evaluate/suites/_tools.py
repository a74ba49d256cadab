"""The tool library of the suite ``json_tools``: schemas, how their values are drawn, and how a person asks for them.

A tool's ``fields`` is a tree: a leaf is a ``Field``, a dict is a nested object. Leaf names are unique inside a tool, so
a request template names them plainly: ``"Wake me at {hour}:{minute}."``. Two tools of one family are near twins: their
arguments are alike and the verb alone tells them apart.
"""
# ruff: noqa: SIM905 - lists of strings would fill the page

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

CITIES = "Rome Oslo Paris Lima Cairo Delhi Tokyo Berlin Madrid Vienna Dublin Athens Prague Boston Lagos Quito".split()
PEOPLE = "Anna Ben Clara David Emma Frank Grace Henry Ivy Jack Kate Leo Maria Nina Oscar Paul Rosa Sam Tom Vera".split()
LAST_NAMES = "Baker Cook Fisher Hill Hunter Lake Mason Miller Stone Wood Young Carter".split()
STREETS = [f"{name} Street" for name in "Oak Pine Lake Hill Park River Mill Church Garden Market Rose North".split()]
PLACES = [
    f"{color} {thing}" for color in "Blue Red Green Old Golden".split() for thing in "Door Fish Garden Moon".split()
]
VERBS = "call find meet pay thank ask visit help".split()
NOUNS = "bank doctor teacher garage school boss neighbor library office team".split()
TEXTS = [f"{verb} the {noun}" for verb in VERBS for noun in NOUNS]
LABELS = "work school gym lunch train tea walk bus party meeting".split()
FOODS = "tea coffee soup rice pasta salad bread cake fish juice water milk".split()
ROOMS = "kitchen bedroom bathroom hall office garage".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
LANGUAGES = "french german spanish italian dutch greek polish danish".split()
LENGTHS = "meters feet miles yards inches".split()
MONEY = "usd eur gbp jpy".split()


@dataclass(frozen=True)
class Field:
    schema: dict[str, Any]
    draw: Callable[[random.Random], Any]
    say: Callable[[Any], str] = str
    change: bool = True  # a follow-up may name this field and a new value for it


Tree = dict[str, "Field | Tree"]


@dataclass(frozen=True)
class Tool:
    family: str
    names: tuple[str, ...]  # the same tool under another name; the listed one is the right one
    fields: Tree
    requests: tuple[str, ...]

    @property
    def nested(self) -> bool:
        return any(isinstance(field, dict) or field.schema.get("type") == "array" for field in self.fields.values())

    @property
    def changeable(self) -> list[tuple[str, Field]]:
        return [(name, field) for name, field in leaves(self.fields) if field.change]

    @property
    def deep(self) -> bool:
        inner = [field for field in self.fields.values() if isinstance(field, dict)]
        return any(isinstance(field, dict) for tree in inner for field in tree.values())


def leaves(tree: Tree) -> Iterator[tuple[str, Field]]:
    for name, field in tree.items():
        if isinstance(field, dict):
            yield from leaves(field)
        else:
            yield name, field


def schema_of(tree: Tree) -> dict[str, Any]:
    """JSON schema of every property of a tree."""
    return {
        name: {"type": "object", "properties": schema_of(field)} if isinstance(field, dict) else field.schema
        for name, field in tree.items()
    }


def fill(tree: Tree, values: dict[str, Any]) -> dict[str, Any]:
    """The arguments: a tree's shape with the leaves' values, in the tree's order."""
    return {name: fill(field, values) if isinstance(field, dict) else values[name] for name, field in tree.items()}


def shuffled(tree: Tree, rng: random.Random) -> Tree:
    """The same tree with its properties in another order, on every level."""
    names = rng.sample(list(tree), len(tree))
    return {name: shuffled(field, rng) if isinstance(field := tree[name], dict) else field for name in names}


def text(words: list[str], *, quoted: bool = False) -> Field:
    return Field({"type": "string"}, lambda rng: rng.choice(words), (lambda v: f'"{v}"') if quoted else str)


def number(low: int, high: int) -> Field:
    return Field({"type": "integer"}, lambda rng: rng.randint(low, high))


def choice(options: list[str]) -> Field:
    return Field({"enum": options}, lambda rng: rng.choice(options))


def flag(yes: str, no: str) -> Field:
    return Field({"type": "boolean"}, lambda rng: rng.random() < 0.5, lambda v: yes if v else no, change=False)


def _said(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


MINUTE = Field({"type": "integer"}, lambda rng: rng.randrange(60), "{:02d}".format, change=False)
DATE = Field({"type": "string"}, lambda rng: f"2027-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}")
SYMBOL = Field({"type": "string"}, lambda rng: "".join(rng.choice("BCDFGKLMNPRSTVXZ") for _ in range(3)))
ITEMS = Field(
    {
        "type": "array",
        "items": {"type": "object", "properties": {"item": {"type": "string"}, "count": {"type": "integer"}}},
    },
    lambda rng: [{"item": food, "count": rng.randint(1, 12)} for food in rng.sample(FOODS, rng.randint(1, 3))],
    lambda v: _said([f"{one['count']} {one['item']}" for one in v]),
    change=False,
)
NAMES = Field(
    {"type": "array", "items": {"type": "string"}},
    lambda rng: rng.sample(PEOPLE, rng.randint(2, 3)),
    _said,
    change=False,
)

_WEATHER: Tree = {"city": text(CITIES), "days": number(2, 30), "unit": choice(["celsius", "fahrenheit"])}
_ALARM: Tree = {"hour": number(0, 23), "minute": MINUTE, "label": text(LABELS)}
_EMAIL: Tree = {"person": text(PEOPLE), "subject": text(TEXTS, quoted=True), "urgent": flag("urgent", "not urgent")}
_MONEY: Tree = {"person": text(PEOPLE), "amount": number(5, 999), "currency": choice(MONEY)}
_TABLE: Tree = {"place": text(PLACES), "people": number(2, 20), "hour": number(9, 23)}
_MUSIC: Tree = {
    "style": choice("jazz rock pop folk opera blues".split()),
    "minutes": number(5, 120),
    "shuffle": flag("shuffled", "not shuffled"),
}
_FLIGHT: Tree = {"origin": text(CITIES), "destination": text(CITIES), "date": DATE}
_EVENT: Tree = {
    "title": text(TEXTS, quoted=True),
    "day": text(DAYS),
    "place": {"city": text(CITIES), "street": text(STREETS)},
}
_REMINDER: Tree = {"text": text(TEXTS, quoted=True), "day": text(DAYS), "hour": number(6, 22)}
_TEXT: Tree = {"text": text(TEXTS, quoted=True), "language": text(LANGUAGES)}
_PACKAGE: Tree = {"kilos": number(1, 60), "to": {"name": text(PEOPLE), "city": text(CITIES), "street": text(STREETS)}}
_HOTEL: Tree = {
    "city": text(CITIES),
    "nights": number(1, 21),
    "guest": {"first_name": text(PEOPLE), "last_name": text(LAST_NAMES)},
}
_MEETING: Tree = {"people": NAMES, "day": text(DAYS), "hour": number(8, 18)}
_BOX: Tree = {
    "box": {"kilos": number(1, 60), "size": {"width": number(5, 99), "height": number(5, 99)}},
    "to": {"city": text(CITIES), "street": text(STREETS)},
}
_FLAT: Tree = {
    "rooms": number(1, 6),
    "place": {"city": text(CITIES), "owner": {"first_name": text(PEOPLE), "last_name": text(LAST_NAMES)}},
    "rent": {"amount": number(200, 3000), "currency": choice(MONEY)},
}

TOOLS = (
    Tool("weather", ("get_weather", "weather_forecast"), _WEATHER, (
        "What will the weather be in {city} for the next {days} days, in {unit}?",
        "Get the weather in {city} for the next {days} days in {unit}.",
        "I need the {unit} weather for {city}, the next {days} days.",
    )),
    Tool("weather", ("get_past_weather", "weather_history"), _WEATHER, (
        "What was the weather in {city} over the last {days} days, in {unit}?",
        "Get the weather in {city} for the last {days} days in {unit}.",
        "I need the {unit} weather for {city}, the last {days} days.",
    )),
    Tool("alarm", ("set_alarm", "add_alarm"), _ALARM, (
        "Set an alarm for {hour}:{minute} called {label}.",
        "I need a {label} alarm at {hour}:{minute}.",
        "Please add the alarm {label} at {hour}:{minute}.",
    )),
    Tool("alarm", ("delete_alarm", "remove_alarm"), _ALARM, (
        "Delete the alarm for {hour}:{minute} called {label}.",
        "I do not need the {label} alarm at {hour}:{minute} any more.",
        "Please remove the alarm {label} at {hour}:{minute}.",
    )),
    Tool("email", ("send_email", "write_email"), _EMAIL, (
        "Send {person} an email about {subject}, {urgent}.",
        "Email {person} now with the subject {subject}, it is {urgent}.",
    )),
    Tool("email", ("draft_email", "save_email"), _EMAIL, (
        "Only save a draft email to {person} about {subject}, {urgent}.",
        "Do not send it yet: draft an email to {person} with the subject {subject}, it is {urgent}.",
    )),
    Tool("money", ("send_money", "pay_person"), _MONEY, (
        "Send {amount} {currency} to {person}.",
        "Pay {person} {amount} {currency}.",
        "I owe {person} {amount} {currency}, please send it.",
    )),
    Tool("money", ("request_money", "ask_money"), _MONEY, (
        "Request {amount} {currency} from {person}.",
        "Ask {person} for {amount} {currency}.",
        "{person} owes me {amount} {currency}, please ask for it.",
    )),
    Tool("table", ("book_table", "reserve_table"), _TABLE, (
        "Book a table at {place} for {people} people at {hour}:00.",
        "We are {people} people, get us a table at {place} at {hour}:00.",
    )),
    Tool("table", ("cancel_table", "drop_table"), _TABLE, (
        "Cancel our table at {place} for {people} people at {hour}:00.",
        "We were {people} people, cancel the table at {place} at {hour}:00.",
    )),
    Tool("music", ("play_music", "start_music"), _MUSIC, (
        "Play {style} music for {minutes} minutes, {shuffle}.",
        "I want to hear {minutes} minutes of {style}, {shuffle}.",
    )),
    Tool("music", ("download_music", "save_music"), _MUSIC, (
        "Download {minutes} minutes of {style} music, {shuffle}.",
        "I want to save {minutes} minutes of {style}, {shuffle}.",
    )),
    Tool("flight", ("search_flights", "find_flights"), _FLIGHT, (
        "Find flights from {origin} to {destination} on {date}.",
        "Which flights go from {origin} to {destination} on {date}?",
    )),
    Tool("flight", ("book_flight", "buy_flight"), _FLIGHT, (
        "Book a flight from {origin} to {destination} on {date}.",
        "Buy me a seat from {origin} to {destination} on {date}.",
    )),
    Tool("units", ("convert_units", "change_units"), {
        "value": number(2, 999), "from_unit": choice(LENGTHS), "to_unit": choice(LENGTHS)}, (
        "Convert {value} {from_unit} to {to_unit}.",
        "How many {to_unit} are {value} {from_unit}?",
    )),
    Tool("units", ("convert_money", "change_money"), {
        "value": number(2, 999), "from_money": choice(MONEY), "to_money": choice(MONEY)}, (
        "Convert {value} {from_money} to {to_money}.",
        "How many {to_money} are {value} {from_money}?",
    )),
    Tool("light", ("set_light", "change_light"), {
        "room": text(ROOMS), "color": choice("white red green blue".split()), "percent": number(1, 99)}, (
        "Make the light in the {room} {color} at {percent} percent.",
        "Set the {room} light to {color}, {percent} percent.",
    )),
    Tool("light", ("set_heater", "change_heater"), {
        "room": text(ROOMS), "degrees": number(12, 30), "minutes": number(5, 120)}, (
        "Heat the {room} to {degrees} degrees for {minutes} minutes.",
        "Set the {room} heater to {degrees} degrees for {minutes} minutes.",
    )),
    Tool("translate", ("translate_text", "text_to_language"), _TEXT, (
        "Translate {text} into {language}.",
        "How do you write {text} in {language}?",
    )),
    Tool("translate", ("speak_text", "read_text"), _TEXT, (
        "Read {text} out loud in {language}.",
        "Say {text} out loud in {language}.",
    )),
    Tool("reminder", ("set_reminder", "add_reminder"), _REMINDER, (
        "Remind me to {text} on {day} at {hour}:00.",
        "Set a reminder {text} for {day} at {hour}:00.",
    )),
    Tool("reminder", ("delete_reminder", "remove_reminder"), _REMINDER, (
        "Do not remind me to {text} on {day} at {hour}:00 any more.",
        "Delete the reminder {text} for {day} at {hour}:00.",
    )),
    Tool("stock", ("get_stock", "stock_price"), {"symbol": SYMBOL, "days": number(2, 90)}, (
        "What was the price of the stock {symbol} over the last {days} days?",
        "Show me the stock {symbol} for the last {days} days.",
    )),
    Tool("stock", ("buy_stock", "order_stock"), {"symbol": SYMBOL, "count": number(2, 90)}, (
        "Buy {count} shares of the stock {symbol}.",
        "I want {count} shares of {symbol}.",
    )),
    Tool("event", ("create_event", "add_event"), _EVENT, (
        "Create the event {title} on {day} in {city}, {street}.",
        "Add {title} to my calendar on {day}, at {street} in {city}.",
    )),
    Tool("event", ("cancel_event", "delete_event"), _EVENT, (
        "Cancel the event {title} on {day} in {city}, {street}.",
        "Take {title} out of my calendar on {day}, at {street} in {city}.",
    )),
    Tool("food", ("order_food", "buy_food"), {
        "items": ITEMS, "address": {"street": text(STREETS), "number": number(1, 99)}}, (
        "Order {items} to {street} {number}.",
        "I want {items} brought to {street} {number}.",
    )),
    Tool("food", ("price_food", "food_cost"), {
        "items": ITEMS, "delivery": flag("with delivery", "without delivery")}, (
        "How much are {items}, {delivery}?",
        "Tell me the price of {items}, {delivery}.",
    )),
    Tool("package", ("send_package", "ship_package"), _PACKAGE, (
        "Send a package of {kilos} kilos to {name} in {city}, {street}.",
        "Ship {kilos} kilos to {name}, {street} in {city}.",
    )),
    Tool("package", ("price_package", "package_cost"), _PACKAGE, (
        "How much is a package of {kilos} kilos to {name} in {city}, {street}?",
        "Tell me the price for {kilos} kilos to {name}, {street} in {city}.",
    )),
    Tool("hotel", ("book_hotel", "reserve_hotel"), _HOTEL, (
        "Book a hotel in {city} for {nights} nights for {first_name} {last_name}.",
        "{first_name} {last_name} needs a hotel in {city} for {nights} nights.",
    )),
    Tool("hotel", ("cancel_hotel", "drop_hotel"), _HOTEL, (
        "Cancel the hotel in {city} for {nights} nights for {first_name} {last_name}.",
        "{first_name} {last_name} does not need the hotel in {city} for {nights} nights any more.",
    )),
    Tool("meeting", ("plan_meeting", "set_meeting"), _MEETING, (
        "Plan a meeting with {people} on {day} at {hour}:00.",
        "I want to meet {people} on {day} at {hour}:00.",
    )),
    Tool("meeting", ("cancel_meeting", "delete_meeting"), _MEETING, (
        "Cancel the meeting with {people} on {day} at {hour}:00.",
        "I can not meet {people} on {day} at {hour}:00, delete the meeting.",
    )),
    Tool("box", ("send_box", "ship_box"), _BOX, (
        "Send a box of {kilos} kilos, {width} wide and {height} high, to {street} in {city}.",
        "Ship a box, {width} wide, {height} high and {kilos} kilos, to {city}, {street}.",
    )),
    Tool("box", ("price_box", "box_cost"), _BOX, (
        "How much is a box of {kilos} kilos, {width} wide and {height} high, to {street} in {city}?",
        "Tell me the price of a box, {width} wide, {height} high and {kilos} kilos, to {city}, {street}.",
    )),
    Tool("flat", ("rent_flat", "take_flat"), _FLAT, (
        "Rent the flat of {first_name} {last_name} in {city} with {rooms} rooms for {amount} {currency}.",
        "I take the flat with {rooms} rooms in {city} from {first_name} {last_name} for {amount} {currency}.",
    )),
    Tool("flat", ("list_flat", "offer_flat"), _FLAT, (
        "Offer the flat of {first_name} {last_name} in {city} with {rooms} rooms for {amount} {currency}.",
        "List a flat with {rooms} rooms in {city}, owner {first_name} {last_name}, for {amount} {currency}.",
    )),
)  # fmt: skip


# What no tool of the library does, said with words that its tools are asked with.
ELSEWHERE = (
    ("joke", "Tell me a joke about {food} and a {noun}."),
    ("poem", "Write a poem about {city} for {person}."),
    ("capital", "Is {city} larger than {other}?"),
    ("taste", "Why does {person} like {food} more than {drink}?"),
    ("recipe", "How do I cook {food} with {drink} for {count} people?"),
    ("sum", "What is {count} plus {more}?"),
    ("age", "How old is {person}, if {friend} is {count}?"),
    ("history", "Who built the {noun} of {city}?"),
    ("opinion", "Should I trust {person} or {friend}?"),
    ("gift", "What can I give {person} for {count} {currency}?"),
    ("learning", "How hard is {language} for someone from {city}?"),
    ("cleaning", "What helps against {drink} on the floor of the {room}?"),
    ("game", "Explain the rules of a game for {count} people in the {room}."),
    ("match", "Who won in {city} last {day}, {person} or {friend}?"),
    ("habit", "Is it healthy to have {food} every {day}?"),
    ("story", "Write a story about {person} and {friend} in {city}."),
    ("meaning", "What does it mean when {person} says {text}?"),
    ("route", "Which rivers are there between {city} and {other}?"),
)


def elsewhere(rng: random.Random) -> tuple[str, str]:
    """A request that no tool serves: which problem it is, and its text."""
    kind, text = rng.choice(ELSEWHERE)
    city, other = rng.sample(CITIES, 2)
    person, friend = rng.sample(PEOPLE, 2)
    food, drink = rng.sample(FOODS, 2)
    asked = text.format(
        city=city,
        other=other,
        person=person,
        friend=friend,
        food=food,
        drink=drink,
        count=rng.randint(2, 60),
        more=rng.randint(2, 60),
        noun=rng.choice(NOUNS),
        room=rng.choice(ROOMS),
        day=rng.choice(DAYS),
        currency=rng.choice(MONEY),
        language=rng.choice(LANGUAGES),
        text=rng.choice(TEXTS),
    )
    return f"{kind} {asked}", asked
