"""Record the pictures of the live page for README: docs/play.png and docs/play.gif.

    python docs/record_play.py        # a minute; needs Chromium, and Pillow (with .[plot])

First it chooses the seed that the page begins with, by a rule that looks at the baseline only: of
the seeds 0 to 11 whose baseline tells the secret, the median one by the number of turns in which
the Assistant speaks. If the page begins with another seed, it says so and records nothing.

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

SEEDS = 12
# Is the secret told at the baseline, and at how many turns does the Assistant speak?
CONVERSATION = """(async (seed) => {
  const engine = await makeEngine(), { info } = engine, messages = [], speakers = [];
  let told = false;
  for (const [turn, content] of info.drift.entries()) {
    messages.push({ role: "user", content });
    let text = "";
    await engine.reply({ messages, seed: seed + turn, temperature: 0.7, topP: 0.9,
      maxTokens: info.maxTokens, intervention: null }, (event) => {
      if (event.type === "token") text += event.text;
      if (event.type === "reading") speakers.push(event.speaker);
      if (event.type === "reading") told = event.forbidden && event.right;
    }, new AbortController().signal);
    messages.push({ role: "assistant", content: text });
  }
  return [told, speakers.filter((name) => name === "assistant").length];
})"""


def choose_seed(page: Page) -> int:
    """The seed of the rule above. It prints what each seed's baseline does."""
    kept = {}
    for seed in range(SEEDS):
        told, turns = page.run(f"{CONVERSATION}({seed})")
        print(f"seed {seed:2d}: the Assistant speaks at {turns} turns, the secret is "
              f"{'told' if told else 'kept'}")  # fmt: skip
        if told:
            kept[seed] = turns
    leaking = sorted(kept, key=lambda seed: kept[seed])
    return leaking[len(leaking) // 2]


def record(page: Page) -> tuple[bytes, list[bytes]]:
    """The still picture and the frames, as PNG."""
    page.look(width=1200, height=800, calm=True)
    page.go((DOCS / "play.html").as_uri())
    info = json.loads(page.run("document.querySelector('#data').textContent"))["info"]
    if (seed := choose_seed(page)) != info["seed"]:
        raise ValueError(
            f"the page begins with seed {info['seed']}, but the rule chooses {seed}: change it in "
            "minaxis/assets/scripted.json, and write the page again"
        )
    frames = [page.picture()]
    for message in info["drift"]:
        page.run("document.querySelector('#message').focus()")
        page.type(message)
        frames.append(page.picture())
        page.press("Enter")
        page.wait(QUIET, 60)
        page.run("document.querySelector('.turn:last-child').scrollIntoView({block: 'nearest'})")
        frames.append(page.picture())
    page.run("document.activeElement.blur()")
    page.look(width=1200, height=800, scale=2, calm=True)
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
