"""`imgzoo explore`: the page holds every name and weight, loads nothing, and works in a browser."""

import json
import re

import pytest
from chromium import marked, wait, window

import imgzoo
from imgzoo.cli.explore import command
from imgzoo.errors import UsageError
from imgzoo.explorer import all_rows, page, read_measured, table
from imgzoo.query import Query, pareto_front, search

pytest.importorskip("plotly", reason="the page carries plotly: pip install 'imgzoo-core[explore]'")


@pytest.fixture(scope="module")
def columns():
    return table(all_rows(), {"resnet18": 12.5})


@pytest.fixture(scope="module")
def written(columns, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "models.html"
    path.write_text(page(columns, "1.2.3"), encoding="utf-8")
    return path


def test_every_name_and_weight_is_there(columns):
    weights = {row.name for row in search(Query(pretrained=True))}
    assert weights <= {*columns["name"]}
    bare = {name.partition(".")[0] for name in columns["name"]}
    assert bare == {*imgzoo.list_models()}
    assert {len(column) for column in columns.values()} == {len(columns["name"])}
    times = {ms for name, ms in zip(columns["name"], columns["ms"]) if name.startswith("resnet18.")}
    assert times == {12.5}


def test_what_stands_in_the_page_is_what_was_put_in_and_nothing_is_loaded(columns, written):
    text = written.read_text(encoding="utf-8")
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    assert json.loads(data[1])["columns"] == columns
    assert not re.search(r"https?://|src=|@import|url\(", text)
    assert "default-src 'none'" in text


def test_a_name_cannot_end_the_script():
    bad = "</script><script>alert(1)</script>"
    columns = table([])
    text = page({**columns, "name": [bad]}, "1")
    assert bad not in text


@pytest.mark.parametrize("text", ["", "[1]", '{"model": "a"}', '[{"model": "a", "ms_p50": "fast"}]', "[[]]"])
def test_other_files_are_refused(text):
    with pytest.raises(UsageError, match="imgzoo benchmark --json"):
        read_measured(text, "some.json")


def test_a_file_that_is_no_page_is_not_written_over(tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"a \.html file"):
        command.main(["--output", str(photo)], standalone_mode=False)
    assert photo.read_bytes() == b"mine"


def test_measured_rows_are_read():
    rows = [{"model": "resnet18", "ms_p50": 3.5}, {"model": "broken", "error": "no"}]
    assert read_measured(json.dumps(rows), "some.json") == {"resnet18": 3.5}


@pytest.fixture(scope="module")
def browser(written):
    with window() as opened:
        opened.get(written.as_uri())
        wait(opened, lambda: marked(opened, "ready"))
        yield opened


def names(window):
    return [button.text for button in window.find_elements("css selector", "#rows button")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_in_a_browser(browser, columns):
    """Filters, sorts, plots and chooses; fast, by keyboard, dark and light; nothing goes wrong on the console."""
    from selenium.webdriver.common.keys import Keys

    def find(name):
        return browser.find_element("id", name)

    count = len(columns["name"])
    assert find("line").text.startswith(f"{count} of {count} ") and len(names(browser)) == 100

    rows = search(Query(pretrained=True, columns=("gmacs", "top1")))
    front = pareto_front(rows, lambda row: row.cost(1), lambda row: row.score("imagenet"))
    assert int(marked(browser, "front")) == len({(row.cost(1), row.score("imagenet")) for row in front})

    find("text").send_keys("ResNet50 a1")
    expected = [name for name in columns["name"] if "resnet50" in name and "a1" in name]
    wait(browser, lambda: find("line").text.startswith(f"{len(expected)} of"))
    assert sorted(names(browser)) == sorted(expected)
    assert float(marked(browser, "filterMs")) < 50

    orders = []
    for direction in ("ascending", "descending"):
        browser.find_element("css selector", "#head [data-column=name]").send_keys(Keys.ENTER)
        orders.append(names(browser))
        assert browser.find_element("css selector", "#head th").get_attribute("aria-sort") == direction
    assert orders[0] == orders[1][::-1] and sorted(orders[0]) == sorted(expected)
    assert browser.switch_to.active_element.get_attribute("data-column") == "name"

    browser.find_element("css selector", "#rows button").send_keys(Keys.ENTER)
    assert find("python").text == f'imgzoo.create_model("{orders[1][0]}", pretrained=True)'

    find("everything").click()
    wait(browser, lambda: find("line").text.startswith(f"{count} of"))
    browser.execute_script("at('x').value = 'params'; at('x').dispatchEvent(new Event('change'))")
    assert browser.execute_script("return at('chart').layout.xaxis.title.text") == "M params"
    place = "const head = document.querySelector('#head [data-column=top1]').getBoundingClientRect(); return head.right"
    assert browser.execute_script(place) < browser.execute_script("return innerWidth"), "what sorts is out of sight"
    theme = marked(browser, "theme")
    find("theme").click()
    assert {theme, marked(browser, "theme")} == {"dark", "light"}
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('input,select,button')].filter("
        "e => !e.labels?.length && !e.textContent.trim() && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    assert browser.get_log("browser") == []
