"""Words of a caption that name another owner than the article's authors, in the languages that PMC's articles have.

What is not clear counts as somebody else's: "with permission" says that somebody gave it, whoever it was.
"""

from __future__ import annotations

import re

from medvlm.data.sources.pmc.prose import (
    cc_by_names,
    prose_license,
    stated_license,
    strictest,
    text_addresses,
)
from medvlm.data.sources.pmc.text import fold_hyphens

_NAME = r"(?-i:[A-Z])[\w&.'’-]*"
_SOURCE = rf"(?:\[|\(?(?:ref|https?:)|{_NAME}|the\b[^.;]{{0,60}}?\b(?:website|database|atlas|archive|collection)\b)"
_MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sep|oct|nov|dec)[a-z]*\b"
# Who gives permission without owning the picture, at the head of a sentence.
_GIVERS = (
    r"(?:patient|participant|subject|volunteer|donor|parent|guardian|mother|father|famil|relative|spouse|kin\b|eltern|"
    r"board|committee|commission|irb\b|ethic|they\b|s?he\b|who\b|we\b|all\b|both\b|each\b|none\b)"
)
# Each pattern with the words of which a text that it matches holds one: most captions hold none, and are done with
# cheaply.
_Clued = tuple[frozenset[str], re.Pattern[str]]


def _clued(clues: str, pattern: str) -> _Clued:
    return frozenset(clues.split("|")), re.compile(pattern, re.IGNORECASE)


# Words by which somebody else claims the picture.
_OWNED = (
    _clued("©|copyright", r"©|\bcopyright(?:ed)?\b"),
    _clued("(c)", rf"\(c\)\s*(?:(?:19|20)\d\d\b|{_NAME}(?:[ ,]+{_NAME}){{0,5}},?\s+(?:19|20)\d\d\b)"),
    _clued(
        "permis",
        r"\bwith\b(?:(?!\b(?:gave|gives?|granted|had)\b)[^.;]){0,60}?\bpermission\b|\bby\s+(?:[\w'’]+\s+){0,4}?permission\b|"
        r"\bpermission\s+(?:(?:was|were|is|has been)\s+)?(?:obtained\s+|granted\s+|given\s+|received\s+)?"
        r"(?:from|of|by)\b|"
        r"\bpermission\s+(?:to|for)\s[^.;]{0,80}?\b(?:obtained|granted|given|received|provided|secured)\s+(?:from|by)\b|"
        rf"\b(?:publishers?|journals?|editors?|press|society|museum|owners?|holders?|(?!{_GIVERS}){_NAME})"
        r"(?:\s+(?:ha[sd]|have|kindly|also|already)){0,3}\s+(?:gave|gives?|given|granted|provided)\s+"
        r"(?:\w+\s+){0,4}?permission\b|\b(?:reprint|reuse|reproduction)\s+permissions?\b",
    ),
    _clued("genehmigung", r"\bmit\s+(?:[\w]+\s+){0,3}?genehmigung\b|\bgenehmigung\s+(?:von|de[rs])\b"),
    _clued(
        "permis|permes|autori|concession",
        r"\b(?:avec|con|com|per|sous|mediante|sob)\s+(?:(?:(?:l|d)['’])?\w+\s+){0,3}?(?:l['’])?"
        r"(?:aimable\s+)?(?:permission|permiss[aã]o|permiso|permesso|autori[sz]a[tcç][\wãóò]+|concessione)\b",
    ),
    _clued(
        "reprodu|reprinted|republished",
        r"\b(?:reproduced|reprinted|republished)\s+(?:under\s+(?:an?\s+)?licen[cs]e\s+)?from\b",
    ),
    _clued("reprodu", r"\b(?:reproduzid|reproducid)[oa]s?\s+(?:de|do|da|del)\b"),
    _clued("reserved", r"\ball rights reserved\b"),
    _clued(
        "commons|cc by|cc-by|licen",
        r"\bnot\s+(?:included|covered|available|licensed|part)\b[^.;]{0,60}?"
        r"\b(?:creative commons|cc[ -]?by|licen[cs]e)",
    ),
    _clued(
        "getty|stock|alamy|dreamstime|123rf|science photo|depositphotos|radiop|google",
        r"\bgetty images\b|\bshutterstock\b|\bi\s?stock(?:photos?)?\b|\balamy\b|\badobe stock\b|"
        r"\bdepositphotos\b|\bdreamstime\b|\b123rf\b|\bscience photo library\b|\bradiop(?:a)?edia\b|"
        r"\bgoogle\s+(?:earth|maps?|street\s+view)\b",
    ),
)
# Words by which the authors credit somebody else's work.
_BORROWED = (
    _clued("adapted", r"\b(?:re)?adapted\s+(?:\w+\s+){0,8}?from\b"),
    _clued("redrawn|adapted|modifi", r"\b(?:redrawn|adapted|modified)\s+(?:after|from)\b"),
    _clued("adap|modifi|extraid|extraíd", r"\b(?:adap\w*tad|modificad|extra[ií]d)[oa]s?\s+(?:de|do|da|del)\b"),
    _clued("(from", rf"\(from\s+(?!{_MONTH}){_NAME}[^()]{{0,60}}?(?:\bet al\b|\[\d|\b(?:19|20)\d\d\b)"),
    _clued(
        "taken from|obtained from|downloaded from|redrawn",
        r"\b(?:figure|image|picture|photo|photograph|diagram|map|drawing|illustration|schematic)s?\s+"
        rf"(?:(?:is|are|was|were|has|been|have)\s+){{0,2}}(?:taken|obtained|downloaded|redrawn)\s+from\s+{_SOURCE}",
    ),
)
# Credit to the maker of a picture, who may be one of the authors.
_CREDITED = (
    _clued("courtesy", rf"\bcourtesy\s*(?:of|to|by|from|[:,]|\(|(?={_NAME}))"),
    _clued("cortes|cedid", r"\bcortes[ií]as?\s+d[aeo]l?\b|\bcedid[oa]s?\s+(?:por|pel[oa])\b"),
    _clued("biorender", r"\bbiorender\b"),
    _clued("credit", r"\b(?:photo|photograph|image|picture|figure|illustration)s?\s+credits?\b"),
    _clued(
        "photo|illustration|drawing|artwork",
        rf"\b(?:photo|photograph|illustration|drawing|artwork)s?\s*(?::|by\s+(?={_NAME}))",
    ),
    _clued("wiki", r"\bwikimedia\b|\bwikipedia commons\b"),
)
_ALL_CLUES = sorted({clue for kind in (_OWNED, _BORROWED, _CREDITED) for clues, _ in kind for clue in clues})
# What several clues hold in common is looked for first.
_GATES = ("from", "photo", "cc", "repr", "repu", "perm", "extra")
_GATED_CLUES = {g: tuple(c for c in _ALL_CLUES if g == next((x for x in _GATES if x in c), "")) for g in _GATES}
_SINGLE_CLUES = tuple(clue for clue in _ALL_CLUES if not any(gate in clue for gate in _GATES))
_NOT_PICTURES = re.compile(
    r"\b(?:protocol|method|procedure|assay|primer|sequence|strain|cell|medium|scale|criteri[ao])s?\b[^.]{0,40}$", re.I
)
# Whose permission makes nobody an owner: those pictured, those who answer for them, and boards of ethics.
# A journal or firm may begin with such a word ("Family Practice", "BMC Medical Ethics"), so only what is written small
# or names a board counts.
_BOARD = (
    r"(?:(?-i:[eé]thi(?:c(?:s|al)?|k|que)\w*|[eé]tica)(?!\w*\s+(?-i:[A-Z]\w))|ethik-?kommission|"
    r"ethic(?:s|al)\s+(?:review\s+)?(?:board|committee|commission|council)|"
    r"comit\w+\s+d(?:e\s+|['’])[eé]t(?:ica|hique)|review\s+board|irb\b)"
)
_PERSON = (
    r"(?:patient\w*|participant|subject|volunteer|donor|parent|guardian|mother|father|famil(?:y|ie)|relative|spouse|"
    r"next of kin|pa[cz]ient\w*|eltern|angehörigen|famill?\w+|parents?|padres?|madre|pais?|mãe|genitori)"
)
_SMALL_PERSON = rf"(?-i:{_PERSON}|Patient(?:in|en|innen)\b|Eltern\b|Angehörigen\b)(?![\w'’]*\s+(?-i:[A-Z]\w))"
_OTHERS = r"(?:and|or|for|to|in|on|with|by|from|publishers?|journals?|authors?|editors?|press|society)\b"
_WORD = r"[\w'’-]+"
_PERMISSION = r"(?:permission|permiss[aã]o|permiso|permesso|autori[sz]a[tcç][\wãóò]+|genehmigung)"
_SMALL_WORD = (
    r"(?:(?-i:[a-z])[\w'’-]*|Local|Regional|Institutional|Research|Medical|Clinical|Human|National|University|Hospital)"
)
_PURPOSE = r"(?:(?:to|for)\s+(?:[a-z]\w*\s+){1,6}?)?"
_GIVEN = rf"{_PURPOSE}(?:(?:was|were|is|(?:has|have)\s+been)\s+)?(?:(?:\w+ed|given)\s+)?{_PURPOSE}"
_PERSONAL = re.compile(
    rf"\b{_PERMISSION}\s+{_GIVEN}(?:of|from|by|d[aeou]s?|del|della|dell['’]|de\s+l['’]|de\s+la|von|de[rsn])\s*"
    rf"(?:(?:(?!{_OTHERS})(?-i:[a-z]){_WORD[:-1]}*\s+){{0,4}}?{_SMALL_PERSON}|"
    rf"(?:(?!{_OTHERS})(?-i:{_SMALL_WORD})\s+){{0,6}}?{_BOARD})"
    # A publisher may stand beside them.
    r"(?![\w'’]*,?\s+(?:\w+\s+){0,2}?(?:and|or|et|und|e|y)\s+(?:[\w'’]+\s+){0,3}?"
    r"(?:publisher|journal|authors?\b|(?!(?:IRB|Institutional|Ethic|Research|Review))(?:[dl]['’])?(?-i:[A-Z])))|"
    rf"{_PERSON}s?(?:['’]s?)?\s+(?:(?:written|informed|explicit|verbal|full|consent)\s+(?:and\s+)?){{0,3}}permission\b|"
    r"\bparental\s+(?:consent\s+and\s+)?permission\b",
    re.IGNORECASE,
)
_SHORT_CLUE = re.compile(r"cc[\W_]{0,4}by")
_LICENSE_CLUE = re.compile(r"creative\W?commons|attribution|\bcc[\W_]{0,4}by", re.IGNORECASE)
# "et al. 2010" and "Fig. 2" end no sentence.
_BREAK = re.compile(r"(?<!\bal)(?<!\bFigs)(?<!\bFig)\.\s+(?=[^a-z\d\s])")
_ABBREVIATED = re.compile(
    r"\b(?:et al|figs?|refs?|dr|prof|mr|mrs|inc|ltd|vol|no|pp?|[A-Z])\.(?=[\s),;])", re.IGNORECASE
)
_GIVING = frozenset(("permis", "permes", "autori", "genehmigung"))
_PANEL_MARK = re.compile(r"\(([abABdD])\)")


def third_party_note(text: str, authors: frozenset[str] = frozenset()) -> tuple[str, bool] | None:
    """Return the words of a caption that name another owner, and whether they claim ownership (©, permission).

    "photographed", the panel mark "(C)", credit to the article's own authors and the permission of patients, their
    families or a board of ethics are no such words.
    """
    lower = text.lower()
    clues = set(filter(lower.__contains__, _SINGLE_CLUES))
    for gate, behind in _GATED_CLUES.items():
        if gate in lower:
            clues.update(filter(lower.__contains__, behind))
    if "(c)" in clues and _PANEL_MARK.search(text):
        clues.discard("(c)")
    if not clues:
        return None
    masked = text
    if not clues.isdisjoint(_GIVING):
        masked = _PERSONAL.sub(lambda match: " " * len(match[0]), text)
        # These end no sentence, so what follows belongs to them.
        masked = _ABBREVIATED.sub(lambda match: match[0].replace(".", " "), masked)
    for kind in (_OWNED, _BORROWED, _CREDITED):
        for match in _matches(kind, masked, clues):
            if kind is _BORROWED and _NOT_PICTURES.search(text[: match.start()].rsplit(". ", 1)[-1]):
                continue
            if kind is _CREDITED and _names_author(text[match.end() : match.end() + 80], authors):
                continue
            return _sentence(text, match.start(), match.end()), kind is _OWNED
    return None


def _matches(kind: tuple[_Clued, ...], text: str, there: set[str]) -> list[re.Match[str]]:
    """Return where the patterns of a kind match, in the order of the text; `there`: the clues that it holds."""
    likely = [pattern for clues, pattern in kind if not clues.isdisjoint(there)]
    if not likely:
        return []
    return sorted((m for pattern in likely for m in pattern.finditer(text)), key=lambda match: match.start())


def caption_license(text: str) -> tuple[str, str] | None:
    """Return the Creative Commons license that a caption names for its picture, and the sentence that does.

    Of several the strictest. Nothing where the words only say that a license does not hold.
    """
    lower = text.lower()
    if "commons" not in lower and "attribution" not in lower and not ("cc" in lower and _SHORT_CLUE.search(lower)):
        return None
    folded = fold_hyphens(text)
    if not _LICENSE_CLUE.search(folded):
        return None
    found: list[tuple[str, str]] = []
    for start, end in cc_by_names(folded):
        sentence = _sentence(folded, start, end)
        if (named := prose_license(sentence)) and not _denied(folded[:start]):
            found.append((named, sentence))
    for address in text_addresses(folded):
        start = folded.find(address)
        if (named := stated_license(address)) and not _denied(folded[:start]):
            found.append((named, _sentence(folded, start, start + len(address))))
    return strictest(found)


def _denied(before: str) -> bool:
    return bool(re.search(r"\bnot\b[^.;]{0,80}$", before, re.IGNORECASE))


def _names_author(credit: str, authors: frozenset[str]) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", credit, re.IGNORECASE) for name in authors)


def _sentence(text: str, start: int, end: int) -> str:
    """Return the sentence around a place, at most 200 characters to either side."""
    first, last = max(0, start - 200), min(len(text), end + 200)
    breaks = [match.end() for match in _BREAK.finditer(text, first, last)]
    first = max((place for place in breaks if place <= start), default=first)
    last = min((place for place in breaks if place >= end), default=last)
    return text[first:last].strip()
