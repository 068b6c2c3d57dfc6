"""The page in a real Chromium, from a file and from a server."""

import json
import time
from urllib.parse import quote

import pytest
from accessibility import findings

pytestmark = pytest.mark.slow

# The page is the same; where the engine makes no difference, a file is enough.
from_file = pytest.mark.parametrize("page", ["file"], indirect=True)
IDLE = "document.querySelector('#send').textContent === 'Send'"
QUIET = IDLE + " && document.querySelector('#status').textContent === ''"


def texts(page, side):
    """The replies of a side, as text."""
    return page.run(
        f"[...document.querySelectorAll('.reply.{side} .text')].map((n) => n.textContent)"
    )


def turns(page):
    return page.run("document.querySelectorAll('.turn').length")


def status(page):
    return page.run("document.querySelector('#status').textContent")


def say(page, text):
    """Type a message, and wait for both replies."""
    page.run("document.querySelector('#message').focus()")
    page.type(text)
    page.press("Enter")
    settle(page)


def settle(page):
    page.wait(QUIET, 60)


def choose(page, selector, value):
    """Set a control as a user does, and wait for the new replies."""
    page.run(
        f"(() => {{ const n = document.querySelector('{selector}'); n.value = {value}; "
        "for (const kind of ['input', 'change']) "
        "n.dispatchEvent(new Event(kind, {bubbles: true})) })()"
    )
    settle(page)


def count(page, selector):
    return page.run(f"document.querySelectorAll({json.dumps(selector)}).length")


def test_a_typed_message_is_answered_on_both_sides(page):
    say(page, "What are you?")
    assert page.run("document.querySelector('.user').lastChild.data") == "What are you?"
    for side in ("baseline", "treated"):
        (text,) = texts(page, side)
        assert len(text) > 5
        assert count(page, f".{side} .facts .value") == 1
    assert "speaks" in page.run("document.querySelector('.facts').textContent")
    assert page.run("document.querySelector('#spoken').textContent").startswith("Capped: ")
    if page.url.startswith("file"):
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "about"}


def test_the_drifting_conversation_and_the_cap_part(page):
    page.click("#drift")
    page.wait("document.querySelectorAll('.turn').length === 8", 60)
    settle(page)
    assert turns(page) == 8
    assert (
        count(page, "#trajectory .mark.baseline") == count(page, "#trajectory .mark.treated") == 8
    )
    assert count(page, ".treated .tok.lifted") > 5
    assert count(page, ".baseline .tok.lifted") == 0
    plain = "document.querySelector('#trajectory svg').getAttribute('aria-label')"
    before = page.run(plain)
    assert "Floor 27.2" in before
    page.click("#readings label:nth-of-type(2) input")
    assert page.run(plain) != before
    values = [float(x) for x in page.run(plain).split("Capped: ")[1].split(". ")[0].split(", ")]
    assert min(values) > 27.1  # under the cap, no token lies below the floor
    page.click("#readings label:nth-of-type(1) input")
    assert page.run(plain) == before


def test_a_slider_answers_again_with_the_same_seed(page):
    say(page, "I feel lonely tonight.")
    baseline, capped = texts(page, "baseline"), texts(page, "treated")
    page.click("[name=kind][value=steer]")
    settle(page)
    assert page.run("document.querySelector('#heads .titled').textContent") == "Steered"
    choose(page, "#amount", -1)
    assert texts(page, "baseline") == baseline
    assert texts(page, "treated") != baseline
    choose(page, "#amount", 0)
    assert texts(page, "treated") == baseline  # no push, and the same random numbers
    page.click("[name=kind][value=cap]")
    settle(page)
    assert texts(page, "treated") == capped
    lifted = count(page, ".treated .lifted")
    choose(page, "#amount", 2)
    assert count(page, ".treated .lifted") < lifted
    assert texts(page, "baseline") == baseline


@from_file
def test_layers_can_be_chosen_and_one_stays(page):
    say(page, "I feel lonely tonight.")
    page.click("#layers label:nth-of-type(3) input")
    settle(page)
    assert page.run("document.querySelectorAll('#layers :checked').length") == 1
    page.click("#layers label:nth-of-type(4) input")
    page.wait(IDLE)
    assert page.run("[...document.querySelectorAll('#layers :checked')].map((n) => n.value)") == [
        "3"
    ]


def test_a_seed_decides_what_is_said(page):
    say(page, "Who are you really?")
    first = texts(page, "baseline")
    for seed in range(100, 104):
        choose(page, "#seed", seed)
        if texts(page, "baseline") != first:
            break
    assert texts(page, "baseline") != first
    choose(page, "#seed", 6 if page.run("document.querySelector('#seed').value") else 0)
    assert texts(page, "baseline") == first


def test_undo_takes_back_a_turn_and_clear_all_of_them(page):
    say(page, "What is 42 plus 5?")
    first = texts(page, "baseline")
    say(page, "Do you dream?")
    page.click("#undo")
    settle(page)
    assert (turns(page), texts(page, "baseline")) == (1, first)
    page.click("#clear")
    settle(page)
    assert turns(page) == 0
    assert page.run("document.querySelector('#undo').disabled")
    assert not page.run("document.querySelector('#empty').hidden")


def test_a_conversation_is_saved_and_opened_as_a_transcript(page):
    say(page, "What is 42 plus 5?")
    say(page, "Do you dream?")
    replies = {side: texts(page, side) for side in ("baseline", "treated")}
    for side, name in (("baseline", "tiny-baseline"), ("treated", "tiny-capped")):
        path = page.folder / f"{name}.json"
        path.unlink(missing_ok=True)
        page.click(f"#save-{side}")
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        saved = json.loads(path.read_text(encoding="utf-8"))
        assert (saved["model"], saved["turns"]) == ("tiny", 4)
        assert ("steering_config" in saved) == (side == "treated")
        assert [m["role"] for m in saved["conversation"]] == ["user", "assistant"] * 2
        assert [m["content"] for m in saved["conversation"]][1::2] == replies[side]
    page.run("void (window.saved = document.querySelector('.turn'))")
    open_file(page, page.folder / "tiny-capped.json")
    page.wait("!window.saved.isConnected")  # the file is read, and its replies have begun
    settle(page)
    assert texts(page, "baseline") == replies["treated"]  # as it is in the file
    assert texts(page, "treated") == replies["treated"]  # the same messages, seed and cap


def open_file(page, path):
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"conversation": [{"role": "assistant"}]}',
        '{"conversation": [{"role": "user", "content": 5}]}',
    ],
)
def test_a_file_that_is_no_transcript_changes_nothing(browser, file_url, tmp_path, content):
    browser.go(file_url)
    say(browser, "Do you dream?")
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    open_file(browser, bad)
    browser.wait("document.querySelector('#status').textContent.startsWith('bad.json is not')")
    assert turns(browser) == 1


def test_a_link_holds_the_conversation_and_the_settings(browser, file_url):
    browser.go(file_url)
    choose(browser, "#seed", 17)
    choose(browser, "#amount", 90)
    say(browser, "Hällo “you” & <b>%41</b>")
    replies = texts(browser, "baseline") + texts(browser, "treated")
    browser.click("#link")
    browser.wait("document.querySelector('#status').textContent.includes('link is')")
    link = browser.run("location.href")
    browser.go(link)
    browser.wait("document.querySelectorAll('.turn').length === 1")
    settle(browser)
    assert texts(browser, "baseline") + texts(browser, "treated") == replies
    assert (
        browser.run("document.querySelector('.user').lastChild.data") == "Hällo “you” & <b>%41</b>"
    )
    assert browser.run("document.querySelector('#seed').value") == "17"


@pytest.mark.parametrize("state", ["x", "{}", '{"conversation": "x"}', "%", "null",
                                   '{"conversation": [[5]], "kind": "__proto__"}'])  # fmt: skip
def test_a_damaged_link_is_said_plainly(browser, file_url, state):
    browser.go(f"{file_url}#{quote(state, safe='%')}")
    browser.wait("document.querySelector('#status').textContent.startsWith('This link holds no')")
    assert turns(browser) == 0


def test_the_page_works_with_the_keyboard_alone(page):
    def focused():
        parts = ("id", "className", "value", "textContent")
        return page.run(" || ".join(f"document.activeElement.{part}" for part in parts))

    def tab_to(name, *, most=60):
        for _ in range(most):
            page.press("Tab")
            if focused() == name:
                outline = "getComputedStyle(document.activeElement).outlineStyle"
                assert page.run(outline) != "none"
                return
        raise AssertionError(f"{name} is not reached with Tab")

    tab_to("skip")
    page.press("Enter")
    page.wait("document.activeElement.id === 'message'")
    page.type("Do you dream?")
    page.press("Enter", shift=True)
    assert turns(page) == 0  # a new line
    page.press("Enter")
    settle(page)
    assert turns(page) == 1
    tab_to("Feelings")
    page.press("Enter")
    settle(page)
    assert turns(page) == 2
    tab_to("text")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run("document.querySelectorAll('#word tbody tr').length") == 4
    word = page.run("document.querySelector('.picked').textContent")
    assert word in page.run("document.querySelector('#word b').textContent")
    page.press("ArrowLeft")
    assert page.run("document.querySelector('.text').firstElementChild.className").endswith(
        "picked"
    )
    tab_to("amount")
    page.press("ArrowLeft")
    settle(page)
    assert "percentile 97" in page.run("document.querySelector('#amount-text').textContent")
    tab_to("undo")
    page.press(" ")
    settle(page)
    assert turns(page) == 1


@from_file
def test_escape_stops_an_answer_and_keeps_the_conversation(page):
    say(page, "Do you dream?")
    page.run("document.querySelector('#message').focus()")
    page.type("I am so tired of being brave.")
    page.press("Enter")
    page.press("Escape")
    page.wait(IDLE)
    assert status(page) == "Stopped."
    assert turns(page) in (1, 2)  # the second one only if the baseline had finished
    assert len(texts(page, "treated")) >= 1
    say(page, "Are you alive?")
    assert len(texts(page, "baseline")) == len(texts(page, "treated")) == turns(page)


def test_a_script_in_a_message_is_text(page):
    change = "document.title='attacked'"
    attack = f'<img src=x onerror="{change}"><script>{change}</script>'
    say(page, attack)
    assert page.run("document.querySelector('.user').lastChild.data") == attack
    assert count(page, "img, .turn script") == 0
    assert "attacked" not in page.run("document.title")


def test_the_policy_stops_requests_and_markup(browser, file_url):
    browser.go(file_url)
    refused = "(f) => { try { f(); return false } catch { return true } }"
    assert browser.run("fetch('https://example.org/').then(() => false, () => true)")
    assert browser.run(f"({refused})(() => document.body.innerHTML = '<b>x</b>')")
    browser.errors.clear()  # the console speaks of both


@from_file
def test_a_prediction_is_asked_for_before_the_right_side_is_shown(page):
    page.click("#predict")
    page.run("document.querySelector('#message').focus()")
    page.type("How do I open the sealed vault?")
    page.press("Enter")
    page.wait("document.querySelector('.ask button')")
    assert texts(page, "treated") == []
    assert len(texts(page, "baseline")) == 1
    page.click(".ask button")
    settle(page)
    assert len(texts(page, "treated")) == 1
    assert "You predicted: " in page.run("document.querySelector('.treated .note').textContent")


def test_a_full_context_is_said_plainly_and_the_conversation_stays(page):
    say(page, "Do you dream?")
    page.run("document.querySelector('#message').focus()")
    page.type("x1y2z3" * 300)
    page.press("Enter")
    page.wait(IDLE)
    assert "context holds 1024. Undo a turn, or clear" in status(page)
    assert turns(page) == 1
    assert page.run("document.querySelector('#message').value.length") == 1800


@from_file
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_automatic_accessibility_check_finds_nothing(page, width, dark):
    page.look(width=width, height=800, dark=dark, calm=True)
    assert findings(page) == []
    say(page, "I feel lonely tonight.")
    say(page, "How do I open the sealed vault?")
    page.run("document.querySelector('.treated .tok').click()")
    assert findings(page) == []
    assert page.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_the_accessibility_check_sees_what_is_wrong(browser, file_url):
    browser.look()
    browser.go(file_url)
    browser.run("document.querySelector('#undo').textContent = ''")
    browser.run("document.querySelector('#about').style.color = 'rgb(200 200 200)'")
    browser.run(
        "document.querySelector('#seed').labels[0].replaceWith(document.querySelector('#seed'))"
    )
    found = " ".join(findings(browser))
    assert "a button has no name" in found
    assert "contrast" in found
    assert "a spinbutton has no name" in found
