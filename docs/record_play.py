"""Record the pictures of the live page for README: docs/play.png and docs/play.gif.

    python docs/record_play.py        # half a minute; needs Chromium, and Pillow (with .[plot])

The page is docs/play.html. A user sends the messages of its drifting conversation, one by one. The
still picture is the end, and the animation has a frame for each message and for each pair of
replies.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))
from chromium import Page, chromium  # noqa: E402

QUIET = (
    "document.querySelector('#send').textContent === 'Send'"
    " && document.querySelector('#status').textContent === ''"
)
LIMIT = 2_000_000  # bytes of the animation


def record(page: Page) -> tuple[bytes, list[bytes]]:
    """The still picture and the frames, as PNG."""
    page.look(width=1180, height=800, calm=True)
    page.go((DOCS / "play.html").as_uri())
    frames = [page.picture()]
    data = page.run("document.querySelector('#data').textContent")
    for message in json.loads(data)["info"]["drift"]:
        page.run("document.querySelector('#message').focus()")
        page.type(message)
        frames.append(page.picture())
        page.press("Enter")
        page.wait(QUIET, 60)
        page.run("document.querySelector('.turn:last-child').scrollIntoView({block: 'nearest'})")
        frames.append(page.picture())
    page.run("document.activeElement.blur()")
    page.look(width=1180, height=800, scale=2, calm=True)
    return page.picture(), frames


def animate(frames: list[bytes]) -> bytes:
    """A GIF of the frames. The last one stays for five seconds."""
    images = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    palette = images[-1].quantize(160)  # one palette for all, so that what stays does not flicker
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [2000, *[700, 1300] * (len(images) // 2)]
    durations[-1] = 5000
    file = io.BytesIO()
    images[0].save(
        file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0,
        optimize=True,
    )  # fmt: skip
    return file.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as page:
        still, frames = record(page)
    image = Image.open(io.BytesIO(still)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(DOCS / "play.png", optimize=True)
    animation = animate(frames)
    if len(animation) > LIMIT:
        raise ValueError(f"the animation has {len(animation)} bytes, expected at most {LIMIT}")
    (DOCS / "play.gif").write_bytes(animation)
    for name in ("play.png", "play.gif"):
        print(f"written: docs/{name}, {(DOCS / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
