"""Expected tokens are what the Java tokenizer of pycocoevalcap 1.2 prints, unless a test says otherwise."""

import shutil
import subprocess
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.errors import UsageError
from medvlm.evaluate.ptb import PUNCTUATION
from medvlm.evaluate.tokenize import get, tokenize

ptb, mixed, rouge = get("ptb"), get("ptb", "mixed"), get("rouge")

CASES = {
    "I can't, cannot, gonna; don't!": "i ca n't can not gon na do n't",
    "It's the dogs' o'clock, they've DON'T IT’S": "it 's the dogs o'clock they 've do n't it 's",
    "'tis 'twas rock 'n' roll, rock'n'roll in the '90s": "'t is 't was rock 'n' roll rock 'n' roll in the '90s",
    "y'all O'Brien's d'Alembert l'eau qu'il ho'ohu": "y' all o'brien 's d'alembert l'eau qu'il ho'ohu",
    "Alzheimer's and Crohn’s, x's": "alzheimer 's and crohn 's x 's",
    "Mr. Smith met Dr. Jones at 5 p.m. in the U.S. today.": "mr. smith met dr. jones at 5 p.m. in the u.s. today",
    "e.g. this, i.e. that, etc. vs. et al. approx. 3": "e.g. this i.e. that etc. vs. et al. approx 3",
    "No. 5 on Fig. 2 and fig.3, but no. Fig. x": "no. 5 on fig. 2 and fig. 3 but no fig x",
    "S. aureus in vitamin D. The end in grade s. grade": "s. aureus in vitamin d the end in grade s. grade",
    "and/or 1/2 24/7 L4/L5 10/group A/B/C w/": "and/or 1/2 24/7 l4/l5 10/group a/b/c w /",
    "10% 5mm 1,000.5 .5 -3 ±3 2x3": "10 % 5mm 1,000.5 .5 -3 ± 3 2x3",
    "10:30pm $5.00 £5 €6 5¢": "10:30 pm $ 5.00 # 5 $ 6 5 cents",
    "p<0.05 (p = 0.01) n=5 CI: 95%;": "p < 0.05 -lrb- p = 0.01 -rrb- n = 5 ci 95 %",
    "well-known T2-weighted 16-20.5 0.75-1.60": "well-known t2-weighted 16-20 .5 0.75-1 .60",
    "J774a.1 Nav1.7-selective 1.12x10-7 ApoE-/- 25°C": "j774a .1 nav1.7-selective 1.12x10-7 apoe / 25 ° c",
    "(a) [b] {c} <b>d</b> &amp;": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- <b> d </b> &",
    "“curly” ‘single’ «gu» \"plain\" ``latex''": "curly single gu plain latex",
    "a--b a – b a — b a...b … :) :-(": "a b a b a b a. b :-rrb- :--lrb-",
    "end.Next (arrow).(B) word,next": "end.next -lrb- arrow -rrb- -lrb- b -rrb- word next",
    "foo@bar.com http://www.x.org/a?b=c, www.x.com #tag @foo": "foo@bar.com http://www.x.org/a?b=c www.x.com #tag @foo",
    "AT&T a&b FAC+DFP E2+FAC a_b * **": "at&t a & b fac+dfp e2 + fac a_b * **",
    "m² CO₂ 10⁻⁷ µm α-helix β naïve e\u0301 中文": "m ² co ₂ 10 ⁻⁷ µm α-helix β naïve e\u0301 中文",
    "soft\xadhyphen zero\u200bwidth a\u00a0b bad\ufffdchar": "softhyphen zero width a b bad char",
    "Sucess.: x Brasil., y": "sucess. x brasil. y",
    "a <br />b </p > c": "a <br /> b </p > c",
    'a <img src="x.jpg" /> size <3 and> b': 'a <img src="x.jpg" /> size < 3 and > b',
    "2.F-actin 1,000-fold K.-Z. Lee x'05": "2.f-actin 1,000-fold k.-z lee x '05",
}


SHORT = [word + end for word in ("cannot", "Gonna", "dr", "Fig", "no", "a", "etc", "MASS", "mass") for end in ".,"]


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_equals_the_java_tokenizer(text, expected):
    assert ptb(text) == expected.split()


def test_a_line_break_is_a_blank():
    assert ptb("no\npleural\r\neffusion\u2028seen") == ["no", "pleural", "effusion", "seen"]


@pytest.mark.parametrize("text", ["", "  \n", ". , ; ' \" -- ...", "\u200b"])
def test_nothing_but_punctuation_gives_no_token(text):
    assert ptb(text) == []


def test_the_next_word_decides_about_a_period_every_time():
    for _ in range(2):
        assert ptb("grade D. The") == ["grade", "d", "the"]
        assert ptb("grade D. Tom") == ["grade", "d.", "tom"]
        assert ptb("no. 5") == ["no.", "5"]
        assert ptb("no. five") == ["no", "five"]


@settings(deadline=None)
@given(st.text() | st.text(alphabet="aB.'’-5/,:;()&@<>n t"))
def test_any_text_gives_lower_case_tokens_without_blanks(text):
    tokens = ptb(text)
    assert tokens == ptb(text)
    for token in tokens:
        assert token == token.lower()
        assert token not in PUNCTUATION
        assert len(token.split()) == 1


@pytest.mark.parametrize("piece", ["a", "a'", "<a ", "a.", "1.", "-", "a@", "(a-", "&", "'", "é\u0301"])
def test_a_very_long_word_is_done_at_once(piece):
    assert ptb(piece * 20_000 + " end")[-1] == "end"


@settings(deadline=None)
@given(st.text() | st.text(alphabet="aB.'’-5/,:;()&@<>n tE"))
def test_mixed_case_differs_in_case_only(text):
    assert [token.lower() for token in mixed(text)] == ptb(text)


def test_mixed_case_is_the_case_of_the_text():
    assert mixed("The MRI, (T2).") == ["The", "MRI", "-lrb-", "T2", "-rrb-"]


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z]{1,7}[.,;:]?|[0-9]{1,4}[.,;:]?", fullmatch=True) | st.sampled_from(SHORT))
def test_the_short_way_gives_what_the_rules_give(chunk):
    # Of a chunk that is longer than simple ones, the rules are asked: a mark before it is a token that is removed.
    assert ptb(chunk) == ptb(f"\u201c {chunk}") == ptb(f"\u201c{chunk}")


def test_other_tokenizers():
    assert tokenize(["A b.", ""], "whitespace", "mixed") == [["A", "b."], []]
    assert rouge("Don't stop_at É5!") == ["don", "t", "stop", "at", "5"]
    assert tokenize(["A b.  3-4cm"], "none", "mixed") == [["A", "b.", "3-4cm"]]
    with pytest.raises(UsageError, match=r'unknown tokenizer "ptp" \(did you mean "ptb"\?\)'):
        tokenize(["a"], "ptp")


SLOW = pytest.param("paragraphs", marks=pytest.mark.slow)


def java_tokens(texts: list[str], folder: Path) -> list[list[str]]:
    """Tokens of the Java tokenizer; a line between texts keeps it from reading one text's end with the next's start."""
    spec = find_spec("pycocoevalcap")
    jar = Path(next(iter(spec.submodule_search_locations)), "tokenizer", "stanford-corenlp-3.4.1.jar")
    (folder / "in.txt").write_text("".join(f"{text}\nx\n" for text in texts), encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    done = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", str(folder / "in.txt")], capture_output=True, check=True
    )
    lines = done.stdout.decode().split("\n")[: 2 * len(texts)]
    assert lines[1::2] == ["x"] * len(texts)
    return [[word for word in line.split() if word not in PUNCTUATION] for line in lines[::2]]


@pytest.mark.realdata
@pytest.mark.skipif(not shutil.which("java"), reason="no java: the comparison with the Java tokenizer needs one")
@pytest.mark.parametrize("source", ["coco", "vqa_rad", "slake", "radeval", "captions", SLOW])
def test_agrees_with_the_java_tokenizer_on_shared_texts(shared_texts, source, tmp_path):
    texts = shared_texts[source]
    expected = java_tokens(texts, tmp_path)
    wrong = sum(differing(true, found) for found, true in zip(tokenize(texts), expected, strict=True) if found != true)
    allowed = 1e-4 if source == "paragraphs" else 0
    assert sum(map(len, expected)) > 200
    assert wrong <= allowed * sum(map(len, expected))


def differing(true: list[str], found: list[str]) -> int:
    """How many tokens one list has in other places, or otherwise, than the other."""
    steps = SequenceMatcher(None, true, found, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in steps if kind != "equal")
