"""The page in a real browser: nothing overflows, tables sort by keyboard, both colour schemes, no script of others.

CI has Chromium; elsewhere these tests are skipped without it (apt-get install chromium).
"""

import chromium
import pytest

from teachonce.report import write_report

pytestmark = pytest.mark.system

WIDTHS = (420, 1280, 1600)
ENTER = ("Enter", 13, "\r")
# Relative luminance and contrast as WCAG 2 defines them, of the colours that an element is drawn with.
CONTRAST = """((element) => {
  const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((level) => level / 255)
    .map((level) => (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4));
  const luminance = ([red, green, blue]) => 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  const style = getComputedStyle(element);
  const ink = luminance(channels(element instanceof SVGElement ? style.fill : style.color));
  const ground = luminance(channels(getComputedStyle(document.body).backgroundColor));
  return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
})"""
COLUMN = "[...document.querySelector('table.sortable').tBodies[0].rows].map((row) => row.cells[{}].textContent.trim())"
TOO_WIDE = """[...document.querySelectorAll('main > *')].map((each) => [each.getBoundingClientRect().right, each])
  .filter(([right]) => right > innerWidth).map(([, each]) => each.outerHTML.slice(0, 80))"""
ARIA_SORT = "[...document.querySelector('table.sortable').tHead.rows[0].cells].map((cell) => cell.ariaSort)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium.browser(chromium.required_executable(), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(params=["whole", "bare", "top3"])
def shown(request, tab):
    """A tab with the page of a run."""
    world = request.getfixturevalue(request.param)
    write_report.build_page(world.paths())
    tab.complaints.clear()
    tab.open(world.root / "report" / write_report.PAGE)
    yield tab
    assert tab.complaints == []


def test_nothing_overflows_and_all_is_legible_at_any_width_in_light_and_dark(shown):
    grounds = set()
    for width in WIDTHS:
        for dark in (False, True):
            shown.look(width, dark=dark)
            # All that is folded is opened: what lies in it must fit too.
            shown.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            assert shown.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
            assert shown.run(TOO_WIDE) == []
            for place in ("h1", "p", "caption", ".side a", "summary", "figure svg text", ".dots-name, td"):
                contrast = shown.run(f"{CONTRAST}(document.querySelector('{place}'))")
                assert contrast > 4.5, (place, width, dark)
            grounds.add((dark, shown.run("getComputedStyle(document.body).backgroundColor")))
    assert grounds == {(False, "rgb(255, 255, 255)"), (True, "rgb(20, 24, 30)")}


def test_the_contents_stand_at_the_side_or_folded_on_top(shown):
    is_shown = "[...document.querySelectorAll('.side, .folded')].map((each) => each.checkVisibility())"
    shown.look(1280)
    assert shown.run(is_shown) == [True, False]
    shown.run("window.scrollTo(0, 2000)")
    assert shown.run("document.querySelector('.side').getBoundingClientRect().top") == 0
    shown.look(420)
    assert shown.run(is_shown) == [False, True]
    targets = "[...document.querySelectorAll('nav a')].map((each) => document.querySelector(each.hash) !== null)"
    assert set(shown.run(targets)) == {True}
    shown.run("document.querySelector('.folded').open = false; document.querySelector('.folded summary').focus()")
    shown.press(*ENTER)
    assert shown.run("document.querySelector('.folded').open")


def test_tables_sort_by_keyboard(shown):
    shown.look(1280)
    first = shown.run(COLUMN.format(0))
    shown.run("document.querySelector('table.sortable th').focus(); document.querySelector('.skip').focus()")
    for _ in range(60):
        shown.press("Tab", 9)
        if shown.run("document.activeElement.matches('table.sortable th button')"):
            break
    assert shown.run("document.activeElement.closest('th').cellIndex") == 0
    shown.press(*ENTER)
    assert shown.run(ARIA_SORT)[:2] == ["descending", "none"]
    assert shown.run(COLUMN.format(0)) == sorted(first, reverse=True)
    shown.press(*ENTER)
    assert shown.run(ARIA_SORT)[:2] == ["ascending", "none"]
    assert shown.run(COLUMN.format(0)) == sorted(first)
    # Numbers by value, whatever follows them; another column forgets the first.
    last = len(shown.run(ARIA_SORT)) - 1
    shown.run(f"document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells[{last}].firstChild.focus()")
    shown.press(" ", 32, " ")
    values = [float(text.split()[0]) for text in shown.run(COLUMN.format(last))]
    assert values == sorted(values, reverse=True)
    assert shown.run(ARIA_SORT)[0] == "none"


def test_no_script_of_others_runs(whole, tab):
    """Were a text of data ever taken for markup, the page's policy would still forbid it to run."""
    write_report.build_page(whole.paths())
    tab.open(whole.root / "report" / write_report.PAGE)
    tab.complaints.clear()
    tab.run(
        "const script = document.createElement('script'); script.textContent = 'window.taken = 1';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.taken = 2\">x</b>');"
        "document.body.lastChild.click()"
    )
    assert tab.run("window.taken ?? null") is None
    assert sum("Content Security Policy" in complaint for complaint in tab.complaints) >= 2
