"""The report in a real headless browser: it loads nothing, says nothing on the console, and its controls work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from browser import running_browser
from evaluation_dataset import make_prepared, tiny_model

from keyreid.model.evaluation.evaluate import Evaluator, evaluate
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.model.evaluation.report.write import write_report

# Six people under three cameras, and a distractor: 12 queries, of which eight are explained.
ROWS = (
    ("train", 1, 1, 2), ("train", 1, 2, 2), ("train", 1, 3, 2), ("train", 2, 1, 2),
    *(("query", identity, camera, 3) for identity in range(3, 9) for camera in (1, 2)),
    *(("gallery", identity, camera, 4) for identity in range(3, 9) for camera in (1, 2, 3)),
    ("gallery", 0, 2, 3),
)  # fmt: skip
MOST_BYTES = 5_000_000


@dataclass
class Watched:
    """A page, and what it said and asked for.

    Attributes:
        page: playwright's.
        errors: console messages of warnings and errors, and exceptions.
        requests: addresses, without data: ones.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluator = Evaluator.on(make_prepared(tmp_path_factory.mktemp("prepared"), ROWS), 0, find_protocol("standard"))
    model = tiny_model()
    evaluation = evaluate(evaluator, Path("runs/first"), model)
    return write_report(tmp_path_factory.mktemp("report"), evaluation, evaluator.store, model)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as running:
        yield running


DESKTOP, PHONE = (1280, 900, "light"), (390, 844, "dark")
on_both = pytest.mark.parametrize("watched", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)


@pytest.fixture
def watched(request, browser, report) -> Iterator[Watched]:
    width, height, scheme = getattr(request, "param", DESKTOP)
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    watched = Watched(context.new_page())
    watched.page.on("console", lambda m: watched.errors.append(m.text) if m.type in ("error", "warning") else None)
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
    watched.page.on("request", lambda r: watched.requests.append(r.url) if not r.url.startswith("data:") else None)
    watched.page.goto(report.as_uri())
    yield watched
    assert watched.errors == []
    assert watched.requests == [report.as_uri()]
    context.close()


def shown_strips(page: Any, name: str) -> list[str]:
    return page.eval_on_selector_all(".strip:not([hidden])", "(all, name) => all.map((one) => one.dataset[name])", name)


def test_the_page_is_light_and_every_picture_decodes(watched, report):
    assert report.stat().st_size < MOST_BYTES
    sizes = watched.page.evaluate("""async () => {
        const images = [...document.images];
        for (const image of images) image.loading = "eager";
        await Promise.all(images.map((image) => image.decode()));
        return images.map((image) => image.naturalWidth);
    }""")
    assert len(sizes) > 12 * 10 and min(sizes) > 0


@on_both
def test_it_fits_the_window(watched):
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_strips_are_sorted(watched):
    page = watched.page
    precision = [float(value) for value in shown_strips(page, "precision")]
    assert len(precision) == 12 and precision == sorted(precision) and precision[0] < precision[-1]
    page.select_option("#order", "best")
    assert [float(value) for value in shown_strips(page, "precision")] == precision[::-1]
    page.select_option("#order", "worst")
    assert [float(value) for value in shown_strips(page, "precision")] == precision
    for order in ("identity", "camera"):
        page.select_option("#order", order)
        numbers = [int(value) for value in shown_strips(page, order)]
        assert numbers == sorted(numbers) and numbers[0] < numbers[-1]


@on_both
def test_strips_are_filtered_and_counted(watched):
    page = watched.page
    page.select_option("#camera", "2")
    assert set(shown_strips(page, "camera")) == {"2"}
    assert page.inner_text("#shown") == "6 of 12 strips"
    page.fill("#identity", "4")
    assert shown_strips(page, "identity") == ["4"] and page.inner_text("#shown") == "1 of 12 strips"
    page.fill("#identity", "")
    page.select_option("#camera", "")
    right, wrong = (
        [page.select_option("#outcome", kind), shown_strips(page, "first")][1] for kind in ("right", "wrong")
    )
    assert set(right) <= {"1"} and "1" not in wrong and len(right) + len(wrong) == 12


@on_both
def test_clicking_a_strip_explains_its_query(watched):
    page = watched.page
    shown = page.locator(".explanation:visible")
    first = shown.get_attribute("id")
    strips = page.locator(".strip[data-explained]")
    assert strips.count() == 8
    for place in (3, 5):
        strip = strips.nth(place)
        tracklet = strip.get_attribute("id").removeprefix("strip-")
        strip.locator("img").first.click()
        page.wait_for_function("id => !document.getElementById(id).hidden", arg=f"query-{tracklet}")
        assert shown.count() == 1 and shown.get_attribute("id") == f"query-{tracklet}" != first
        assert page.input_value("#explained") == f"query-{tracklet}"
        assert f"Person {strip.get_attribute('data-identity')}," in shown.inner_text()
        assert page.evaluate("document.activeElement.id") == f"query-{tracklet}"


def test_the_keyboard_does_it_too(watched):
    page = watched.page
    link = page.locator(".explain").nth(4)
    target = link.get_attribute("href")[1:]
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("id => !document.getElementById(id).hidden", arg=target)
    page.focus("#explained")
    before = page.locator(".explanation:visible").get_attribute("id")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    after = page.locator(".explanation:visible").get_attribute("id")
    assert after == page.input_value("#explained") and {before, after} == {target, after}


def test_the_explained_query_shows_bars_attention_and_maps(watched):
    panel = watched.page.locator(".explanation:visible")
    assert panel.locator(".bars tbody tr").count() == 8  # whole body, six parts, the sum
    assert panel.locator(".bar.match").count() == panel.locator(".bar.other").count() == 7
    assert panel.locator(".meter").count() == 4
    widths = panel.locator(".bar").evaluate_all("all => all.map((one) => one.getBoundingClientRect().width)")
    assert max(widths) > 20 and len({round(width) for width in widths}) > 2
    panel.locator("summary").first.click()
    assert panel.locator("details[open] img.maps").first.is_visible()


def test_it_can_be_read_without_a_script(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".explanation:visible").count() == 8 and page.locator(".strip:visible").count() == 12
    assert page.locator(".script:visible").count() == 0
    context.close()


def test_frames_differ_by_more_than_colour(watched):
    styles = watched.page.evaluate("""() => ["match", "other"].map((kind) =>
        getComputedStyle(document.querySelector(`.cell.${kind} img`)).borderTopStyle)""")
    assert styles == ["solid", "dashed"]
    marks = watched.page.eval_on_selector_all(
        ".cell:not(.query)",
        "all => all.map((one) => [one.classList[1], one.textContent.trim()[0], one.querySelector('img').alt])",
    )
    found = {(kind, mark, alt.split(",")[0]) for kind, mark, alt in marks}
    assert found == {("match", "✓", "right"), ("other", "✗", "wrong")}
