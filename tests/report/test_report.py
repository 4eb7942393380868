"""The report in a browser: it loads alone, every figure and picture is there, and the keyboard reaches everything."""

import html.parser
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_folders import DECODERS, make_image
from PIL import Image

from rankseg_plugins.comparison import Recorder, Sample, compare
from rankseg_plugins.comparison.phrases import points
from rankseg_plugins.report import write_report
from rankseg_plugins.report.panels import draw_panels
from rankseg_plugins.report.words import p_value
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.lesions import Lesions
from rankseg_plugins.tuning import tune

# The made images are; that this is said is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")

TUNED = DECODERS[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
HOSTILE = "<script>alert('x')</script>"
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def make_comparison(decoders=DECODERS, images=24, **options):
    extra = (Boundaries(1), Lesions())
    recorder = Recorder(decoders, num_classes=3, ignore_index=255, extra=extra, risk_coverage=True)
    sites = {}
    for index in range(images):
        probs, labels = make_image(index)
        name = HOSTILE if index == 3 else f"image{index:02d}"
        sites[name] = HOSTILE if index % 3 else f"site{index % 2}"
        recorder.add(Sample(name, torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64))))
    recorder.skipped["bad"] = f"bad.npz: {HOSTILE}"
    names, facts = ["sky", "road & car", "tree"], {"command": HOSTILE}
    return recorder.comparison(names, facts=facts, groups={HOSTILE: sites}, **options)


@pytest.fixture(scope="module")
def comparison():
    return make_comparison([*DECODERS, "rankseg(metric=iou)"])


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    comparison.report(path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


def show(browser, folder, width=1200, dark=False):
    scheme = "dark" if dark else "light"
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((folder / "report.html").as_uri())


def test_loads_alone_and_without_errors(browser, folder):
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, folder)
    assert browser.get_log("browser") == []
    sent = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert sent, "the browser does not log its requests"
    assert not [message for message in sent if '"url":"http' in message]
    urls = {message.split('"url":"')[1].split('"')[0][:5] for message in sent}
    assert urls <= {"file:", "data:"}


@pytest.mark.parametrize("dark", [False, True])
def test_every_picture_is_decoded(browser, folder, comparison, dark):
    show(browser, folder, dark=dark)
    widths = browser.execute_script("return [...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    # Truth, three decisions and two differences: of the second decoder, and of the best behind it.
    assert len(widths) == 6 + 6 * (len(comparison.improved) + len(comparison.damaged))
    assert min(widths) > 0
    assert all(browser.execute_script("return [...document.images].map(i => i.alt.length > 0)"))


def test_dark_mode_is_dark(browser, folder):
    script = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    chart = "return document.querySelector('img.chart').currentSrc"
    show(browser, folder)
    light, light_chart = browser.execute_script(script), browser.execute_script(chart)
    show(browser, folder, dark=True)
    dark, dark_chart = browser.execute_script(script), browser.execute_script(chart)
    assert min(light) > 200
    assert max(dark) < 60
    assert light_chart != dark_chart


def test_fits_a_phone(browser, folder):
    show(browser, folder, width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert float(browser.execute_script("return getComputedStyle(document.body).fontSize").removesuffix("px")) >= 16


@pytest.mark.parametrize("dark", [False, True])
def test_tables_that_go_on_are_shaded_where_they_do(browser, folder, dark):
    """Pixels at the edges of a table of a phone, above its words, at the beginning and at the end."""
    show(browser, folder, width=390, dark=dark)
    table = "const table = document.querySelector('[aria-labelledby=levels]');"
    edges = []
    for place in ("0", "table.scrollWidth"):
        browser.execute_script(f"{table} table.scrollIntoView(); table.scrollLeft = {place};")
        left, top, width = browser.execute_script(
            f"{table} const box = table.getBoundingClientRect(); return [box.left, box.top, box.width]"
        )
        shot = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")).astype(int)
        line = shot[round(top) + 8, round(left) : round(left + width)]
        edges.append((abs(line[3] - line[180]) > 20, abs(line[-4] - line[180]) > 20))
    # On the left lie the names, which stay.
    assert [right for _, right in edges] == [True, False]


def test_pictures_show_the_second_decoder_and_the_best_of_the_others(comparison):
    panels = draw_panels(comparison)
    behind = comparison.candidates[1:]
    best = max(behind, key=lambda name: comparison.paired(name).mean)
    assert panels.decoders == [TUNED, best]
    for title, found in panels.groups:
        for panel in found:
            assert [name for name, _ in panel.pictures] == [
                "truth", "argmax", TUNED, best, f"difference, {TUNED}", f"difference, {best}"
            ]  # fmt: skip
            for name, gain in panel.gains:
                paired = comparison.paired(name)
                assert gain == paired.differences[paired.names.index(panel.name)]
            assert (panel.gains[0][1] > 0) == (title == "Most improved")
    said = [words for words, _ in panels.differences]
    assert said == ["only the other decoder is right", "only argmax is right", "both are wrong"]


def test_a_photograph_and_the_palette_of_the_data_set(comparison):
    image = np.random.default_rng(0).integers(0, 255, (*comparison.improved[0].truth.shape, 3), np.uint8)
    own = [(10, 20, 30), (200, 10, 10), (10, 10, 200)]
    two = replace(make_comparison(palette=own), improved=(replace(comparison.improved[0], image=image),), damaged=())
    panels = draw_panels(two)
    ((_, (panel,)),) = panels.groups
    pictures = {name: np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for name, png in panel.pictures}
    assert list(pictures) == ["image", "truth", "argmax", TUNED, "difference"]
    assert np.abs(pictures["image"].astype(int) - image).mean() < 12  # a palette of 256 colours
    truth = comparison.improved[0].truth
    assert (pictures["truth"][truth >= 0] == np.array(own, np.uint8)[truth[truth >= 0]]).all()
    assert dict(panels.classes)["road & car"] == "#c80a0a"
    with pytest.raises(ValueError, match="palette must be a colour for each of 3 classes, got 2"):
        make_comparison(palette=own[:2])


def contrasts(browser):
    """Contrast ratio (WCAG) of every piece of text with the background behind it."""
    return browser.execute_script(
        """
        const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
        const colour = text => text.match(/[\\d.]+/g).map(Number);
        const ground = e => {
          for (; e; e = e.parentElement) {
            const c = colour(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] === 1) return c;
          }
          return [255, 255, 255];
        };
        return [...document.querySelectorAll('body *')]
          .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
          .map(e => {
            const [a, b] = [light(colour(getComputedStyle(e).color)), light(ground(e))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          });
        """
    )


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read(browser, folder, dark):
    show(browser, folder, dark=dark)
    found = contrasts(browser)
    assert len(found) > 200
    assert min(found) >= 4.5


def test_tables_hold_the_figures(browser, folder, comparison):
    show(browser, folder)
    rows = browser.execute_script(
        "const cells = row => [...row.cells].map(cell => cell.textContent);"
        "return [...document.querySelectorAll('table')].map(table => [...table.rows].map(cells))"
    )
    decoders, levels, groups, boundaries, by_class, lesions, _, classes, shown, calibration, trust = rows
    for row, decoder in zip(decoders[2:], comparison.candidates, strict=True):
        paired = comparison.paired(decoder)
        assert row[0] == decoder
        assert row[2].split()[0].replace("\u2212", "-") == points(paired.mean)
        assert row[3:6] == [str(paired.wins), str(paired.losses), str(paired.ties)]
        assert row[6] == p_value(paired.wilcoxon)
    assert len(levels) == 1 + 15 + 2
    figures = comparison.extra_figures
    for k, row in enumerate((*boundaries[1:], *lesions[1:])):
        scale = 1 if k in (1, 2) else 100
        assert [cell.split()[0] for cell in row[1:]] == [f"{scale * mean:.2f}" for mean in figures.means[:, k]]
    assert by_class[2][2].split(" / ") == [f"{value:.2f}" for value in figures.classes[:, 1, 1]]
    assert [row[0] for row in classes[1:]] == ["sky", "road & car", "tree"]
    assert [row[0] for row in shown[1:]] == [row[0] for row in classes[1:]]
    assert [row[0] for row in calibration[1:]] == ["sky", "road & car", "tree", "top label"]
    assert [row[:3] for row in groups] == [
        [HOSTILE, "images", "cases"],
        [HOSTILE, "16", "16"],
        ["site0", "4", "4"],
        ["site1", "4", "4"],
    ]
    assert [row[0] for row in trust[1:]] == list(comparison.decoders)
    areas = [comparison.risk_coverage(decoder).area for decoder in comparison.decoders]
    assert [row[3] for row in trust[1:]] == [f"{100 * area:.2f}" for area in areas]
    headers = browser.execute_script("return [...document.querySelectorAll('th')].every(h => h.scope)")
    assert headers


def test_keyboard_reaches_everything(browser, folder):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, folder, width=390)
    reached = []
    for _ in range(40):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        name = browser.execute_script(
            "const e = document.activeElement; return e.getAttribute('aria-labelledby') || e.textContent.slice(0, 20)"
        )
        if name in reached:
            break
        reached.append(name)
    assert reached[0].startswith("Skip to")
    assert {"decoders", "levels", "classes", "Every class"} <= set(reached)
    browser.execute_script("document.querySelector('[aria-labelledby=levels]').focus()")
    for _ in range(10):
        browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    moved = "return document.querySelector('[aria-labelledby=levels]').scrollLeft > 0"
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(moved))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    images = [make_image(index) for index in range(24)]
    samples = [
        (f"image{i:02d}", torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64)))
        for i, (probs, labels) in enumerate(images)
    ]
    found, path = tune(samples, ignore_index=255), tmp_path_factory.mktemp("tuned")
    found.report(path)
    return found, path


@pytest.mark.parametrize("dark", [False, True])
def test_page_of_a_tuning(browser, tuned, dark):
    """The verdict first, every candidate, code that scrolls by itself; no script, no request, all text legible."""
    found, folder = tuned
    browser.get_log("browser")
    show(browser, folder, width=390, dark=dark)
    assert browser.get_log("browser") == []
    assert (
        browser.execute_script("return document.querySelector('.verdict').textContent").replace("\u2212", "-")
        == found.verdict
    )
    rows = browser.execute_script(
        "return [...document.querySelector('table').rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    gains = dict(zip(found.comparison.candidates, found.comparison.differences.levels["dice", "image"], strict=True))
    assert rows[1][0] == "argmax"
    assert {row[0]: row[2].replace("\u2212", "-") for row in rows[2:]} == {
        name: points(gain) for name, (gain, _, _) in gains.items()
    }
    assert len(browser.execute_script("return [...document.querySelectorAll('pre')].map(each => each.tabIndex)")) == 4
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert min(contrasts(browser)) >= 4.5


def test_names_are_escaped(browser, folder):
    show(browser, folder)
    assert "<wbr>" not in browser.execute_script("return document.body.textContent")
    assert browser.execute_script("return document.scripts.length") == 0
    assert HOSTILE in browser.execute_script("return document.body.textContent")


class Outline(html.parser.HTMLParser):
    """Headings, and every address that a page loads."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "srcset", "href") and value]


def test_one_file_without_links(folder):
    outline = Outline((folder / "report.html").read_text())
    assert "script" not in outline.tags
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in outline.addresses)
    assert outline.tags.count("h1") == 1


def test_markdown_tables_are_whole(folder, comparison):
    text = (folder / "report.md").read_text()
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(blocks) == 5 + 2 + 2
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block}) == 1
    for name in ("histogram", "scatter", "classes", "reliability", "decoders", "trust"):
        assert f"(pictures/{name}.png)" in text
        assert (folder / f"pictures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert comparison.paired(TUNED).regressions()[0][0] in text


def test_plot_draws_the_images(comparison):
    figure = comparison.plot()
    histogram, scatter, classes, _ = figure.axes
    paired = comparison.paired(TUNED)
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in histogram.patches]
    assert sum(height for x, height in bars if x > 0) == paired.wins
    assert sum(height for x, height in bars if x < 0) == paired.losses
    np.testing.assert_allclose(scatter.collections[0].get_offsets(), 100 * np.column_stack(paired[1:3]))
    assert sorted(bar.get_width() for bar in classes.patches) == pytest.approx(
        sorted(100 * comparison.differences.classes[0][:, 0])
    )


@pytest.mark.parametrize("case", ["one image", "nothing changes", "one class", "no probabilities"])
def test_odd_comparisons_make_a_report(tmp_path, case):
    if case == "one image":
        found = make_comparison(images=1)
    elif case == "nothing changes":
        twice = {"argmax": lambda probs: probs.argmax(1), "again": lambda probs: probs.argmax(1)}
        found = make_comparison(twice)
        assert found.paired("again").ties == 24
    elif case == "one class":
        samples = [(str(i), torch.rand(1, 8, 8), torch.randint(0, 2, (8, 8))) for i in range(5)]
        found = compare(samples, DECODERS)
    else:
        recorder = Recorder(DECODERS, num_classes=3)
        for index in range(4):
            labels = torch.randint(0, 3, (3, 8, 8), generator=torch.Generator().manual_seed(index))
            recorder.add_decided(str(index), labels[0], labels[1:])
        found = recorder.comparison()
    found.report(tmp_path)
    found.plot().canvas.draw()
    assert "nan" not in re.sub(r'"data:[^"]*"', "", (tmp_path / "report.html").read_text())
    assert "nan" not in (tmp_path / "report.md").read_text()
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_how_often_classes_are_shown(folder, comparison):
    """Counted image by image."""
    lines = (folder / "report.md").read_text().split("## Classes that are shown")[1].split("##")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]
    for label, row in enumerate(table):
        held = [each.counts[0, 2, label] > 0 for each in comparison.measurements]
        assert int(row[1]) == sum(held)
        for index in range(len(comparison.decoders)):
            shown = [each.counts[index, 1, label] > 0 for each in comparison.measurements]
            right = sum(one and other for one, other in zip(shown, held, strict=True))
            assert row[2 + index] == f"{sum(shown)} ({right})"


def test_recall_of_one_channel_stands_once(tmp_path):
    """Its accuracy is the recall of the foreground; of several classes accuracy has rows of its own."""
    images = [make_image(index) for index in range(6)]
    several = [
        (str(index), *map(torch.from_numpy, (image[0], image[1].astype(int)))) for index, image in enumerate(images)
    ]
    one = [(name, probs[1:2], torch.where(labels == 255, 255, labels == 1)) for name, probs, labels in several]
    for samples, accuracy in ((one, 0), (several, 3)):
        found = compare(samples, ignore_index=255, panels=0)
        write_report(found, tmp_path)
        for name, row in (("report.html", r'<th scope="row">{}</th>'), ("report.md", r"^\| {} \|")):
            text = (tmp_path / name).read_text()
            rows = re.findall(row.format("(?:dataset|image|class) ([a-z ]+)"), text, re.MULTILINE)
            assert (rows.count("recall"), rows.count("accuracy")) == (3, accuracy)
            assert not any("foreground" in row for row in rows)
            assert ("Accuracy is the share" in text) == bool(accuracy)
            assert "so they can be certain where the interval holds 0." in text
