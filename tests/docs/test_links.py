"""Links in the documentation, and the test files that it names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("egs/*/*.md"), ROOT / "pretrained/README.md"]
)
LINK = re.compile(r"\]\(<?([^)>\s]+)>?(?: \"[^\"]*\")?\)")
CODE = re.compile(r"(?s:```.*?```)|^(?: {4}|\t).*$|`[^`\n]*`", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_resolve(page: Path) -> None:
    assert not list(broken_links(page))


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if re.match(r"[a-z]+:", link):  # another site, which a test cannot check
            continue
        if not target.exists() or not target.resolve().is_relative_to(ROOT):
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and GitLab give to the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.*?) *$", page.read_text(encoding="utf-8"), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, count in found.items() for number in range(count + 1)}


def test_broken_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# A title: `code`, twice\n\n# A title: `code`, twice\n")
    page = tmp_path / "page.md"
    good = "[a](other.md) [b](other.md#a-title-code-twice-1) [c](#here) [d](https://example.org/x) `[e](none.md)`"
    bad = "[f](none.md) [g](other.md#none) [h](#none) [i](../..)"
    page.write_text(f"# Here\n{good}\n\n    [in code](none.md)\n\n{bad}\n")
    assert [line.partition(":")[0] for line in broken_links(page)] == ["none.md", "other.md#none", "#none", "../.."]


def test_tests_in_the_page_of_faults_exist() -> None:
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) > 30
    assert not sorted(name for name in named if not (ROOT / "tests" / name).exists())
