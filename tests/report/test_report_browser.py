"""A report in the system's own Chromium: what it asks for, says, measures and does, with and without its script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated_run import make_run, rows, write_predictions
from headless_browser import Browser
from hostile_run import hostile_run

from medvlm.report import html
from medvlm.report.document import Document, Section, Table
from medvlm.report.write import write

# The ratio of two colors as WCAG 2.2 defines it, for every text that is shown, against the color it stands on.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const linear = (s) => s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgba(getComputedStyle(node).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const worst = {};
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const silent = ["SCRIPT", "STYLE", "TITLE", "DESC"].includes(node.tagName.toUpperCase());
    if (silent || !walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(node);
    const ink = rgba(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [high, low] = [light(ink), light(ground(node))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const name = `${node.tagName}.${node.className.baseVal ?? node.className}`;
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with contradictions, slices, two tasks, an empty answer and a word wider than a phone."""
    run = make_run(tmp_path_factory.mktemp("run"), schema=2)
    changed = rows(60, 0)
    changed[3] |= {"prediction": "Pleural effusion.", "references": ["No pleural effusion.", "Clear lungs."]}
    changed[4] |= {"prediction": "A nodule in the right lung.", "references": ["A nodule in the left lung."]}
    changed[5]["prediction"] = ""
    changed[6]["prediction"] = "cardiomegaly" * 30
    changed[7] |= {"task": "vqa", "prediction": "yes", "references": ["no"]}
    write_predictions(run, changed)
    return write([run])[0]


def shown(browser: Browser) -> int:
    return int(browser.value("[...document.querySelectorAll('.case')].filter(one => one.checkVisibility()).length"))


def test_nothing_is_asked_for_and_nothing_is_complained_of(browser: Browser, page: Path, tmp_path: Path) -> None:
    for number, path in enumerate((page, write([hostile_run(tmp_path)])[0])):
        browser.open(path)
        assert browser.value("document.querySelectorAll('main').length") == 1
        # Lazy pictures are read when they come near; each must be a picture.
        browser.value("for (const image of document.images) image.loading = 'eager'")
        browser.value("Promise.all([...document.images].map((image) => image.decode()))")
        assert browser.value("document.images.length") > 0 or number
        assert browser.requests() == [path.resolve().as_uri()]
        assert browser.complaints() == []
        assert browser.value("document.querySelectorAll('.filter').length") == 1, "the script ran"


def test_what_a_text_smuggles_in_is_stopped(browser: Browser, tmp_path: Path) -> None:
    # As if the escaping had failed: the policy alone must hold.
    document = Document("t", [], [], [Section("s", [Table(("a",), [["SMUGGLED"]])])])
    said = (
        "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'><img src='https://x.test/a.png'>"
        "<b style='color: red' id=b>b</b><style>#b { color: red }</style><iframe src='https://x.test'></iframe>"
    )
    path = tmp_path / "page.html"
    path.write_text(html.render(document).replace("SMUGGLED", said))
    browser.open(path)
    assert browser.value("window.ran ?? null") is None
    assert browser.value("getComputedStyle(document.getElementById('b')).color") != "rgb(255, 0, 0)"
    finished = {
        event["params"]["requestId"] for event in browser.events if event["method"] == "Network.responseReceived"
    }
    asked = {
        event["params"]["requestId"]: event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    }
    answered = {asked[request] for request in finished}
    assert {address for address in answered if not address.startswith("data:")} == {path.resolve().as_uri()}
    assert any("Content Security Policy" in said for said in browser.complaints())


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_is_never_wider_than_its_window(browser: Browser, page: Path, tmp_path: Path, width: int) -> None:
    for path in (page, write([hostile_run(tmp_path)])[0]):
        browser.open(path, width=width)
        assert browser.value("document.documentElement.scrollWidth") <= width
        wide = browser.value(
            "[...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, pre, svg, .heard') && "
            "one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"
        )
        assert wide == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, dark=dark)
    background = browser.value("getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in re.findall(r"\d+", background)[:3]]
    assert (sum(channels) < 200) == dark
    ratios: dict[str, float] = browser.value(CONTRAST)
    assert len(ratios) > 15
    # 4.5 is level AA for text of ordinary size.
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_without_its_script_everything_is_there(browser: Browser, page: Path) -> None:
    browser.open(page, script=False)
    assert shown(browser) == browser.value("document.querySelectorAll('.case').length") > 10
    assert browser.value("document.querySelectorAll('button, select, input').length") == 0
    assert browser.value("document.querySelectorAll('table[data-sortable] tbody tr').length") > 5


COLUMN = ["0.40 [0.1, 0.9]", "-", "+1,234.5", "-3", "", "1e-3"]


def sorted_column(browser: Browser, column: int) -> list[str]:
    found: list[str] = browser.value(
        f"[...document.querySelectorAll('tbody tr')].map(row => row.cells[{column}].textContent)"
    )
    return found


def test_tables_sort_by_keyboard_and_click(browser: Browser, tmp_path: Path) -> None:
    names = ["run 10", "Run 2", "-", "été", "alpha", "zeta"]
    body = [list(pair) for pair in zip(names, COLUMN, strict=True)]
    table = Table(("name", "score"), body, "t", frozenset({1}), sortable=True)
    path = tmp_path / "page.html"
    path.write_text(html.render(Document("t", [], [], [Section("s", [table])])))
    browser.open(path)
    for order, expected in (
        ("descending", ["+1,234.5", "0.40 [0.1, 0.9]", "1e-3", "-3"]),
        ("ascending", ["-3", "1e-3", "0.40 [0.1, 0.9]", "+1,234.5"]),
    ):
        browser.value("document.querySelectorAll('th button')[1].click()")
        assert sorted_column(browser, 1) == [*expected, "-", ""], "what has no value stays behind"
        assert browser.value("document.querySelectorAll('thead th')[1].ariaSort") == order
    browser.value("document.querySelector('.scroll').focus()")
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.textContent") == "name"
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13, "\r")
    assert sorted_column(browser, 0) == ["alpha", "été", "Run 2", "run 10", "zeta", "-"]
    assert browser.value("[...document.querySelectorAll('thead th')].map(one => one.ariaSort)") == ["ascending", None]


def test_the_gallery_shows_what_is_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    total = shown(browser)

    def choose(what: str) -> dict[str, Any]:
        browser.value(f"{what}; document.querySelector('.filter').dispatchEvent(new Event('change'))")
        found: dict[str, Any] = browser.value(
            "({kinds: [...new Set([...document.querySelectorAll('.case')].filter(one => one.checkVisibility())"
            ".map(one => one.dataset.kind))], said: document.querySelector('.filter [role=status]').textContent,"
            "heads: [...document.querySelectorAll('.group')].filter(one => one.checkVisibility()).length})"
        )
        return found

    kind, task = (f"document.querySelectorAll('.filter select')[{place}].value" for place in (0, 1))
    box = "document.querySelector('.filter input').checked"
    assert choose(f"{kind} = 'worst'") == {"kinds": ["worst"], "said": f"4 of {total} cases shown", "heads": 1}
    assert choose(f"{kind} = ''; {box} = true") == {
        "kinds": ["contradiction"], "said": f"2 of {total} cases shown", "heads": 1
    }  # fmt: skip
    assert choose(f"{box} = false; {task} = 'vqa'")["said"] == f"1 of {total} cases shown"
    assert choose(f"{task} = ''")["said"] == f"{total} of {total} cases shown"


def test_no_table_is_cut_on_paper(browser: Browser, page: Path, tmp_path: Path) -> None:
    first, second = (make_run(tmp_path, name, schema=2, same_samples=True) for name in ("first-run", "second-run"))
    for path in (page, write([first, second], tmp_path / "both")[0], write([hostile_run(tmp_path / "hostile")])[0]):
        # A4 landscape without its margins is 273 mm wide, at 96 pixels an inch.
        browser.open(path, width=1032, media="print")
        wide = browser.value(
            "[...document.querySelectorAll('table')].filter(one => one.getBoundingClientRect().right > 1033)"
            ".map(one => one.textContent.slice(0, 60))"
        )
        assert wide == []


def test_paper_has_all_of_it_and_no_controls(browser: Browser, page: Path) -> None:
    browser.open(page, media="print", dark=True)
    assert shown(browser) == browser.value("document.querySelectorAll('.case').length")
    controls = "[...document.querySelectorAll('select, input, nav')].filter(one => one.checkVisibility()).length"
    assert browser.value(controls) == 0
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    cut = (
        "[...document.querySelectorAll('.scroll')].filter(one => getComputedStyle(one).overflowX !== 'visible').length"
    )
    assert browser.value(cut) == 0
    browser.open(page)
    paper = browser.paper()
    assert paper.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) > 3
