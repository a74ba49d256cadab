"""What the multilingual suite says in each language: words (the same place means the same thing) and sentences.

Words are chosen so that one form serves everywhere: things and goods are masculine in Spanish, French and Italian,
German colours stand after the verb, French foods all take ``du``. Names are written alike in the five languages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantgate.evaluate.suites import _number_words
from quantgate.evaluate.suites._number_words import words

NAMES = ("Anna", "Tom", "Lisa", "Paul", "Maria", "Leo", "Eva", "David", "Nina", "Peter", "Clara", "Martin")


@dataclass(frozen=True)
class Language:
    """One language. Tuples of words have the same order in all; ``say`` maps a sentence's name to its wordings."""

    of: Callable[[str], str]  # the possessive: "Anna's", "d'Anna"
    number: Callable[[int], str]  # 0 to 999 in words
    colours: tuple[str, ...]
    things: tuple[str, ...]
    cities: tuple[str, ...]
    foods: tuple[str, ...]
    goods: tuple[str, ...]  # in the plural
    fruits: tuple[str, ...]
    events: tuple[str, ...]  # with the article that starts a sentence, where the language wants one
    days: tuple[str, ...]  # from Monday
    months: tuple[str, ...]  # from January
    units: dict[str, tuple[str, str]]  # day and month after a number: one, many
    say: dict[str, tuple[str, ...]]
    some: str = ""  # the article before a food, where the language wants one: "du riz"


EN = Language(
    of=lambda name: f"{name}'s",
    number=_number_words.english,
    colours=words("red blue green black white yellow grey brown"),
    things=words("book hat coat phone sofa sweater knife ball"),
    cities=words("Rome Paris Berlin Madrid London Vienna Lisbon Prague Oslo Zurich"),
    foods=words("rice fish bread cheese chicken cake melon tuna"),
    goods=words("books lemons tomatoes melons plates glasses"),
    fruits=words("apple pear plum cherry banana lemon orange melon"),
    events=words("exam concert party trip match flight course appointment"),
    days=words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    months=words("January February March April May June July August September October November December"),
    units={"day": ("day", "days"), "month": ("month", "months")},
    say={
        "word only": ("Answer with one word.", "One word only."),
        "number only": ("Answer with the number only.", "Number only."),
        "digits only": ("Answer in digits.", "Digits only."),
        "colour": ("{of} {thing} is {colour}.",),
        "what colour": ("What colour is {of} {thing}?", "Which colour does {of} {thing} have?"),
        "whose": ("Whose {thing} is {colour}?", "Who owns the {colour} {thing}?"),
        "same colour": ("Whose {other} has the same colour as {of} {thing}?",),
        "life": ("{name} lives in {city} and eats {food}.",),
        "where": ("Where does {name} live?", "In which city does {name} live?"),
        "eats what": ("What does {name} eat?",),
        "lives in": ("Who lives in {city}?",),
        "eats": ("Who eats {food}?",),
        "eats there": ("What does the person in {city} eat?",),
        "same city": ("Who lives in the same city as {name}?",),
        "buys": ("{name} buys {n} {good}.",),
        "how many": ("How many {good} does {name} buy?",),
        "buyer": ("Who buys {n} {good}?",),
        "now day": ("Today is {at}.", "Yesterday was {at}.", "Tomorrow is {at}."),
        "now month": ("It is {at}.", "Last month was {at}.", "Next month is {at}."),
        "future": ("{of} {event} is in {n} {unit}.",),
        "past": ("{of} {event} was {n} {unit} ago.",),
        "which day": ("Which day is that?", "What day of the week is that?"),
        "which month": ("Which month is that?",),
        "largest": ("Which number is the largest: {list}?", "Find the largest number: {list}."),
        "smallest": ("Which number is the smallest: {list}?", "Find the smallest number: {list}."),
        "digits": ("Write in digits: {list}.", "Write these numbers in digits: {list}."),
        "plus": ("What is {a} plus {b}?", "How much is {a} plus {b}?"),
        "count": ("{list}: how often does {word} occur?", "How often is {word} in this list: {list}?"),
    },
)

DE = Language(
    of=lambda name: f"{name}s",
    number=_number_words.german,
    colours=words("rot blau grün schwarz weiß gelb grau braun"),
    things=words("Buch Hut Mantel Telefon Sofa Pullover Messer Ball"),
    cities=words("Rom Paris Berlin Madrid London Wien Lissabon Prag Oslo Zürich"),
    foods=words("Reis Fisch Brot Käse Huhn Kuchen Melone Thunfisch"),
    goods=words("Bücher Zitronen Tomaten Melonen Teller Gläser"),
    fruits=words("Apfel Birne Pflaume Kirsche Banane Zitrone Orange Melone"),
    events=words("Prüfung Konzert Feier Reise Spiel Flug Kurs Termin"),
    days=words("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"),
    months=words("Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
    units={"day": ("Tag", "Tagen"), "month": ("Monat", "Monaten")},
    say={
        "word only": ("Antworte mit einem Wort.", "Nur ein Wort."),
        "number only": ("Antworte nur mit der Zahl.", "Nur die Zahl."),
        "digits only": ("Antworte in Ziffern.", "Nur Ziffern."),
        "colour": ("{of} {thing} ist {colour}.",),
        "what colour": ("Welche Farbe hat {of} {thing}?", "In welcher Farbe ist {of} {thing}?"),
        "whose": ("Wessen {thing} ist {colour}?",),
        "same colour": ("Wessen {other} hat dieselbe Farbe wie {of} {thing}?",),
        "life": ("{name} wohnt in {city} und isst {food}.",),
        "where": ("Wo wohnt {name}?", "In welcher Stadt wohnt {name}?"),
        "eats what": ("Was isst {name}?",),
        "lives in": ("Wer wohnt in {city}?",),
        "eats": ("Wer isst {food}?",),
        "eats there": ("Was isst die Person in {city}?",),
        "same city": ("Wer wohnt in derselben Stadt wie {name}?",),
        "buys": ("{name} kauft {n} {good}.",),
        "how many": ("Wie viele {good} kauft {name}?",),
        "buyer": ("Wer kauft {n} {good}?",),
        "now day": ("Heute ist {at}.", "Gestern war {at}.", "Morgen ist {at}."),
        "now month": ("Es ist {at}.", "Der letzte Monat war {at}.", "Der nächste Monat ist {at}."),
        "future": ("{of} {event} ist in {n} {unit}.",),
        "past": ("{of} {event} war vor {n} {unit}.",),
        "which day": ("Welcher Tag ist das?", "Welcher Wochentag ist das?"),
        "which month": ("Welcher Monat ist das?",),
        "largest": ("Welche Zahl ist die größte: {list}?", "Finde die größte Zahl: {list}."),
        "smallest": ("Welche Zahl ist die kleinste: {list}?", "Finde die kleinste Zahl: {list}."),
        "digits": ("Schreibe in Ziffern: {list}.", "Schreibe diese Zahlen in Ziffern: {list}."),
        "plus": ("Was ist {a} plus {b}?", "Wie viel ist {a} plus {b}?"),
        "count": ("{list}: wie oft kommt {word} vor?", "Wie oft steht {word} in dieser Liste: {list}?"),
    },
)

ES = Language(
    of=lambda name: f"de {name}",
    number=_number_words.spanish,
    colours=words("rojo azul verde negro blanco amarillo gris marrón"),
    things=words("libro sombrero abrigo teléfono sofá jersey cuchillo balón"),
    cities=words("Roma París Berlín Madrid Londres Viena Lisboa Praga Oslo Zúrich"),
    foods=words("arroz pescado pan queso pollo pastel melón atún"),
    goods=words("libros limones tomates melones platos vasos"),
    fruits=words("manzana pera ciruela cereza plátano limón naranja melón"),
    events=(
        *("El examen", "El concierto", "La fiesta", "El viaje"),
        *("El partido", "El vuelo", "El curso", "La cita"),
    ),
    days=words("lunes martes miércoles jueves viernes sábado domingo"),
    months=words("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
    units={"day": ("día", "días"), "month": ("mes", "meses")},
    say={
        "word only": ("Responde con una palabra.", "Solo una palabra."),
        "number only": ("Responde solo con el número.", "Solo el número."),
        "digits only": ("Responde en cifras.", "Solo cifras."),
        "colour": ("El {thing} {of} es {colour}.",),
        "what colour": ("¿De qué color es el {thing} {of}?", "¿Qué color tiene el {thing} {of}?"),
        "whose": ("¿De quién es el {thing} {colour}?",),
        "same colour": ("¿De quién es el {other} del mismo color que el {thing} {of}?",),
        "life": ("{name} vive en {city} y come {food}.",),
        "where": ("¿Dónde vive {name}?", "¿En qué ciudad vive {name}?"),
        "eats what": ("¿Qué come {name}?",),
        "lives in": ("¿Quién vive en {city}?",),
        "eats": ("¿Quién come {food}?",),
        "eats there": ("¿Qué come la persona en {city}?",),
        "same city": ("¿Quién vive en la misma ciudad que {name}?",),
        "buys": ("{name} compra {n} {good}.",),
        "how many": ("¿Cuántos {good} compra {name}?",),
        "buyer": ("¿Quién compra {n} {good}?",),
        "now day": ("Hoy es {at}.", "Ayer fue {at}.", "Mañana es {at}."),
        "now month": ("Estamos en {at}.", "El mes pasado fue {at}.", "El próximo mes es {at}."),
        "future": ("{event} {of} es dentro de {n} {unit}.",),
        "past": ("{event} {of} fue hace {n} {unit}.",),
        "which day": ("¿Qué día es ese?", "¿Qué día de la semana es ese?"),
        "which month": ("¿Qué mes es ese?",),
        "largest": ("¿Qué número es el mayor: {list}?", "Busca el número mayor: {list}."),
        "smallest": ("¿Qué número es el menor: {list}?", "Busca el número menor: {list}."),
        "digits": ("Escribe en cifras: {list}.", "Escribe estos números en cifras: {list}."),
        "plus": ("¿Cuánto es {a} más {b}?", "¿Cuánto suman {a} más {b}?"),
        "count": ("{list}: ¿cuántas veces aparece {word}?", "¿Cuántas veces está {word} en esta lista: {list}?"),
    },
)

FR = Language(
    some="du",
    of=lambda name: f"d'{name}" if name[0] in "AEIOU" else f"de {name}",
    number=_number_words.french,
    colours=words("rouge bleu vert noir blanc jaune gris marron"),
    things=words("livre chapeau manteau téléphone canapé pull couteau ballon"),
    cities=words("Rome Paris Berlin Madrid Londres Vienne Lisbonne Prague Oslo Zurich"),
    foods=words("riz poisson pain fromage poulet gâteau melon thon"),
    goods=words("livres citrons tomates melons plats verres"),
    fruits=words("pomme poire prune cerise banane citron orange melon"),
    events=(
        *("L'examen", "Le concert", "La fête", "Le voyage"),
        *("Le match", "Le vol", "Le cours", "Le rendez-vous"),
    ),
    days=words("lundi mardi mercredi jeudi vendredi samedi dimanche"),
    months=words("janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
    units={"day": ("jour", "jours"), "month": ("mois", "mois")},
    say={
        "word only": ("Réponds en un mot.", "Un seul mot."),
        "number only": ("Réponds seulement par le nombre.", "Le nombre seulement."),
        "digits only": ("Réponds en chiffres.", "En chiffres seulement."),
        "colour": ("Le {thing} {of} est {colour}.",),
        "what colour": ("De quelle couleur est le {thing} {of} ?", "Quelle couleur a le {thing} {of} ?"),
        "whose": ("À qui est le {thing} {colour} ?",),
        "same colour": ("À qui est le {other} de la même couleur que le {thing} {of} ?",),
        "life": ("{name} habite à {city} et mange du {food}.",),
        "where": ("Où habite {name} ?", "Dans quelle ville habite {name} ?"),
        "eats what": ("Que mange {name} ?",),
        "lives in": ("Qui habite à {city} ?",),
        "eats": ("Qui mange du {food} ?",),
        "eats there": ("Que mange la personne à {city} ?",),
        "same city": ("Qui habite dans la même ville que {name} ?",),
        "buys": ("{name} achète {n} {good}.",),
        "how many": ("Combien de {good} achète {name} ?",),
        "buyer": ("Qui achète {n} {good} ?",),
        "now day": ("Aujourd'hui, c'est {at}.", "Hier, c'était {at}.", "Demain, c'est {at}."),
        "now month": ("Nous sommes en {at}.", "Le mois dernier, c'était {at}.", "Le mois prochain, c'est {at}."),
        "future": ("{event} {of} est dans {n} {unit}.",),
        "past": ("{event} {of} était il y a {n} {unit}.",),
        "which day": ("Quel jour est-ce ?", "Quel jour de la semaine est-ce ?"),
        "which month": ("Quel mois est-ce ?",),
        "largest": ("Quel nombre est le plus grand : {list} ?", "Trouve le plus grand nombre : {list}."),
        "smallest": ("Quel nombre est le plus petit : {list} ?", "Trouve le plus petit nombre : {list}."),
        "digits": ("Écris en chiffres : {list}.", "Écris ces nombres en chiffres : {list}."),
        "plus": ("Combien font {a} plus {b} ?", "Que font {a} plus {b} ?"),
        "count": (
            "{list} : combien de fois apparaît {word} ?",
            "Combien de fois apparaît {word} dans cette liste : {list} ?",
        ),
    },
)

IT = Language(
    of=lambda name: f"di {name}",
    number=_number_words.italian,
    colours=words("rosso blu verde nero bianco giallo grigio marrone"),
    things=words("libro cappello cappotto telefono divano maglione coltello pallone"),
    cities=words("Roma Parigi Berlino Madrid Londra Vienna Lisbona Praga Oslo Zurigo"),
    foods=words("riso pesce pane formaggio pollo torta melone tonno"),
    goods=words("libri limoni pomodori meloni piatti bicchieri"),
    fruits=words("mela pera prugna ciliegia banana limone arancia melone"),
    events=(
        *("L'esame", "Il concerto", "La festa", "Il viaggio"),
        *("La partita", "Il volo", "Il corso", "L'appuntamento"),
    ),
    days=words("lunedì martedì mercoledì giovedì venerdì sabato domenica"),
    months=words("gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre"),
    units={"day": ("giorno", "giorni"), "month": ("mese", "mesi")},
    say={
        "word only": ("Rispondi con una parola.", "Solo una parola."),
        "number only": ("Rispondi solo con il numero.", "Solo il numero."),
        "digits only": ("Rispondi in cifre.", "Solo cifre."),
        "colour": ("Il {thing} {of} è {colour}.",),
        "what colour": ("Di che colore è il {thing} {of}?", "Che colore ha il {thing} {of}?"),
        "whose": ("Di chi è il {thing} {colour}?",),
        "same colour": ("Di chi è il {other} dello stesso colore del {thing} {of}?",),
        "life": ("{name} vive a {city} e mangia {food}.",),
        "where": ("Dove vive {name}?", "In quale città vive {name}?"),
        "eats what": ("Che cosa mangia {name}?",),
        "lives in": ("Chi vive a {city}?",),
        "eats": ("Chi mangia {food}?",),
        "eats there": ("Che cosa mangia la persona a {city}?",),
        "same city": ("Chi vive nella stessa città di {name}?",),
        "buys": ("{name} compra {n} {good}.",),
        "how many": ("Quanti {good} compra {name}?",),
        "buyer": ("Chi compra {n} {good}?",),
        "now day": ("Oggi è {at}.", "Ieri era {at}.", "Domani è {at}."),
        "now month": ("Siamo in {at}.", "Il mese scorso era {at}.", "Il mese prossimo è {at}."),
        "future": ("{event} {of} è tra {n} {unit}.",),
        "past": ("{event} {of} era {n} {unit} fa.",),
        "which day": ("Che giorno è quello?", "Che giorno della settimana è quello?"),
        "which month": ("Che mese è quello?",),
        "largest": ("Quale numero è il più grande: {list}?", "Trova il numero più grande: {list}."),
        "smallest": ("Quale numero è il più piccolo: {list}?", "Trova il numero più piccolo: {list}."),
        "digits": ("Scrivi in cifre: {list}.", "Scrivi questi numeri in cifre: {list}."),
        "plus": ("Quanto fa {a} più {b}?", "Quanto fanno {a} più {b}?"),
        "count": ("{list}: quante volte compare {word}?", "Quante volte c'è {word} in questa lista: {list}?"),
    },
)

LANGUAGES = {"en": EN, "de": DE, "es": ES, "fr": FR, "it": IT}
