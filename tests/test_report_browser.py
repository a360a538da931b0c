"""The page in a real browser: Chromium opens one made from real records, offline; mouse and keyboard do what a reader wants of them.

Screenshots go to ``$NOCOBENCH_SCREENSHOTS``, or into pytest's temporary folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_frames import command

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is in the extra `test`, which is not installed here"
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed here (Debian: apt-get install chromium)"
)

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference" / "cpu-x86_64"
# A handful of real records of both tasks, with a reconstruction, an oracle and both variants of a method.
CHOSEN = [
    *(
        f"digits-pairs-v1/digits/nested-mismatch-{rate}/{method}/seed{seed}"
        for rate in (0.2, 0.4)
        for method in ("npc@paper", "npc@released", "hana@paper", "clip@paper", "oracle_clean@paper")
        for seed in range(3)
    ),
    *(
        f"wikipedia-labels-v1/wikipedia/nested-symmetric-0.4/{method}-64bits/seed{seed}"
        for method in ("rshnl@released", "ce@paper")
        for seed in range(3)
    ),
]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, made by the command."""
    if not REFERENCE.is_dir():
        pytest.skip("the reference records do not lie beside the tests")
    results = tmp_path_factory.mktemp("browser") / "results"
    for name in CHOSEN:
        for ending in (".json", ".npz"):
            target = results / "runs" / f"{name}{ending}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REFERENCE / f"{name}{ending}", target)
        snapshot = Path(name).parts[0] + "/protocol.json"
        shutil.copy(REFERENCE / snapshot, results / "runs" / snapshot)
    code, out, err = command("report", "--results", results)
    assert (code, err) == (0, "")
    return Path(out.strip())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Root cannot use the sandbox; the only page that is opened is ours.
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield made
        made.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("NOCOBENCH_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visit:
    """An open page; :meth:`check` says whether it was quiet."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
        self.context.set_offline(True)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#audit .panel > *")

    def check(self) -> None:
        """Nothing on the console, and nothing asked for but the page (and its empty icon)."""
        assert self.complaints == []
        assert [url for url in self.requests[1:] if not url.startswith("data:")] == []


@pytest.fixture
def visit(browser: Any, page_path: Path) -> Iterator[Visit]:
    made = Visit(browser, page_path)
    yield made
    made.check()
    made.context.close()


def column(page: Any, number: int, part: str = "#results") -> list[str]:
    """The texts of one column of a table."""
    return [text.strip() for text in page.locator(f"{part} tbody tr > :nth-child({number})").all_inner_texts()]


def numbers(texts: list[str]) -> list[float]:
    return [float(re.split(r"[ ±†]", text)[0]) for text in texts]


def test_it_opens_with_every_part_drawn(visit: Visit, screenshots: Path) -> None:
    page = visit.page
    assert page.locator(".warning").count() == 0
    assert page.locator("main > section h2").count() == 10
    assert page.locator("#summary li").count() > 5
    assert "HaNa (reconstruction" in page.locator("#summary").inner_text()
    for part in ("curves", "ranks", "densities", "training", "cost"):
        assert page.locator(f"#{part} figure svg path").count() > 2, part
        assert page.locator(f"#{part} figure svg[role=img]").first.get_attribute("aria-label")
    page.screenshot(path=screenshots / "desktop.png", full_page=True)


def test_columns_sort_both_ways_and_say_so(visit: Visit) -> None:
    page = visit.page
    page.select_option("#results select >> nth=0", label="mismatched pairs")
    head = page.locator("#results th", has_text="Score")
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    falling = numbers(column(page, 5))
    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) > 5
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(column(page, 5)) == falling[::-1]


def test_filters_leave_what_was_asked_for(visit: Visit) -> None:
    page = visit.page
    whole = page.locator("#results tbody tr").count()
    page.get_by_label("Rate", exact=True).select_option("20 %")
    assert set(column(page, 3)) == {"20 %"}
    page.get_by_label("Variant", exact=True).select_option("released")
    assert all("npc@released" in text for text in column(page, 1))
    assert page.locator("#results .count").first.inner_text() == "1 row"
    page.get_by_label("Rate", exact=True).select_option("")
    page.get_by_label("Variant", exact=True).select_option("")
    page.locator("#method-search").fill("HANA")
    assert all("reconstruction" in text for text in column(page, 1))
    page.locator("#method-search").fill("")
    assert page.locator("#results tbody tr").count() == whole
    page.get_by_label("Score shown").select_option("i2t_r1")
    assert set(column(page, 6)) == {"i2t R@1"}


def test_the_slider_moves_through_the_epochs(visit: Visit) -> None:
    page = visit.page
    slider = page.locator("#epoch")
    path = page.locator("#densities figure path[fill-opacity]").first
    last, words = path.get_attribute("d"), page.locator("#densities output").inner_text()
    assert words.startswith("epoch 20 of 20")
    slider.focus()
    page.keyboard.press("Home")
    first = int(page.locator("#densities output").inner_text().split()[1])
    assert first < 20
    assert slider.get_attribute("aria-valuetext") == f"epoch {first}"
    assert page.locator("#densities figure path[fill-opacity]").first.get_attribute("d") != last
    page.keyboard.press("ArrowRight")
    assert page.locator("#densities output").inner_text().startswith(f"epoch {first + 1} of 20")


def test_two_methods_are_compared_query_by_query(visit: Visit, screenshots: Path) -> None:
    page = visit.page
    part = page.locator("#queries")
    part.get_by_label("First method").select_option(label="NPC")
    part.get_by_label("Second method").select_option(label="CLIP (InfoNCE)")
    verdict = part.locator(".verdict").first.inner_text()
    assert re.search(r"over 400 queries and 3 common seeds; randomisation test p [<=] 0\.\d{3}", verdict)
    assert "NPC does better on" in verdict
    part.locator("summary").first.click()
    table = part.locator("table", has_text="Queries that differ most").first
    differences = [abs(float(text)) for text in table.locator("tbody tr > :nth-child(4)").all_inner_texts()]
    assert len(differences) == 12
    assert differences == sorted(differences, reverse=True)
    part.get_by_label("First method").select_option(label="CLIP (InfoNCE)")
    assert part.locator(".verdict").count() == 2
    part.screenshot(path=screenshots / "queries.png")


def test_a_number_leads_to_its_runs_and_to_the_record_on_the_disk(
    visit: Visit, page_path: Path, screenshots: Path
) -> None:
    page = visit.page
    page.locator("#method-search").fill("npc@paper")
    page.locator("#results tbody a").first.click()
    dialog = page.locator("dialog[open]")
    assert "NPC: digits" in dialog.locator("h2").inner_text()
    assert dialog.locator("tbody tr").count() == 3
    assert re.search(r"#runs-[0-9a-f]{16}$", page.url)
    dialog.locator("tbody a").first.click()
    page.wait_for_function("location.hash.startsWith('#record-')")
    cell = page.url.split("#record-")[1]
    text = dialog.inner_text()
    for said in (cell, "Commit", "torch", "AMD EPYC", "python run_benchmark.py --methods"):
        assert said in text
    dialog.screenshot(path=screenshots / "record.png")
    file = (page_path.parent / str(dialog.locator("a.file").get_attribute("href"))).resolve()
    assert f'"cell_id": "{cell}"' in file.read_text(encoding="utf-8")
    page.go_back()
    page.wait_for_function("location.hash.startsWith('#runs-')")
    assert dialog.locator("tbody tr").count() == 3


def test_a_link_to_a_record_opens_it_at_once(browser: Any, page_path: Path) -> None:
    made = Visit(browser, page_path)
    cell = made.page.evaluate("records.cell[0]")
    made.page.goto(f"{page_path.as_uri()}#record-{cell}")
    assert made.page.locator("dialog[open] h2").inner_text() == f"Record {cell}"
    made.page.goto(f"{page_path.as_uri()}#record-0123456789abcdef")
    made.page.wait_for_function("document.querySelector('dialog h2').textContent === 'Not here'")
    made.context.close()


def test_it_can_be_used_by_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the summary"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "summary"
    page.locator("#results th button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#results th").first.get_attribute("aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.textContent") == "Method"
    link = page.locator("#results tbody a").first
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.activeElement.id") == "facts-title"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.textContent") == link.inner_text()
    assert "#" not in page.url


def test_choosing_by_keyboard_keeps_the_place(visit: Visit) -> None:
    """A choice that makes other choices anew must not throw the reader back to the top of the page."""
    page = visit.page
    select = page.locator("#queries").get_by_label("Second method")
    before = select.input_value()
    select.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#queries").get_by_label("Second method").input_value() != before
    assert page.evaluate("document.activeElement.labels[0].textContent") == "Second method"


def test_every_control_and_every_figure_has_a_name(visit: Visit) -> None:
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll("select, input, button, svg[role=img], [role=region], dialog[open]")]
            .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
            .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    heads = visit.page.locator("thead th")
    assert heads.count() == visit.page.locator("thead th[scope=col]").count()


def test_charts_are_drawn_in_the_colours_of_all_figures(visit: Visit) -> None:
    colours = visit.page.evaluate("Object.fromEntries(methods.map((one) => [one.name, one.colour]))")
    assert colours["npc@paper"] == "#0072B2"
    assert visit.page.locator("#curves figure path[stroke='#0072B2']").count() == 1
    assert visit.page.locator("#cost figure [fill='#D55E00']").count() >= 1  # HaNa


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}),
        ("calm", {"reduced_motion": "reduce"}),
    ],
)
def test_dark_small_and_calm(
    browser: Any, page_path: Path, screenshots: Path, name: str, context: dict[str, Any]
) -> None:
    made = Visit(browser, page_path, **context)
    page = made.page
    style = page.evaluate("(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))")
    light = [sum(map(int, re.findall(r"\d+", one)[:3])) / 3 for one in style]
    assert (light[0] < light[1]) == (name == "dark")
    assert abs(light[0] - light[1]) > 150
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if name == "phone":
        assert page.locator("#curves svg[role=img]").bounding_box()["width"] <= 360
    if name == "calm":
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.screenshot(path=screenshots / f"{name}.png", full_page=True)
    made.check()
    made.context.close()


def test_hostile_text_stays_text(browser: Any, page_path: Path, tmp_path: Path) -> None:
    """A name that would run code if it ever became markup."""
    hostile = "<img src=x onerror=window.ran=1>"
    content = page_path.read_text(encoding="utf-8")
    written = "\\u003cimg src=x onerror=window.ran=1\\u003e"
    changed = content.replace('"label":"NPC"', f'"label":"{written}"')
    assert changed != content
    target = tmp_path / "index.html"
    target.write_text(changed, encoding="utf-8")
    made = Visit(browser, target)
    assert hostile in made.page.locator("#results").inner_text()
    assert made.page.locator("img").count() == 0
    assert made.page.evaluate("window.ran === undefined")
    made.check()
    made.context.close()
