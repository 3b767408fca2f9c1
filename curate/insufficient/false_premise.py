"""`false_premise`: a question that takes for granted what the context does not say.

Templates about a name that the context speaks of, as FalseQA's questions are (Hu et al. 2023):
what they presume is checked to be absent, word by word.
"""

from curate.insufficient.made import Made, World
from curate.insufficient.mentions import mentions
from curate.record import Row
from curate.text import content_words, words

METHOD, REASON = "false_premise", "false_premise"
# What is presumed, in the words that the context must not hold, and the question about it.
TEMPLATES = (
    ("lawsuit", "What was the outcome of the lawsuit against {name}?"),
    ("renamed", "Why was {name} renamed?"),
    ("anniversary", "How was the hundredth anniversary of {name} celebrated?"),
    ("bankruptcy", "When did {name} declare bankruptcy?"),
    ("documentary", "Who directed the documentary about {name}?"),
    ("boycott", "How long did the boycott of {name} last?"),
    ("apologised apologized apology", "What did {name} apologise for?"),
    ("earthquake", "How did the earthquake affect {name}?"),
    ("auctioned auction", "For how much was {name} auctioned?"),
    ("forgery forged", "How was it found out that {name} was a forgery?"),
    ("prize", "For what was {name} given the prize?"),
    ("twin", "What is the name of the twin of {name}?"),
    ("statue", "Where does the statue of {name} stand?"),
    ("merged merger", "With whom did {name} merge?"),
    ("strike", "Why did those who worked for {name} go on strike?"),
    ("password", "What is the password for {name}?"),
    ("refund refunded", "How is {name} refunded?"),
    ("opera", "Who composed the opera about {name}?"),
    ("stolen theft", "Who found {name} after the theft?"),
    ("disbanded", "Why was {name} disbanded?"),
)


def make(row: Row, world: World) -> Made | None:
    """A template about the name that the context mentions most; intensity 0.5.

    None without a name, or where the context holds every template's words.
    """
    names = [mention.text for mention in mentions(row.context) if mention.kind == "name"]
    if not names:
        return None
    name = max(dict.fromkeys(names), key=names.count)
    known = set(words(row.context))
    templates = [text for presumed, text in TEMPLATES if not content_words(presumed) & known]
    if not templates:
        return None
    return Made(REASON, 0.5, question=world.random(METHOD, row).choice(templates).format(name=name))
