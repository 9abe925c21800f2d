"""report.html: read by a parser, and opened in a browser without network."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser import PROGRAM, Browser
from tests.limits import small_files
from tests.report.test_report import OPTIONS, make_experiment
from wespeaker_lite.report.page import write_page
from wespeaker_lite.report.report import write_report
from wespeaker_lite.scoring.results import METRICS, read_results

pytest.importorskip("matplotlib", reason="tools/install.sh --extras plots")

ODD = """<b>"odd" & 'name'</b><script>bad()</script>"""
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page: attributes of each tag, tables by section, and whether all tags are closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.texts: dict[str, str] = {}
        self.section = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.section = ""
        if tag == "tr":
            self.tables.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.tables[self.section][-1].append(("", dict(attrs).get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.section += data
        elif self.open and self.open[-1] in ("td", "button"):
            text, value = self.tables[self.section][-1][-1]
            self.tables[self.section][-1][-1] = (text + data, value)
        self.texts[self.section] = self.texts.get(self.section, "") + data


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored experiment with all contents of a report, and names that need HTML escaping."""
    folder = tmp_path_factory.mktemp("html") / "a & <b>"
    make_experiment(folder, gain=2, lists=("trials_H", "trials_O", "<i>&list"))
    values = {"loss": 3.25, "class": 3.0, "<b>label": 0.25, "accuracy": 0.5, "utt_per_s": 80.0, "wait": 0.01}
    places = [{"step": 10 * epoch, "epoch": epoch, "batch": 0, "event": "done"} for epoch in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(place | values) + "\n" for place in places))
    (folder / "config.yaml").write_text(f"train:\n  epochs: 2\nname: {json.dumps(ODD)}\n")
    maps = {"teacher": ODD, "utterances": 2, "seconds": 3.0, "kl": {"x": [0.5, 0.25]}, "flat": [1.0, 2.0],
            "entropy": {"x": [3.5, 3.25]}, "flat_entropy": [4.0, 4.5]}  # fmt: skip
    (folder / "report").mkdir()
    (folder / "report/attention.png").write_bytes(b"\x89PNG of maps")
    (folder / "report/attention.json").write_text(json.dumps({**maps, "utterance": "u1", "picture": "attention.png"}))
    write_report(folder, OPTIONS, folder / "report/attention.json")
    return folder


def test_the_page_has_the_content_of_the_report(experiment: Path) -> None:
    page, results = Page(experiment / "report/report.html"), read_results(experiment)
    header, *rows = page.tables["Figures"]
    assert [name for name, _ in header] == ["trials", "scoring", "EER %", "minDCF (p=0.01)", "minDCF (p=0.05)"]
    shown = {(row[0][0], row[1][0]): [float(value) for _, value in row[2:]] for row in rows}
    assert shown == {
        (name, scoring): [figures[metric] for metric in METRICS]
        for name, of in results["trials"].items()
        for scoring, figures in of.items()
    }
    markdown = (experiment / "report/report.md").read_text()
    assert all(row[2][0] in markdown and "[" in row[2][0] for row in rows), "the same digits and intervals"
    assert [row[0] for row in page.tables["Training"][1:]] == [("1", "1"), ("2", "2")]
    assert [name for name, _ in page.tables["Training"][0]] == ["epoch", "loss", "class", "<b>label", "accuracy"]
    assert [row[1][1] for row in page.tables["Attention maps"][1:]] == ["0.5", "1.0"]
    assert [row[1][1] for row in page.tables["Entropy of attention"][1:]] == ["3.5", "4.0"]
    assert [row[1][1] for row in page.tables["Cost"][1:]] == ["2240000", "123400000", "80.0"]
    assert (experiment / "config.yaml").read_text().strip() in page.texts["Config"]
    pictures = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    names = ["det", "hist_trials_H_cosine", "hist_trials_O_cosine", "hist_<i>&list_cosine", "training", "attention"]
    assert [base64.b64decode(source.partition(",")[2]) for source in pictures] == [
        (experiment / f"report/{name}.png").read_bytes() for name in names
    ]


def test_names_are_escaped_and_there_are_no_external_references(experiment: Path) -> None:
    page = Page(experiment / "report/report.html")
    tags = [tag for tag, _ in page.elements]
    assert not {"b", "i", "link", "iframe", "object", "base"} & set(tags)
    assert tags.count("script") == tags.count("style") == 1
    for tag, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("href", "srcset", "style")}, tag
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert ODD in page.texts["Attention maps"]
    text = (experiment / "report/report.html").read_text()
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text


def test_without_metrics_config_and_matplotlib_the_page_is_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_experiment(tmp_path, gain=2)
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    write_report(tmp_path, OPTIONS)
    page = Page(tmp_path / "report/report.html")
    assert "tools/install.sh --extras plots" in page.texts["Figures"]
    assert set(page.tables) == {"Figures", "Cost"}
    assert not [tag for tag, _ in page.elements if tag == "img"]


def test_a_page_that_cannot_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, "one", [])
    before = path.read_bytes()
    with small_files(100), pytest.raises(OSError, match=r"report\.html"):
        write_page(path, "other", [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here")
def test_tables_sort_in_a_browser(experiment: Path, tmp_path: Path) -> None:
    results = read_results(experiment)["trials"]
    with Browser(tmp_path / "profile", ["--host-resolver-rules=MAP * ~NOTFOUND"]) as browser:
        browser.open((experiment / "report/report.html").as_uri())
        assert browser.evaluate("document.title") == "a & <b>"
        loaded = "[...document.images].filter(one => one.complete && one.naturalWidth > 300).length"
        assert browser.evaluate(loaded) == 5, "all but the invented one"
        cells = (
            "[...document.querySelector('table').tBodies[0].rows]"
            ".map(row => [row.cells[0].textContent, row.cells[2].dataset.value])"
        )
        button = "document.querySelectorAll('table')[0].tHead.querySelectorAll('button')[{}]"
        eers = {name: of["cosine"]["eer"] for name, of in results.items()}
        for column, turned in ((2, False), (2, True), (0, False), (0, True)):
            browser.evaluate(button.format(column) + ".click()")
            rows = [(name, float(value)) for name, value in browser.evaluate(cells)]
            assert dict(rows) == eers
            keys = [value if column else name for name, value in rows]
            if column:
                assert keys == sorted(keys, reverse=turned)
            else:
                assert keys == (sorted(keys, key=str.lower)[::-1] if turned else sorted(keys, key=str.lower))
            order = browser.evaluate(button.format(column) + ".parentElement.getAttribute('aria-sort')")
            assert order == ("descending" if turned else "ascending")
        assert browser.evaluate("document.querySelectorAll('th[aria-sort]').length") == 1
        assert (
            browser.evaluate(
                "performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length"
            )
            == 0
        )
