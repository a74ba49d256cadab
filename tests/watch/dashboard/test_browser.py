"""The dashboard in a real, headless Chromium: quiet consoles, live updates, buttons, keyboard, contrast, telephones."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from quantgate.release.lifecycle import rollback
from quantgate.watch.dashboard.sample_gateway import TARGET, World, opened

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 380, "height": 800}
PAGES = ("", "/alarms", "/latency", "/releases", "/evidence", "/help", "/signals/validation_failure?direction=more")
LIMIT_MS = 20_000


@contextlib.contextmanager
def tab(chromium, world: World, scope: str = "admin", size: Any = WIDE, **more: Any) -> Iterator[Any]:
    """A page that is logged in; at its end nothing may have failed in it, and nobody else was asked for anything."""
    context = chromium.new_context(viewport=size, **more)
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    wrong: list[str] = []
    page.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda told: wrong.append(f"{told.status} {told.url}") if told.status >= 400 else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(world.url) else None)
    if scope:
        page.goto(f"{world.url}/dashboard")
        page.fill("#key", world.keys[scope])
        page.keyboard.press("Enter")
        page.wait_for_selector("#headline")
    yield page
    context.close()
    assert wrong == []


def text(page, selector: str) -> str:
    return str(page.inner_text(selector)).strip()


def no_wider(page) -> bool:
    return True is page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_page_loads_in_silence_and_is_no_wider_than_a_telephone(chromium, healthy, colours):
    with tab(chromium, healthy, "watch", NARROW, color_scheme=colours) as page:
        for path in PAGES:
            page.goto(f"{healthy.url}/dashboard{path}")
            assert page.title().endswith("quantgate")
            if "signals" in path:
                page.wait_for_selector("canvas")
            assert no_wider(page), path


def test_a_signal_is_drawn_and_told_as_a_table(chromium, healthy):
    with tab(chromium, healthy, "watch") as page:
        page.click("#s-validation_failure-more")
        page.wait_for_selector("[data-chart=evidence] canvas")
        assert page.locator("canvas").count() == 3
        assert page.get_attribute("#charts", "data-points") == "15"
        drawn = page.evaluate(
            "[...document.querySelectorAll('canvas')].every(c => c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data.some(v => v > 0))"
        )
        assert drawn
        page.click("#figures summary")
        assert page.locator("#figures tbody tr").count() == 15


def test_updates_arrive_by_themselves_and_a_hidden_tab_asks_for_nothing(chromium, own):
    with tab(chromium, own, "watch") as page:
        seen = text(page, "#now")
        own.sample.step()
        page.wait_for_function("seen => document.querySelector('#now').innerText.trim() !== seen", arg=seen)
        page.focus("#s-ttft-more")
        assert page.evaluate("document.activeElement.id") == "s-ttft-more"
        mark = page.get_attribute("#now", "data-mark")
        own.sample.step()
        page.wait_for_function("mark => document.querySelector('#now').dataset.mark !== mark", arg=mark)
        assert page.evaluate("document.activeElement.id") == "s-ttft-more"
        hidden = (
            "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true}); window.away = "
        )
        page.evaluate(hidden + "true")
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.evaluate("for (let i = 0; i < 5; i++) htmx.trigger('#now', 'wake')")
        page.evaluate("fetch('/dashboard/who').then(told => told.text())")
        assert [one for one in asked if "/parts/" in one] == []
        with page.expect_request(lambda one: "/parts/now" in one.url):
            page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_rollback_is_on_the_screen_by_itself(chromium, tmp_path):
    with opened(tmp_path, "worse", minutes=125) as world, tab(chromium, world, "watch") as page:
        assert "Nothing speaks against W4A16-awq" in text(page, "#headline")
        while world.sample.step().action != "rollback":
            pass
        rollback(world.registry, TARGET, why="it is worse", automatic=True)
        world.sample.settle("moved", "revision 4")
        world.write()
        page.wait_for_selector(".hero.bad")
        assert text(page, "#headline") == "W4A16-awq was taken back. BF16 serves everyone again."
        assert text(page, "#state b") == "Rolled back"
        page.click("#alarm")
        page.wait_for_selector(".hero.bad h1")
        page.click("tbody a.mono >> nth=0")
        page.wait_for_selector("h1.mono")
        assert "invalid_json" in text(page, "main")


def test_a_ramp_by_the_button_says_what_it_does_and_does_it(chromium, own):
    with tab(chromium, own) as page:
        page.click("#m-ramp")
        page.wait_for_selector("dialog[open] #says")
        assert "W4A16-awq gets 25 % of sessions instead of 5 %" in text(page, "#says")
        page.fill("#share", "40")
        page.wait_for_function(
            "() => document.querySelector('#says').innerText.includes('40 % of sessions instead of 5 %')"
        )
        page.click("dialog button.main")
        assert page.evaluate("document.querySelector('#why').validity.valueMissing")
        page.fill("#why", "evidence is good")
        page.click("dialog button.main")
        page.wait_for_selector(".note.good")
        assert "goes from 5 % to 40 %" in text(page, ".note.good")
        assert own.registry.live(TARGET).share == 0.4
        assert own.registry.history(TARGET)[0].why == "evidence is good"


def test_hold_lift_promote_and_roll_back_by_their_buttons(chromium, own):
    with tab(chromium, own) as page:
        for kind, told in [
            ("hold", "held: nothing moves by itself"),
            ("lift", "the hold is lifted"),
            ("promote", "W4A16-awq serves everyone"),
            ("rollback", "back to BF16, away from W4A16-awq"),
        ]:
            page.click(f"#m-{kind}")
            page.fill("dialog[open] #why", f"trying {kind}")
            page.click("dialog[open] .answers button")
            page.wait_for_function("told => document.querySelector('.note.good')?.innerText.includes(told)", arg=told)
        whats = [one.what for one in own.registry.history(TARGET)[:4]]
        assert whats == ["rollback", "promote", "lift", "hold"]
        assert own.registry.live(TARGET).stable.name == "BF16"


def test_what_the_registry_refuses_is_read_where_it_was_asked(chromium, own):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{own.url}/dashboard")
    page.fill("#key", own.keys["admin"])
    page.keyboard.press("Enter")
    page.click("#m-promote")
    page.wait_for_selector("dialog[open] #why")
    rollback(own.registry, TARGET, why="meanwhile")
    page.fill("#why", "now")
    page.click("dialog[open] .answers button")
    page.wait_for_selector("#refused")
    assert "somebody moved it meanwhile" in text(page, "#refused")
    assert own.registry.live(TARGET).stable.name == "BF16"
    context.close()


def test_the_keyboard_alone_is_enough(chromium, own):
    with tab(chromium, own) as page:
        page.goto(f"{own.url}/dashboard")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        order = []
        for _ in range(24):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert ring != "none", order[-1]
        assert order[:4] == ["quantgate", "Now", "Alarms", "Latency"]
        moves = [one for one in order if one.startswith("m-")]
        assert moves == ["m-ramp", "m-promote", "m-hold", "m-rollback"]
        assert order.index("m-rollback") < order.index("s-validation_failure-more")
        page.focus("#m-hold")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open] #why")
        assert page.evaluate("document.activeElement.id") == "why"
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog[open]", state="detached")
        assert page.evaluate("document.activeElement.id") == "m-hold"
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open] #why")
        page.keyboard.type("with keys alone")
        page.keyboard.press("Enter")
        page.wait_for_selector(".note.good")
        assert own.registry.live(TARGET).frozen


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("svg")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const told = `${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 30)}`;
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${told}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_asks_for(chromium, tmp_path, colours):
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    with opened(tmp_path, "worse", minutes=160) as world, tab(chromium, world, color_scheme=colours) as page:
        (alarm,) = world.sample.alarms(TARGET)
        for path in (*PAGES, f"/alarms/{alarm.id}", "/moves/rollback"):
            page.goto(f"{world.url}/dashboard{path}")
            assert page.evaluate(CONTRAST) == [], path


def test_the_button_of_colours_goes_over_the_system_and_is_remembered(chromium, healthy):
    def ground(page) -> list[int]:
        return [
            int(one) for one in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ]

    with tab(chromium, healthy, "watch", color_scheme="light") as page:
        assert min(ground(page)) > 200
        page.click("#theme")
        page.click("#theme")
        assert max(ground(page)) < 60
        page.goto(f"{healthy.url}/dashboard/help")
        assert max(ground(page)) < 60
        assert text(page, "#theme") == "Dark"


def test_pages_and_forms_work_without_any_script(chromium, own):
    with tab(chromium, own, java_script_enabled=False) as page:
        page.click("#m-rollback")
        page.wait_for_selector("main #says")
        page.fill("#why", "by hand")
        page.click("main .answers button")
        page.wait_for_selector(".note.good")
        assert own.registry.live(TARGET).canary is None


def test_who_may_only_look_is_told_how_to_move_and_can_log_in_anew(chromium, own):
    with tab(chromium, own, "watch") as page:
        page.click("#m-rollback")
        page.wait_for_selector("dialog[open] pre")
        assert "quantgate keys new --name NAME --scope admin" in text(page, "dialog")
        page.click("text=Log in with it")
        page.fill("#key", own.keys["admin"])
        page.keyboard.press("Enter")
        page.wait_for_selector("#headline")
        assert "may move" in text(page, ".who")


def test_who_logs_out_sees_nothing_any_more(chromium, healthy):
    with tab(chromium, healthy, "watch") as page:
        page.click("text=Log out")
        page.wait_for_selector("#key")
        page.goto(f"{healthy.url}/dashboard/releases")
        assert page.url.endswith("/dashboard/login")


def test_a_gateway_that_does_not_answer_is_told_of(chromium, tmp_path):
    context = chromium.new_context()
    with opened(tmp_path, minutes=5) as world:
        page = context.new_page()
        page.goto(f"{world.url}/dashboard")
        page.fill("#key", world.keys["watch"])
        page.keyboard.press("Enter")
        page.wait_for_selector("#headline")
        assert not page.is_visible("#lost")
    page.wait_for_selector("#lost", state="visible", timeout=LIMIT_MS)
    assert "W4A16-awq" in text(page, "#headline")
    context.close()
