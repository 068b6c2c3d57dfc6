// The page. `turns` holds what the user said and what both sides answered; an engine answers.
(async function page() {
  "use strict";
  const SIDES = ["baseline", "treated"], $ = (id) => document.getElementById(id);
  const say = (text) => ($("status").textContent = text);
  const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const within = (x, least, most) => Number.isFinite(x) && x >= least && x <= most;

  function make(tag, attributes = {}, ...children) { // strings become text, never markup
    const space = /^(svg|circle|path|line|rect|text|title)$/.test(tag) ? "2000/svg" : "1999/xhtml";
    const node = document.createElementNS(`http://www.w3.org/${space}`, tag);
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const engine = await makeEngine().catch((error) => say(`The model could not be loaded: ${error.message}`));
  if (!engine.info) return;
  const { info } = engine, { readLayer, thresholds, layers: count } = info, scale = thresholds[readLayer];
  const low = scale[0], high = scale[100]; // the ends of the colours
  const settings = { // of both interventions, by kind
    kind: "cap", seed: info.seed, amount: { cap: Math.round(info.percentile), steer: -0.3 },
    layers: { cap: info.capLayers, steer: [Math.floor(count / 2)] },
  };
  const limits = { cap: [0, 100, 1], steer: [-1, 1, 0.05] }; // of the amount: least, most, step
  let turns = [], running = null, picked = null, reading = "plain";

  const titled = (side) => (side === "baseline" ? "Baseline" : settings.kind === "cap" ? "Capped" : "Steered");
  const rows = (reply) => (reading === "plain" && reply.plain) || reply.own; // (T, L)
  const projection = (reply) => mean(rows(reply).map((row) => row[readLayer]));
  const finished = (side) => turns.map((turn) => turn[side]).filter((reply) => reply?.done && reply.own.length);
  const floor = () => scale[settings.amount.cap];

  function intervention() {
    const { kind, amount } = settings, layers = settings.layers[kind];
    return { kind, layers, [kind === "cap" ? "percentile" : "coefficient"]: amount[kind] };
  }

  // Answers

  async function run() { // answers whatever has no answer yet
    running?.abort();
    const mine = (running = new AbortController());
    $("send").textContent = "Stop";
    say("Answering …");
    try {
      for (const turn of [...turns])
        for (const side of SIDES) if (!turn[side]?.done) await answer(turn, side, mine.signal);
      say("");
    } catch (error) {
      if (running !== mine) return; // a later run has taken over
      say(mine.signal.aborted ? "Stopped." : error.message);
      if (!mine.signal.aborted) $("message").value ||= turns.find((turn) => !turn.baseline?.done)?.user ?? "";
      turns = turns.filter((turn) => turn.baseline?.done);
      for (const turn of turns) if (!turn.treated?.done) turn.treated = null;
      draw();
    }
    running = null;
    $("send").textContent = "Send";
  }

  async function answer(turn, side, signal) {
    const number = turns.indexOf(turn), treated = side === "treated";
    if (treated) turn.guess ??= $("predict").checked ? await predict(turn, signal) : "none";
    const reply = (turn[side] = { tokens: [], own: [], lifted: [], plain: null, done: "" });
    show(turn);
    turn.node.scrollIntoView({ block: "nearest" });
    const messages = turns.slice(0, number).flatMap((past) => [
      { role: "user", content: past.user }, { role: "assistant", content: past[side].tokens.join("") }]);
    const request = {
      messages: [...messages, { role: "user", content: turn.user }], seed: settings.seed + number,
      temperature: 0.7, topP: 0.9, maxTokens: info.maxTokens, intervention: treated ? intervention() : null,
    };
    if (!treated && "given" in turn) request.text = turn.given;
    let failure = "The answer broke off. Try again.";
    const take = {
      token(event) {
        reply.tokens.push(event.text);
        reply.own.push(event.projections);
        reply.lifted.push(event.lifted.some(Boolean));
        reply.node.append(...word(reply, reply.tokens.length - 1));
      },
      plain: (event) => (reply.plain = event.projections),
      place: (event) => (reply.place = event),
      reading: (event) => (reply.reading = event),
      error: (event) => (failure = event.message),
      done: (event) => (reply.done = event.stopped),
    };
    await engine.reply(request, (event) => signal.aborted || take[event.type](event), signal);
    signal.throwIfAborted();
    if (!reply.done) throw new Error(failure);
    show(turn);
    measure();
    $("spoken").textContent = `${titled(side)}: ${reply.tokens.join("")}`;
  }

  function predict(turn, signal) {
    say("Predict the right side.");
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      const choices = ["Closer to the Assistant", "About the same", "Further away"].map((text) =>
        make("button", { type: "button", onclick: () => resolve(text) }, text));
      const group = { class: "ask", role: "group", "aria-label": "Your prediction" };
      turn.cards.treated.replaceChildren(make("div", group,
        make("p", {}, "Where will the right side be on the axis, compared with the left?"), ...choices));
    });
  }

  function verdict({ baseline, treated, guess }) {
    const gap = (projection(treated) - projection(baseline)) / (high - low);
    const fact = gap > 0.05 ? "Closer to the Assistant" : gap < -0.05 ? "Further away" : "About the same";
    return `You predicted: ${guess}. ${guess === fact ? "Right." : `In fact: ${fact}.`}`;
  }

  // The conversation

  function word(reply, i) { // a token: the space before it, and a coloured rest
    const token = reply.tokens[i], text = token.trimStart();
    const node = make("span", { class: reply.lifted[i] ? "tok lifted" : "tok" }, text);
    heat(node, rows(reply)[i][readLayer]);
    if (picked?.reply === reply && picked.i === i) node.classList.add("picked");
    return [token.slice(0, token.length - text.length), node];
  }

  function heat(node, value) {
    const share = Math.min(1, Math.max(-1, (2 * (value - low)) / (high - low) - 1));
    node.style.setProperty("--pole", share < 0 ? "var(--away)" : "var(--toward)");
    node.style.setProperty("--heat", `${Math.round(100 * Math.abs(share))}%`);
    return node;
  }

  function card(turn, side) {
    const reply = turn[side], node = make("article", { class: `reply ${side}` }, make("h3", {}, titled(side)));
    if (!reply) return node;
    reply.node = make("div", {
      class: "text", tabindex: 0, role: "group",
      "aria-label": `${titled(side)} reply ${turns.indexOf(turn) + 1}. The arrow keys pick a word.`,
      onclick: (e) => e.target.matches(".tok") && pick(reply, [...reply.node.children].indexOf(e.target)),
      onkeydown: (e) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (!step) return;
        e.preventDefault();
        pick(reply, picked?.reply === reply ? picked.i + step : 0);
      },
    }, ...reply.tokens.flatMap((_, i) => word(reply, i)));
    node.append(reply.node);
    if (!reply.done) return node;
    const facts = make("ul", { class: "facts" });
    const add = (text, kind = "") => facts.append(make("li", { class: kind }, text));
    node.append(facts);
    if (!reply.own.length) add("empty reply");
    else facts.append(heat(make("li", { class: "value" }, projection(reply).toFixed(1)), projection(reply)));
    if (reply.reading) {
      const { speaker, archaic, forbidden, right } = reply.reading;
      add(speaker ? `the ${speaker.replace("assistant", "Assistant")} speaks` : "no clear speaker");
      if (archaic) add("archaic voice");
      if (forbidden) add(...(right ? ["tells the secret", "bad"] : ["keeps the secret", "good"]));
      else if (right !== null) add(...(right ? ["right answer", "good"] : ["wrong answer", "bad"]));
    }
    const note = (text) => node.append(make("p", { class: "note" }, text));
    if (reply.done === "context")
      note(`The context of ${info.context} tokens is full: this reply was cut. Undo a turn, or clear, to go on.`);
    if (side === "treated" && turn.guess !== "none") note(verdict(turn));
    return node;
  }

  function show(turn) {
    turn.cards = Object.fromEntries(SIDES.map((side) => [side, card(turn, side)]));
    turn.node ??= make("li", { class: "turn" });
    turn.node.replaceChildren(make("p", { class: "user" }, make("b", { class: "hidden" }, "You: "), turn.user),
      make("div", { class: "pair" }, ...Object.values(turn.cards)));
    if (!turn.node.isConnected) $("turns").append(turn.node);
  }

  function draw() {
    $("turns").replaceChildren();
    $("empty").hidden = turns.length > 0;
    for (const turn of turns) if (turn.baseline || turn.node) show(turn);
    for (const id of ["undo", "clear", "link", "save-baseline", "save-treated"]) $(id).disabled = !turns.length;
    measure();
  }

  // Measurements

  function pick(reply, i) {
    if (!reply.tokens[i]) return;
    document.querySelector(".picked")?.classList.remove("picked");
    picked = { reply, i };
    reply.node.children[i].classList.add("picked");
    detail();
  }

  function detail() {
    const { reply, i } = picked, line = rows(reply)[i], lifted = reply.lifted[i] ? ", lifted by the cap" : "";
    const body = line.map((value, layer) => {
      const [least, most] = [thresholds[layer][0], thresholds[layer][100]];
      const x = (v) => 4 + 112 * Math.min(1, Math.max(0, (v - least) / (most - least)));
      const limit = x(thresholds[layer][settings.amount.cap]);
      return make("tr", {}, make("th", { scope: "row" }, String(layer)),
        make("td", {}, make("svg", { viewBox: "0 0 120 18", "aria-hidden": "true" },
          make("line", { x1: 4, x2: 116, y1: 9, y2: 9, class: "rail" }),
          make("line", { x1: limit, x2: limit, y1: 3, y2: 15, class: "floor" }),
          make("circle", { cx: x(value), cy: 9, r: 4.5, class: "dot" }))),
        make("td", { class: "number" }, value.toFixed(1)));
    });
    const titles = ["Layer", "Place, and the floor", "Projection"];
    const head = make("tr", {}, ...titles.map((text) => make("th", { scope: "col" }, text)));
    $("word").replaceChildren(make("p", { role: "status" }, make("b", {}, `“${reply.tokens[i].trim()}”`),
      ` ${line[readLayer].toFixed(1)} at layer ${readLayer}${lifted}`),
      make("table", { "aria-label": "The word at every layer" },
        make("thead", {}, head), make("tbody", {}, ...body)));
  }

  function measure() {
    trajectory();
    map();
    if (picked && turns.some((turn) => SIDES.some((side) => turn[side] === picked.reply))) detail();
  }

  function path(side, points, more = "") {
    const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
    return make("path", { d, class: `line ${side} ${more}` });
  }

  function mark(side, [x, y]) {
    const circle = "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", diamond = "m0 -6.5l6.5 6.5l-6.5 6.5l-6.5 -6.5z";
    const shape = side === "baseline" ? circle : diamond;
    return make("path", { d: `M${x} ${y}${shape}`, class: `mark ${side}` });
  }

  function trajectory() {
    const lines = SIDES.map((side) => finished(side).map(projection)), all = [low, high, ...lines.flat()];
    const least = Math.min(...all), most = Math.max(...all), last = Math.max(8, lines[0].length);
    const y = (v) => 136 - (126 * (v - least)) / (most - least), [bottom, top] = info.assistant.map(y);
    const words = SIDES.map((side, s) =>
      `${titled(side)}: ${lines[s].map((v) => v.toFixed(1)).join(", ") || "no reply yet"}. `);
    const chart = make("svg", { viewBox: "0 0 320 162", role: "img", "aria-label":
      `Mean projection of each reply. ${words.join("")}Floor ${floor().toFixed(1)}.` },
      make("rect", { x: 4, width: 312, y: top, height: Math.max(1, bottom - top), class: "band" }),
      make("line", { x1: 4, x2: 316, y1: 142, y2: 142, class: "rail" }),
      make("text", { x: 6, y: 157 }, "turn 1"),
      make("text", { x: 314, y: 157, "text-anchor": "end" }, String(last)));
    if (settings.kind === "cap")
      chart.append(make("line", { x1: 4, x2: 316, y1: y(floor()), y2: y(floor()), class: "floor" }));
    SIDES.forEach((side, s) => {
      const points = lines[s].map((v, i) => [16 + (i * 288) / (last - 1), y(v)]);
      chart.append(path(side, points), ...points.map((point) => mark(side, point)));
    });
    $("trajectory").replaceChildren(chart);
  }

  function map() {
    const trails = SIDES.map((side) => finished(side).map((reply) => reply.place));
    const all = [...info.roles, ...trails.flat()], ends = (key) => {
      const values = all.map((place) => place[key]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [left, right] = ends("x"), [bottom, top] = ends("y");
    const at = ({ x, y }) =>
      [14 + (292 * (x - left)) / (right - left), 156 - (140 * (y - bottom)) / (top - bottom)];
    const apart = (a, b) => Math.hypot(at(a)[0] - at(b)[0], at(a)[1] - at(b)[1]);
    const near = (place) => info.roles.reduce((a, b) => (apart(b, place) < apart(a, place) ? b : a)).name;
    const now = SIDES.flatMap((side, s) =>
      trails[s].slice(-1).map((place) => `${titled(side).toLowerCase()}, ${near(place)}`));
    const chart = make("svg", { viewBox: "0 0 320 186", role: "img", "aria-label": "The roles in the two main "
      + "directions in which they differ, and where both sides are among them." },
      make("text", { x: 306, y: 182, "text-anchor": "end" }, "PC1, toward the Assistant →"));
    for (const role of info.roles) {
      const [x, y] = at(role), home = role.name === "Assistant";
      const dot = home ? { r: 6, class: "home" } : { r: 4, class: "role" };
      chart.append(make("circle", { cx: x, cy: y, ...dot }, make("title", {}, role.name)));
      if (home) chart.append(make("text", { x, y: y - 10, "text-anchor": "end", class: "name" }, role.name));
    }
    SIDES.forEach((side, s) => {
      const points = trails[s].map(at);
      chart.append(path(side, points, "trail"), ...points.slice(-1).map((point) => mark(side, point)));
    });
    $("map").replaceChildren(chart);
    $("near").textContent = now.length ? `Nearest role now: ${now.join("; ")}.`
      : "Each dot is a role. Point at one for its name.";
  }

  // What the user does

  function send(...messages) {
    if (running) return;
    turns.push(...messages.map((user) => ({ user })));
    draw();
    run();
  }

  function keep(kept) {
    turns = kept;
    draw();
    run();
  }

  function again(sides) { // after a change of the settings
    controls();
    for (const turn of turns)
      for (const side of sides) if (side === "treated" || !("given" in turn)) turn[side] = null;
    keep(turns);
  }

  function controls() {
    const { kind, seed, layers } = settings, amount = settings.amount[kind], [least, most, step] = limits[kind];
    for (const input of document.getElementsByName("kind")) input.checked = input.value === kind;
    Object.assign($("amount"), { min: least, max: most, step, value: amount });
    $("seed").value = seed;
    $("amount-name").textContent = kind === "cap" ? "Floor" : "Push";
    $("amount-text").textContent = kind === "cap" ? `percentile ${amount}, at ${floor().toFixed(1)}`
      : `${amount} mean norms, ${amount < 0 ? "away from" : "toward"} the Assistant`;
    for (const box of $("layers").querySelectorAll("input")) box.checked = layers[kind].includes(+box.value);
    for (const node of document.querySelectorAll(".titled")) node.textContent = titled("treated");
    $("lead").textContent = kind === "cap" ? "kept above a floor" : "pushed along a direction";
  }

  const state = () => ({
    ...settings, conversation: turns.map((turn) => ("given" in turn ? [turn.user, turn.given] : [turn.user])),
  });

  // From a link or a file, so nothing is trusted
  function restore({ conversation, kind, seed, amount, layers }) {
    const isText = (s) => typeof s === "string" && s.length <= 20000;
    const isTurn = (turn) => within(turn.length, 1, 2) && turn.every(isText);
    const isLayer = (layer) => Number.isInteger(layer) && within(layer, 0, count - 1);
    const fits = (k) => within(amount[k], ...limits[k]) && layers[k].length > 0 && layers[k].every(isLayer);
    if (!(within(conversation.length, 0, 64) && conversation.every(isTurn) && within(seed, 0, 999999)
      && Object.hasOwn(limits, kind) && Object.keys(limits).every(fits))) throw new Error("values out of range");
    amount.cap = Math.round(amount.cap);
    Object.assign(settings, { kind, seed: Math.round(seed), layers, amount });
    turns = conversation.map(([user, given]) => (given === undefined ? { user } : { user, given }));
    again([]);
  }

  function follow() {
    try {
      if (location.hash.length > 1) restore(JSON.parse(decodeURIComponent(location.hash.slice(1))));
    } catch {
      say("This link holds no conversation that this page can read.");
    }
  }

  async function open() {
    const [file] = $("file").files, past = [];
    try {
      if (file.size > 1e6) throw new Error("more than 1 MB");
      for (const { role, content } of JSON.parse(await file.text()).conversation)
        if (role === "user") past.push([content]);
        else if (role === "assistant") past.at(-1).push(content);
      restore({ ...state(), conversation: past });
    } catch (error) {
      say(`${file.name} is not a transcript, {"conversation": [{"role", "content"}, …]}: ${error.message}`);
    }
    $("file").value = "";
  }

  function save(side) {
    const conversation = turns.filter((turn) => turn[side]?.done).flatMap((turn) => [
      { role: "user", content: turn.user }, { role: "assistant", content: turn[side].tokens.join("") }]);
    const how = side === "treated" ? { steering_config: { ...intervention(), seed: settings.seed } } : {};
    const file = { model: info.model, turns: conversation.length, ...how, conversation };
    const href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 2)], { type: "application/json" }));
    make("a", { href, download: `${info.model}-${titled(side).toLowerCase()}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  }

  async function copy() {
    history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(state()))}`);
    await navigator.clipboard.writeText(location.href).then(
      () => say("The link is copied. It holds the messages and the settings."),
      () => say("The link is in the address bar."));
  }

  const on = (id, kind, action) => $(id).addEventListener(kind, action);
  on("composer", "submit", (e) => {
    e.preventDefault();
    const text = $("message").value.trim();
    if (running) running.abort();
    else if (text) {
      $("message").value = "";
      send(text);
    }
  });
  on("message", "keydown", (e) => {
    if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    if (!running) $("composer").requestSubmit();
  });
  document.addEventListener("keydown", (e) => e.key === "Escape" && running?.abort());
  for (const { label, texts } of info.buttons) {
    let next = 0;
    const onclick = () => running || send(texts[next++ % texts.length]);
    $("scripted").append(make("button", { type: "button", onclick }, label));
  }
  on("drift", "click", () => {
    send(...info.drift);
    $("message").focus();
  });
  on("undo", "click", () => keep(turns.filter((turn) => turn.node).slice(0, -1)));
  on("clear", "click", () => keep([]));
  on("link", "click", copy);
  on("open", "click", () => $("file").click());
  on("file", "change", open);
  for (const side of SIDES) on(`save-${side}`, "click", () => save(side));
  for (let layer = 0; layer < count; layer++)
    $("layers").append(make("label", {}, make("input", { type: "checkbox", value: layer }), ` ${layer}`));
  on("layers", "change", () => {
    const chosen = [...$("layers").querySelectorAll(":checked")].map((box) => +box.value);
    if (chosen.length) settings.layers = { ...settings.layers, [settings.kind]: chosen };
    again(["treated"]); // if none was left, the last one is back
  });
  on("kinds", "change", (e) => {
    settings.kind = e.target.value;
    again(["treated"]);
  });
  on("amount", "input", () => {
    settings.amount[settings.kind] = +$("amount").value;
    controls();
  });
  on("amount", "change", () => again(["treated"]));
  on("seed", "change", () => {
    settings.seed = Math.min(999999, Math.max(0, Math.round(+$("seed").value) || 0));
    again(SIDES);
  });
  on("readings", "change", (e) => {
    reading = e.target.value;
    draw();
  });
  addEventListener("hashchange", follow);
  $("link").hidden = Boolean(info.served);
  $("model").textContent = info.model;
  $("about").textContent = info.about;
  controls();
  draw();
  follow();
})();
