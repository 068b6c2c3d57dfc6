"""What an automatic check can say about a page: names, structure, contrast, and the keyboard.

`findings(page)` lists what is wrong. Names come from Chromium's own accessibility tree, as a screen
reader gets them. Colours are measured by painting them, so all notations of CSS are understood.
"""

NEEDS_NAME = {
    "button", "textbox", "spinbutton", "slider", "checkbox", "radio", "link", "combobox", "image",
    "img", "group", "region", "complementary", "table", "columnheader", "rowheader", "heading",
}  # fmt: skip
# Of `group`s only those with role=group or a fieldset need a name; the tree shows no others.

AUDIT = r"""(() => {
  const wrong = [], say = (text, node) => wrong.push(text + ": " + node.outerHTML.slice(0, 90));
  const all = [...document.querySelectorAll("body *")];
  if (!document.documentElement.lang) wrong.push("the page has no language");
  if (!document.title) wrong.push("the page has no title");
  for (const tag of ["main", "header", "h1"])
    if (document.querySelectorAll(tag).length !== 1) wrong.push("not one <" + tag + ">");
  const ids = all.map((n) => n.id).filter(Boolean);
  for (const id of new Set(ids))
    if (ids.filter((x) => x === id).length > 1) wrong.push("two of #" + id);
  let level = 1;
  const shown = (n) => n.getClientRects().length && getComputedStyle(n).visibility !== "hidden";
  for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!shown(h)) continue;
    if (+h.tagName[1] > level + 1) say("a level of headings is skipped", h);
    level = +h.tagName[1];
  }
  for (const n of all) {
    if (n.tabIndex > 0) say("a place of its own in the order of Tab", n);
    if (n.closest("[aria-hidden=true]") && n.tabIndex >= 0 && n.matches("a,button,input"))
      say("hidden, but in the order of Tab", n);
    for (const name of ["aria-labelledby", "aria-describedby", "for"])
      for (const id of (n.getAttribute(name) || "").split(" ").filter(Boolean))
        if (!document.getElementById(id)) say(name + " names nothing", n);
    const box = n.getBoundingClientRect();
    if (n.matches("button, [type=range]") && shown(n) && Math.min(box.height, box.width) < 24)
      say("less than 24 pixels", n);
  }
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const paint = (colours) => { // from the back to the front
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || !shown(node)) continue;
    if (node.closest("script, .hidden, button:disabled")) continue;
    const backs = [];
    for (let n = node; n; n = n.parentElement) backs.unshift(getComputedStyle(n).backgroundColor);
    const back = ["white", ...backs], text = node.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(paint(back)), light(paint([...back, text]))].sort((x, y) => x - y);
    const ratio = (b + 0.05) / (a + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) say("contrast " + ratio.toFixed(2), node);
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the window");
  return wrong;
})()"""


def findings(page) -> list[str]:
    """What is wrong with the page as it is now; empty if nothing is."""
    wrong = page.run(AUDIT)
    for node in page.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value", "")
        name = node.get("name", {}).get("value", "").strip()
        if role in NEEDS_NAME and not node.get("ignored") and not name:
            wrong.append(f"a {role} has no name (node {node.get('backendDOMNodeId')})")
    return wrong
