"""What a person sees of the page in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcts_utils.report.view.page import write_page
from tests.report.view.conftest import Shown

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chromium")]


def test_why_a_goal_was_lost_is_two_clicks_away(shown):
    made = "2 search trees with 10 paths became 15 training rows, "
    assert shown.text("h1") == made + "and tiny_actor now solves 1 of 4 textcraft goals as before."
    shown.tab.get_by_role("link", name="1 lost").click()
    shown.tab.get_by_role("heading", name="oak planks").wait_for()
    reasons = shown.tab.locator(".reason").all_inner_texts()
    assert reasons[0] == "Solved in 2 steps."
    assert reasons[1].startswith(
        "Lost in a loop: from step 2 on “craft 4 oak planks” is taken 9 times, refused 9 times"
    )
    assert shown.text(".first-difference") == "First difference: step 2"
    assert shown.text(".fold summary").endswith("the same action 8 more times (steps 3 to 10)")
    assert shown.tab.locator(".step:visible").count() == 3  # the shared one, and one of each


def test_a_node_tells_what_was_done_there_and_a_row_and_its_node_lead_to_each_other(shown):
    shown.open("#trees?tree=103")
    shown.tab.get_by_role("button", name=re.compile("^node 3:")).click()
    assert shown.text(".this-node h2") == "Node 3 step 2"
    assert "Judge: bad. It was refused." in shown.text(".this-node")
    shown.tab.get_by_role("link", name="row 0 (shared)").click()
    shown.tab.get_by_role("heading", name="red nether bricks revision").wait_for()
    assert shown.text(".step.target").startswith("2 node 3")
    titles = shown.tab.locator(".part-title").all_inner_texts()
    assert titles == [
        "Beginning that the good path shares",
        "Bad path, up to the first error",
        "Revision signal",
        "Repaired rest",
    ]
    assert "executed: 7 steps, reward 1" in shown.text(".badges")
    signal = shown.tab.locator(".step.part-signal .trained .text").first
    assert "underline" in signal.evaluate("(one) => getComputedStyle(one).textDecorationLine")
    shown.tab.get_by_role("link", name="node 12").click()
    shown.tab.get_by_role("heading", name="Node 12 step 4").wait_for()


def test_the_search_plays_iteration_by_iteration_with_the_numbers_that_decided(shown):
    shown.open("#trees?tree=103")
    shown.tab.locator(".shape").first.wait_for()
    every = shown.tab.locator(".shape").count()
    slider = shown.tab.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    assert shown.text(".slider").startswith("Iteration 0 of")
    assert shown.tab.locator(".shape").count() == 1
    slider.press("ArrowRight")
    assert 1 < shown.tab.locator(".shape").count() < every
    table = shown.text(".decisions table")
    assert "at the root, N = 0 child action N Q UCT" in table and "∞" in table
    slider.press("End")
    assert shown.tab.locator(".shape").count() == every
    shown.tab.get_by_label("equal states once").check()
    assert 1 < shown.tab.locator(".shape").count() < every


def test_a_dropped_pair_has_its_reason_and_its_picture(shown):
    shown.open("#records?kind=dropped")
    shown.tab.get_by_role("link", name=re.compile("centric · good leaf 10, bad leaf 16")).click()
    assert "duplicate: its actions are those of a row that was written." in shown.text(".dropped")
    assert shown.tab.locator("path.edge.of-bad").count() and shown.tab.locator("path.edge.of-good").count()


def test_keys_and_search_do_without_a_mouse(shown):
    shown.tab.keyboard.press("4")
    shown.tab.get_by_role("heading", name="red nether bricks revision").wait_for()
    shown.tab.keyboard.press("j")
    shown.tab.wait_for_function("() => location.hash === '#records?row=1'")
    shown.tab.keyboard.press("/")
    shown.tab.wait_for_function("() => document.activeElement.type === 'search'")
    shown.tab.keyboard.type("warped stem")
    shown.tab.wait_for_function("() => /^\\d+ of 15$/.test(document.querySelector('.found').innerText)")
    assert shown.text(".rows") == "✓ warped planks row 7 · good · 2 steps"
    shown.tab.keyboard.press("Escape")
    shown.tab.keyboard.press("?")
    assert "next, previous line" in shown.text("dialog")
    shown.tab.keyboard.press("Escape")
    shown.open("#103/2")
    shown.tab.get_by_role("heading", name="Node 2").wait_for()
    shown.tab.locator(".canvas").focus()
    shown.tab.keyboard.press("ArrowRight")
    shown.tab.wait_for_function("() => /node=(?!2$)/.test(location.hash)")


def test_texts_are_shown_and_never_run(shown):
    shown.open("#goals")
    shown.tab.get_by_role("link", name="<img src=x onerror=window.ran=1>").click()
    text = shown.tab.locator(".step .text").filter(has_text="</script>").first
    found = text.inner_text()
    assert found.startswith("</script><script>window.ran = 1</script><img src=x")
    assert "⟨U+202E⟩esrever⟨U+202C⟩ ␀ ␛[31m ⟨U+D800⟩" in found
    assert len(found) < 5000
    text.get_by_role("button", name=re.compile(r"^Show all 1,000,\d\d\d characters$")).click()
    shown.tab.wait_for_function(
        "() => [...document.querySelectorAll('.text')].some((one) => one.innerText.length > 1e6)"
    )
    assert shown.text(".run") == "demo <b> & co"


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (400, "dark")])
def test_the_page_is_accessible_and_fits_a_telephone(chromium, page_file, node_modules, width, theme):
    page = Shown(chromium, page_file, (width, 860), theme)
    page.tab.evaluate((node_modules / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    for address, there in (
        ("#start", ".plot canvas"),
        ("#goals?goal=textcraft:0%230", ".fold"),
        ("#trees?tree=103&pair=0&node=3", ".this-node"),
        ("#records?row=0", ".part-signal"),
    ):
        page.tab.evaluate("(address) => { location.hash = address; }", address)
        page.tab.locator(there).first.wait_for()
        found = page.tab.evaluate(
            "async () => (await axe.run()).violations.map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html)])"
        )
        assert found == [], address
        assert page.tab.evaluate("() => document.documentElement.scrollWidth") <= width, address
    page.tab.close()


def test_a_split_page_loads_its_parts_from_disk_alone(chromium, run_dir, tmp_path: Path):
    write_page(run_dir, tmp_path / "report", split=True)
    page = Shown(chromium, tmp_path / "report/index.html")
    page.open("#trees?tree=103&node=3")
    page.tab.get_by_role("heading", name="Node 3 step 2").wait_for()
    assert {url.split(":")[0] for url in page.requests} == {"file"} and page.complaints == []
    assert any(url.endswith("data/t0.js") for url in page.requests)
    blocked = page.tab.evaluate(
        "() => new Promise((end) => { addEventListener('securitypolicyviolation', (e) => end(e.blockedURI));"
        " fetch('http://127.0.0.1:9/').catch(() => 0); })"
    )
    assert blocked.startswith("http://127.0.0.1:9")
    page.tab.close()
