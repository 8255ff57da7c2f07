"""Captions as plain text: the rules, each on the smallest example."""

from __future__ import annotations

import pytest
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
        ("<p>at 5<inline-formula>°<italic>C</italic></inline-formula></p>", "at 5°C"),
    ],
)
def test_plain(xml: str, expected: str) -> None:
    assert plain(etree.fromstring(f"<caption>{xml}</caption>")) == expected


def test_entity_that_only_the_dtd_would_declare_is_read_by_its_html_name() -> None:
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
    root = etree.fromstring(b'<!DOCTYPE p PUBLIC "x" "y.dtd"><p>&alpha;-fetoprotein&nbsp;level</p>', parser)
    assert plain(root) == "α-fetoprotein level"
