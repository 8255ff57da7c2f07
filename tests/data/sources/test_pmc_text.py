"""Captions as plain text: the rules, each on the smallest example."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from medvlm.data.sources.pmc.text import plain

MML = 'xmlns:mml="http://www.w3.org/1998/Math/MathML"'


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<title>One</title><p>Two.</p><p>Three.</p>", "One Two. Three."),
        ("<p>10<sup>-10</sup> and log<sub>2</sub></p>", "10^-10 and log_2"),
        ("<p>x<sub>a b</sub>; n<sup> 2 </sup>m</p>", "x_{a b}; n ^2 m"),
        ("<p>Ca<sup>2+</sup>, H<sub>2</sub>O, <italic>p</italic>&lt;0.05</p>", "Ca^2+, H_2O, p<0.05"),
        ("<p>x<sup><italic>i</italic><sub>j</sub></sup></p>", "x^i_j"),
        ("<p>CD4<sup/>cell</p>", "CD4cell"),
        ("<p><bold>A</bold>nterior <xref rid='b1'>[1</xref>,<xref rid='b2'>2]</xref></p>", "Anterior [1,2]"),
        ("<p>left<break/>right</p>", "left right"),
        ("<p>of:<list><list-item><p>a</p></list-item><list-item><p>b</p></list-item></list>end</p>", "of: a b end"),
        ("<p>see<!-- hidden -->n<?pi x?>ow</p>", "seenow"),
        ("<p>whole<graphic href='x'/>part</p>", "whole part"),
        ("<p>Scan.<supplementary-material><label>S1</label></supplementary-material></p>", "Scan."),
        ("<p>see<fig-group><fig/></fig-group>there</p>", "see there"),
        (
            "<p>in <inline-supplementary-material>Additional file 1</inline-supplementary-material>.</p>",
            "in Additional file 1.",
        ),
        ("<title>T</title><object-id>10.1/x</object-id><p>P</p>", "T P"),
        ("<p>a\n   b\u00a0c\u2009d\u200be</p>", "a b c de"),
        (
            (
                "<p>area <inline-formula><tex-math>\\documentclass{x}\\begin{document}$$\\pi r^2$$\\end{document}"
                "</tex-math></inline-formula>.</p>"
            ),
            "area \\pi r^2.",
        ),
        (
            (
                f"<p>rate <inline-formula><math {MML}><mml:mfrac><mml:mn>1</mml:mn><mml:mi>N</mml:mi></mml:mfrac>"
                "<mml:msub> <mml:mi>p</mml:mi> <mml:mrow><mml:mi>a</mml:mi><mml:mo>\u2062</mml:mo><mml:mi>b</mml:mi>"
                "</mml:mrow></mml:msub></math></inline-formula>,</p>"
            ),
            "rate 1/Np_ab,",
        ),
        (
            (
                "<p>by <inline-formula><alternatives><inline-graphic href='e1'/><tex-math>$k$</tex-math></alternatives>"
                "</inline-formula>!</p>"
            ),
            "by k!",
        ),
        (
            "<p>in <inline-formula><inline-graphic><alt-text>beta</alt-text></inline-graphic></inline-formula></p>",
            "in beta",
        ),
        ("<p>when <inline-formula><inline-graphic href='e1'/></inline-formula> is low</p>", "when [formula] is low"),
        ("<p>so <disp-formula><graphic href='e2'/></disp-formula>.</p>", "so [formula] ."),
        ("<p>a<inline-graphic href='sign'/>b <inline-formula/>c</p>", "a b c"),
        ("<p>non\u00adspecific</p>", "nonspecific"),
        ("<p>at 5<inline-formula>°<italic>C</italic></inline-formula></p>", "at 5°C"),
    ],
)
def test_plain(xml: str, expected: str) -> None:
    assert plain(etree.fromstring(f"<caption>{xml}</caption>")) == expected


def test_entity_that_only_the_dtd_would_declare_is_read_by_its_html_name() -> None:
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
    root = etree.fromstring(b'<!DOCTYPE p PUBLIC "x" "y.dtd"><p>&alpha;-fetoprotein&nbsp;level</p>', parser)
    assert plain(root) == "α-fetoprotein level"


def mathml(short: str) -> str:
    """Return MathML with its names spelled out: `<i>x</i>` is `<mml:mi>x</mml:mi>`."""
    return re.sub(r"<(/?)(\w)", r"<\1mml:m\2", short).replace("mml:mnone", "mml:none")


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("<i>f</i><fenced><i>a</i><i>b</i></fenced>", "f(a,b)"),
        ("<fenced open='[' close=')' separators='; ,'><i>a</i><i>b</i><i>c</i><i>d</i></fenced>", "[a;b,c,d)"),
        ("<fenced open='{' close='' separators=''><i>a</i><i>b</i></fenced>", "{ab"),
        ("<fenced/>", "()"),
        ("<root><i>x</i><n>3</n></root>", "root_3(x)"),
        ("<n>2</n><sqrt><i>x</i><o>+</o><n>1</n></sqrt>", "2 sqrt(x+1)"),
        ("<i>sin</i><i>x</i>", "sin x"),
        ("<i>sin</i><o>\u2061</o><i>x</i>", "sin x"),
        ("<n>2</n><i>log</i><n>5</n>", "2 log 5"),
        ("<i>a</i><i>b</i><n>2</n>", "ab2"),
        ("<i>sin</i><o>(</o><i>x</i><o>)</o>", "sin(x)"),
        ("<i>x</i><text>if</text><i>y</i>", "x if y"),
        ("<i>x</i><text> if </text><i>y</i>", "x if y"),
        ("<sub><i>log</i><n>2</n></sub><i>x</i>", "log_2 x"),
        ("<sub><i>x</i><i>max</i></sub><o>=</o><n>1</n>", "x_max=1"),
        ("<sup><i>e</i><row><i>sin</i><i>x</i></row></sup><i>y</i>", "e^{sin x}y"),
        ("<subsup><i>x</i><i>i</i><n>2</n></subsup>", "x_i^2"),
        ("<underover><o>∑</o><i>i</i><i>n</i></underover><i>i</i>", "∑_i^n i"),
        ("<frac><i>sin</i><row><i>a</i><o>+</o><i>b</i></row></frac>", "sin/(a+b)"),
        ("<multiscripts><i>C</i><prescripts/><none/><n>14</n></multiscripts>", "^14C"),
        ("<multiscripts><i>X</i><i>i</i><i>j</i></multiscripts>", "X_i^j"),
        ("<table><tr><td><n>1</n></td><td><n>2</n></td></tr><tr><td><n>3</n></td></tr></table>", "1 2 3"),
        ("<sub><i>x</i></sub>", "x"),
    ],
)
def test_mathml(short: str, expected: str) -> None:
    assert (
        plain(etree.fromstring(f"<p {MML}><inline-formula><math>{mathml(short)}</math></inline-formula></p>"))
        == expected
    )
    named = f"<p {MML}>a <mml:math>{mathml(short)}</mml:math> b</p>"
    assert plain(etree.fromstring(named)) == f"a {expected} b"


ANNOTATED = "<semantics><mi>a</mi><annotation encoding='{}'>$\\alpha$</annotation></semantics>"
TEX = "<tex-math>\\documentclass{x}\\begin{document}$$%s$$\\end{document}</tex-math>"


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("n = <tex-math>$5$</tex-math> units", "n = 5 units"),
        ("<math><mi>a</mi></math><math><mi>b</mi></math>", "a b"),
        ("<math><mi>a</mi></math>, <math><mi>b</mi></math>", "a, b"),
        (TEX % "x" + TEX % "y", "x y"),
        (f"<alternatives>{TEX % 'x'}{TEX % 'y'}<math><mi>z</mi></math></alternatives>", "x"),
        ("a<alternatives><math><mi>z</mi></math><graphic/></alternatives>b", "azb"),
        (f"{TEX % 'x'}<math><mi>z</mi></math>", "x"),
        (f"{TEX % ''}<math><mi>z</mi></math>", "z"),
        ("<label>(1)</label><math><mi>z</mi></math>", "z"),
        (f"<math>{ANNOTATED.format('application/x-tex')}</math>", "\\alpha"),
        (f"<math>{ANNOTATED.format('LaTeX')}</math>", "\\alpha"),
        (f"<math>{ANNOTATED.format('StarMath 5.0')}</math>", "a"),
        ("<alternatives><inline-graphic/><textual-form>x<sub>2</sub></textual-form></alternatives>", "x_2"),
    ],
)
def test_what_a_formula_says(inner: str, expected: str) -> None:
    for kind in ("inline-formula", "disp-formula"):
        assert plain(etree.fromstring(f"<p><{kind}>{inner}</{kind}></p>")) == expected


NAMES = """
row frac sub sup subsup under over underover fenced sqrt root multiscripts table tr td style text i n o
"""
TREES = st.recursive(
    st.sampled_from(["a", "b", "sin", "12", "+", "(", "."]).map(lambda t: f"<mi>{t}</mi>"),
    lambda inner: st.builds(
        lambda name, parts: f"<m{name}>{''.join(parts)}</m{name}>",
        st.sampled_from(NAMES.split()),
        st.lists(inner, max_size=4),
    ),
    max_leaves=20,
)


@given(TREES)
def test_no_letter_of_a_formula_is_lost(tree: str) -> None:
    root = etree.fromstring(f"<p><inline-formula><math>{tree}</math></inline-formula></p>")
    said = plain(root).replace("sqrt", "").replace("root", "")
    assert sorted(re.findall(r"[^\W_]", said)) == sorted(re.findall(r"[^\W_]", "".join(root.itertext())))
    assert said.isprintable()
