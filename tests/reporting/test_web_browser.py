"""The HTML report in a headless Chromium: it says nothing to the console, asks nobody, and fits a phone."""

import json
import os
from pathlib import Path

import browser
import pytest
import test_reporting as made
import test_web

from robustness.reporting import writers
from robustness.reporting.report import RunReport

load_card = made.load_card

pytestmark = pytest.mark.skipif(browser.executable() is None, reason="no Chromium (apt-get install chromium)")

WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') || e.matches('.scroll'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
LONG = "a-name-of-many-letters|<b>" * 12


@pytest.fixture(scope="module")
def shown():
    with browser.browser() as page:
        yield page


@pytest.fixture(params=["plain", "hostile"])
def file(load_card, tmp_path, request):
    document = test_web.whole(load_card).as_json()
    if request.param == "hostile":
        for target in sorted(set(test_web.places(document))):
            if not target.endswith(test_web.WORDS) and "pictures" not in target:
                document = test_web.poisoned(document, target)
        document["models"][0]["name"] = document["counts"]["models"][0]["name"] = LONG
    path = tmp_path / "report.html"
    report = RunReport.model_validate(document)
    writers.write(report, path)
    writers.write(report, path.with_suffix(".json"))
    return path


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("medium", ["screen", "print"])
def test_nothing_is_wider_than_the_screen(shown, file, width, medium):
    """Catches: a table, a hash or a name of 300 characters that makes a phone's page scroll sideways."""
    shown.width(width)
    shown.media(medium if width > 390 else "screen")
    shown.open(file)
    assert shown.value("document.documentElement.scrollWidth") <= width
    if shown.value("matchMedia('screen').matches"):
        assert shown.value(WIDE) == []


def test_the_console_is_silent_and_nobody_is_asked(shown, file):
    shown.said.clear()
    shown.asked.clear()
    shown.width(1280)
    shown.media()
    shown.open(file)
    assert shown.value("document.title").startswith("Robustness report: ")
    assert shown.said == []
    assert {url.partition(":")[0] for url in shown.asked} <= {"file", "data"}
    assert sum(url.startswith("file") for url in shown.asked) == 1


def test_plots_and_pictures_are_there(shown, file):
    """Catches: curves without an extent, as of a path that the browser could not read; pictures that do not load."""
    shown.width(1280)
    shown.media()
    shown.open(file)
    sizes = shown.value("[...document.querySelectorAll('.curve svg')].map(e => e.getBoundingClientRect().height)")
    assert len(sizes) >= 2
    assert min(sizes) > 100
    lines = shown.value("[...document.querySelectorAll('.curve .value')].map(e => e.getTotalLength())")
    assert max(lines) > 50
    pictures = shown.value("[...document.images].map(e => e.naturalWidth)")
    assert pictures
    assert set(pictures) == {8}


def test_numbers_are_the_jsons(shown, file):
    """Catches: a number on the page that the JSON beside it does not have, or one that takes no room there."""
    shown.width(1280)
    shown.media()
    shown.open(file)
    told = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["models"]
    due = [
        [claim["threshold"], *(claim["numbers"].get(key) for key in ("value", "low", "high"))]
        for model in told
        for claim in model["claims"]
    ]
    found = [[None if value is None else float(value) for value in row] for row in shown.value(CLAIMED)]
    assert len(found) > 5
    assert found == due
    points = shown.value("[...document.querySelectorAll('.curve .point')].map(e => e.dataset.value)")
    values = {m["value"] for model in told for s in model["sweeps"] for c in s["cells"] for m in c["metrics"].values()}
    assert {float(value) for value in points if value != "None"} <= values


CLAIMED = """[...document.querySelectorAll('[data-claim]')].map(r => ['threshold', 'value', 'low', 'high'].map(name => {
    const found = r.querySelector('data.' + name);
    return found && found.getBoundingClientRect().width > 0 ? found.value : null;
}))"""


def test_dark_and_light_are_readable(shown, file):
    """Catches: text that keeps one scheme's colour on the other's ground: every word has a contrast of 4.5 at least."""
    shown.width(1280)
    for scheme in ("light", "dark"):
        shown.media("screen", scheme)
        shown.open(file)
        worst = shown.value(CONTRAST)
        assert worst[0] >= 4.5, (scheme, worst)
    assert shown.value("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"


def test_axe_has_no_complaint(shown, file):
    """Catches: a landmark, a label or a name that a screen reader needs and that is not there."""
    axe = pytest.importorskip("axe_core_python", reason="no axe-core-python (pip install '.[test]')")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    shown.width(1280)
    for scheme in ("light", "dark"):
        shown.media("screen", scheme)
        shown.open(file)
        shown.value(script + "; 0")
        violations = shown.value(
            "axe.run().then(found => found.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"
        )
        assert [each for each in violations if each[0] in ("serious", "critical")] == []
        # A landmark or a heading that is missing is only moderate.
        assert [each for each in violations if each[1] in ("region", "heading-order", "landmark-one-main")] == []


def test_twenty_models_are_short_while_folded(shown, load_card, tmp_path):
    """Catches: a model that passed and is not folded, a failed one that is; folded models on paper."""
    document = test_web.whole(load_card)
    some = document.models[0]
    quiet = some.model_copy(deep=True, update={"open_doubts": [], "gate": None})
    for claim in quiet.claims:
        claim.outcome = "passed"
    for cell in [cell for sweep in quiet.sweeps for cell in sweep.cells]:
        cell.status = "ok"
        for claim in cell.claims.values():
            claim.outcome = "passed"
    document.models = [quiet.model_copy(update={"name": f"model-{i}"}) for i in range(20)]
    writers.write(document, tmp_path / "quiet.html")
    document.models[7] = some
    writers.write(document, tmp_path / "loud.html")
    folder = Path(os.environ.get("ROBUSTNESS_SCREENSHOTS") or tmp_path)
    for name, opened in (("quiet", []), ("loud", ["m8"])):
        for width, medium, scheme in ((1280, "screen", "light"), (1280, "screen", "dark"), (390, "screen", "light"),
                                      (1280, "print", "light")):  # fmt: skip
            shown.width(width)
            shown.media(medium, scheme)
            shown.open(tmp_path / f"{name}.html")
            shown.screenshot(folder / f"{name}-{width}-{medium}-{scheme}.png")
            height = shown.value("document.documentElement.scrollHeight")
            shapes = shown.value("[...document.querySelectorAll('.model table')].map(e => e.checkVisibility())")
            if medium == "print":
                assert all(shapes)  # paper cannot be unfolded
            elif name == "quiet":
                assert height <= 20_000
                assert not any(shapes)
        found = shown.value("[...document.querySelectorAll('.model:has(> details[open])')].map(e => e.id)")
        assert found == opened


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour, under) => {
    canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => {
    let under = getComputedStyle(document.body).backgroundColor;
    const chain = [];
    for (let at = e; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
    for (const colour of chain) under = `rgb(${rgb(colour, under)})`;
    return under;
  };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.closest('title')) continue;
    const style = getComputedStyle(e), under = ground(e);
    const colour = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(rgb(colour, under)), light(rgb('transparent', under))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < worst[0]) worst = [contrast, e.outerHTML.slice(0, 200)];
  }
  return worst;
})()"""
