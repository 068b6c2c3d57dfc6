"""The page in a file, the page from a server, and a browser to open them with."""

import threading

import pytest
from chromium import NAMES, Page, chromium, program

import minaxis as mx
from minaxis.tiny.world import World
from minaxis.web.answers import Engine
from minaxis.web.export import write_page
from minaxis.web.server import Server


@pytest.fixture(scope="session")
def tiny_model():
    """The embedded model, its tokenizer and its axis."""
    return *mx.load("tiny"), mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")


@pytest.fixture(scope="session")
def engine(tiny_model):
    return Engine(*tiny_model, World(), layers=[2, 3], percentile=98, max_tokens=40)


@pytest.fixture
def server(engine):
    """A server of the tiny model at a free port of the loopback address."""
    with Server(engine, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def file_url(tmp_path_factory, tiny_model):
    """The address of a page that holds the tiny model."""
    path = tmp_path_factory.mktemp("page") / "play.html"
    write_page(path, *tiny_model, World())
    return path.as_uri()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A Chromium whose downloads come to `browser.folder`."""
    if program() is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    folder = tmp_path_factory.mktemp("chromium")
    with chromium(folder) as page:
        yield page


@pytest.fixture(params=["file", "server"])
def page(request, browser) -> Page:
    """The page, opened from a file and from a server; its console must stay clean."""
    if request.param == "file":
        browser.url = request.getfixturevalue("file_url")
    else:
        browser.url = f"http://127.0.0.1:{request.getfixturevalue('server').port}/"
    browser.look()
    browser.go(browser.url)
    yield browser
    assert browser.errors == []
    browser.send("Page.navigate", url="about:blank")  # ends its requests before the server ends
