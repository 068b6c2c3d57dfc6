// The page. `turns` holds what the user said and what both sides answered; an engine answers.
(async function page() {
  "use strict";
  const SIDES = ["baseline", "treated"];
  const $ = (id) => document.getElementById(id);
  const say = (text) => ($("status").textContent = text);
  const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;

  function make(tag, attributes = {}, ...children) {
    const svg = /^(svg|g|circle|path|line|rect|text|title)$/.test(tag);
    const space = `http://www.w3.org/${svg ? "2000/svg" : "1999/xhtml"}`;
    const node = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    node.append(...children); // strings become text, never markup
    return node;
  }

  let engine;
  try {
    engine = await makeEngine();
  } catch (error) {
    return say(`The model could not be loaded: ${error.message}`);
  }
  const { info } = engine, { readLayer, thresholds, layers: count } = info;
  const low = thresholds[readLayer][0], high = thresholds[readLayer][100];
  const settings = {
    kind: "cap", percentile: Math.round(info.percentile), coefficient: -0.3, seed: info.seed,
    layers: { cap: info.capLayers, steer: [Math.floor(count / 2)] },
  };
  let turns = [], running = null, picked = null, reading = "plain";

  const titled = (side) => (side === "baseline" ? "Baseline" : { cap: "Capped", steer: "Steered" }[settings.kind]);
  const rows = (reply) => (reading === "plain" && reply.plain) || reply.own; // (T, L)
  const projection = (reply) => mean(rows(reply).map((row) => row[readLayer]));
  const finished = (side) => turns.map((turn) => turn[side]).filter((r) => r?.done && r.own.length);
  const floor = () => thresholds[readLayer][settings.percentile];

  function intervention() {
    const { kind, percentile, coefficient } = settings, layers = settings.layers[kind];
    return kind === "cap" ? { kind, layers, percentile } : { kind, layers, coefficient };
  }

  // Answers

  async function run() {
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
      const lost = turns.find((turn) => !turn.baseline?.done);
      if (lost && !mine.signal.aborted) $("message").value ||= lost.user;
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
    const reply = (turn[side] = { tokens: [], own: [], lifted: [], plain: null, done: false });
    show(turn);
    turn.node.scrollIntoView({ block: "nearest" });
    const messages = turns.slice(0, number + 1).flatMap((past) => [
      { role: "user", content: past.user },
      { role: "assistant", content: past[side]?.tokens.join("") },
    ]);
    messages.pop();
    const request = {
      messages, seed: settings.seed + number, temperature: 0.7, topP: 0.9, text: turn.given,
      maxTokens: info.maxTokens, intervention: treated ? intervention() : null,
    };
    if (treated) delete request.text;
    let failure = "";
    await engine.reply(request, (event) => {
      if (signal.aborted) return;
      if (event.type === "token") {
        reply.tokens.push(event.text);
        reply.own.push(event.projections);
        reply.lifted.push(event.lifted.some(Boolean));
        reply.node.append(...word(reply, reply.tokens.length - 1));
      } else if (event.type === "plain") reply.plain = event.projections;
      else if (event.type === "place") reply.place = event;
      else if (event.type === "reading") reply.reading = event;
      else if (event.type === "error") failure = event.message;
      else if (event.type === "done") {
        reply.done = true;
        if (event.stopped === "context")
          reply.note = `The context of ${info.context} tokens is full, so this reply was cut. `
            + "Undo a turn, or clear, to go on.";
      }
    }, signal);
    signal.throwIfAborted();
    if (!reply.done) throw new Error(failure || "The answer broke off. Try again.");
    show(turn);
    measure();
    $("spoken").textContent = `${titled(side)}: ${reply.tokens.join("")}`;
  }

  function predict(turn, signal) {
    const secret = turn.baseline.reading?.forbidden;
    const choices = secret ? ["It tells the secret", "It does not"]
      : ["Closer to the Assistant", "About the same", "Further away"];
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      const ask = make("div", { class: "ask", role: "group", "aria-label": "Your prediction" },
        make("p", {}, secret ? "What will the right side do with the question?"
          : "Where will the right side be on the axis, compared with the left?"),
        ...choices.map((text) => make("button", { type: "button", onclick: () => resolve(text) }, text)));
      turn.cards.treated.replaceChildren(ask);
      say("Predict the right side.");
    });
  }

  function verdict(turn) {
    const { baseline, treated, guess } = turn;
    const gap = (projection(treated) - projection(baseline)) / (high - low);
    const fact = baseline.reading?.forbidden
      ? (treated.reading?.right ? "It tells the secret" : "It does not")
      : gap > 0.05 ? "Closer to the Assistant" : gap < -0.05 ? "Further away" : "About the same";
    return `You predicted: ${guess}. ${guess === fact ? "Right." : `In fact: ${fact}.`}`;
  }

  // The conversation

  function word(reply, i) { // a token: the space before it, and a coloured rest
    const text = reply.tokens[i].trimStart(), space = reply.tokens[i].slice(0, -text.length || undefined);
    const node = make("span", { class: reply.lifted[i] ? "tok lifted" : "tok" }, text);
    heat(node, rows(reply)[i][readLayer]);
    if (picked?.reply === reply && picked.i === i) node.classList.add("picked");
    return [space, node];
  }

  function heat(node, value) {
    const share = Math.min(1, Math.max(-1, (2 * (value - low)) / (high - low) - 1));
    node.style.setProperty("--pole", share < 0 ? "var(--away)" : "var(--toward)");
    node.style.setProperty("--heat", `${Math.round(100 * Math.abs(share))}%`);
  }

  function card(turn, side) {
    const reply = turn[side], node = make("article", { class: `reply ${side}` });
    node.append(make("h3", {}, titled(side)));
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
    if (reply.done) node.append(facts(reply));
    if (reply.note) node.append(make("p", { class: "note" }, reply.note));
    if (side === "treated" && reply.done && turn.guess !== "none")
      node.append(make("p", { class: "note" }, verdict(turn)));
    return node;
  }

  function facts(reply) {
    const list = make("ul", { class: "facts" }), add = (text, kind = "") => {
      const item = make("li", { class: kind }, text);
      list.append(item);
      return item;
    };
    if (reply.own.length) heat(add(projection(reply).toFixed(1), "value"), projection(reply));
    else add("empty reply");
    const { reading: read } = reply;
    if (!read) return list;
    add(read.speaker ? `the ${read.speaker === "assistant" ? "Assistant" : read.speaker} speaks` : "no clear speaker");
    if (read.archaic) add("archaic voice");
    if (read.forbidden) add(...(read.right ? ["tells the secret", "bad"] : ["keeps the secret", "good"]));
    else if (read.right === true) add("right answer", "good");
    else if (read.right === false) add("wrong answer", "bad");
    return list;
  }

  function show(turn) {
    turn.cards = Object.fromEntries(SIDES.map((side) => [side, card(turn, side)]));
    turn.node ??= make("li", { class: "turn" });
    turn.node.replaceChildren(make("p", { class: "user" }, make("b", { class: "hidden" }, "You: "), turn.user),
      make("div", { class: "pair" }, turn.cards.baseline, turn.cards.treated));
    if (!turn.node.isConnected) $("turns").append(turn.node);
    $("empty").hidden = true;
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
    if (i < 0 || i >= reply.tokens.length) return;
    document.querySelector(".picked")?.classList.remove("picked");
    picked = { reply, i };
    reply.node.children[i].classList.add("picked");
    detail();
  }

  function detail() {
    const { reply, i } = picked, line = rows(reply)[i];
    const capped = reply.lifted[i] ? ", lifted by the cap" : "";
    const body = line.map((value, layer) => {
      const [least, most] = [thresholds[layer][0], thresholds[layer][100]];
      const x = (v) => 4 + 112 * Math.min(1, Math.max(0, (v - least) / (most - least)));
      const mark = make("circle", { cx: x(value), cy: 9, r: 4.5, class: "dot" });
      const limit = x(thresholds[layer][settings.percentile]);
      return make("tr", {}, make("th", { scope: "row" }, String(layer)),
        make("td", {}, make("svg", { viewBox: "0 0 120 18", "aria-hidden": "true" },
          make("line", { x1: 4, x2: 116, y1: 9, y2: 9, class: "rail" }),
          make("line", { x1: limit, x2: limit, y1: 3, y2: 15, class: "floor" }), mark)),
        make("td", { class: "number" }, value.toFixed(1)));
    });
    $("word").replaceChildren(make("p", { role: "status" }, make("b", {}, `“${reply.tokens[i].trim()}”`),
      ` ${line[readLayer].toFixed(1)} at layer ${readLayer}${capped}`),
      make("table", {}, make("thead", {}, make("tr", {}, ...["Layer", "Place, and the floor", "Projection"]
        .map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, ...body)));
  }

  function measure() {
    trajectory();
    map();
    if (picked && turns.some((turn) => SIDES.some((side) => turn[side] === picked.reply))) detail();
  }

  function marker(side, x, y, more = {}) {
    const d = side === "baseline" ? `M${x - 5} ${y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0`
      : `M${x} ${y - 6.5}l6.5 6.5l-6.5 6.5l-6.5 -6.5z`;
    return make("path", { d, class: `mark ${side}`, ...more });
  }

  function trajectory() {
    const lines = SIDES.map((side) => finished(side).map(projection)), [least, most] = [
      Math.min(thresholds[readLayer][0], ...lines.flat()), Math.max(thresholds[readLayer][100], ...lines.flat())];
    const x = (i) => 16 + (i * 288) / Math.max(7, lines[0].length - 1);
    const y = (v) => 136 - (126 * (v - least)) / (most - least), [bottom, top] = info.assistant.map(y);
    const words = SIDES.map((side, i) => `${titled(side)}: ${lines[i].map((v) => v.toFixed(1)).join(", ") || "no reply yet"}.`);
    const chart = make("svg", { viewBox: "0 0 320 162", role: "img", "aria-label":
      `Mean projection of each reply. ${words.join(" ")} Floor ${floor().toFixed(1)}, the Assistant’s range `
      + info.assistant.map((v) => v.toFixed(1)).join(" to ") },
      make("rect", { x: 4, width: 312, y: top, height: Math.max(1, bottom - top), class: "band" }),
      make("line", { x1: 4, x2: 316, y1: 142, y2: 142, class: "rail" }),
      make("text", { x: 6, y: 157 }, "turn 1"),
      make("text", { x: 314, y: 157, "text-anchor": "end" }, String(Math.max(8, lines[0].length))));
    if (settings.kind === "cap")
      chart.append(make("line", { x1: 4, x2: 316, y1: y(floor()), y2: y(floor()), class: "floor" }));
    SIDES.forEach((side, s) => {
      const d = lines[s].map((v, i) => `${i ? "L" : "M"}${x(i)} ${y(v)}`).join("");
      chart.append(make("path", { d, class: `line ${side}` }), ...lines[s].map((v, i) => marker(side, x(i), y(v))));
    });
    $("trajectory").replaceChildren(chart);
  }

  function map() {
    const trails = SIDES.map((side) => finished(side).map((r) => r.place).filter(Boolean));
    const all = [...info.roles, ...trails.flat()];
    const scale = (key, from, to) => {
      const values = all.map((p) => p[key]), least = Math.min(...values), most = Math.max(...values);
      return (p) => from + ((to - from) * (p[key] - least)) / (most - least || 1);
    };
    const x = scale("x", 14, 306), y = scale("y", 156, 16);
    const label = make("text", { class: "name" });
    const name = (role) => {
      label.textContent = role?.name ?? "";
      if (!role) return;
      const end = x(role) > 200;
      label.setAttribute("x", x(role) + (end ? -8 : 8));
      label.setAttribute("y", y(role) + 4);
      label.setAttribute("text-anchor", end ? "end" : "start");
    };
    const near = (px, py) => info.roles.reduce((best, role) =>
      Math.hypot(x(role) - px, y(role) - py) < Math.hypot(x(best) - px, y(best) - py) ? role : best);
    const last = SIDES.map((side, s) => [titled(side), trails[s].at(-1)]).filter(([, place]) => place);
    const now = last.map(([side, place]) => `${side.toLowerCase()}: ${near(x(place), y(place)).name}`);
    const chart = make("svg", {
      viewBox: "0 0 320 186", role: "img",
      "aria-label": `The roles by the two main directions in which they differ. Nearest now: ${now.join("; ") || "no reply yet"}.`,
      onpointermove: (e) => {
        const box = chart.getBoundingClientRect();
        name(near(((e.clientX - box.left) * 320) / box.width, ((e.clientY - box.top) * 186) / box.height));
      },
      onpointerleave: () => name(null),
    }, ...info.roles.map((role) => make("circle", {
      cx: x(role), cy: y(role), r: role.name === "Assistant" ? 6 : 3.5, class: role.name === "Assistant" ? "home" : "role",
    })), make("text", { x: 306, y: 182, "text-anchor": "end" }, "PC1, toward the Assistant →"));
    const home = info.roles.find((role) => role.name === "Assistant");
    if (home) chart.append(make("text", { x: x(home), y: y(home) - 10, "text-anchor": "end", class: "name" }, "Assistant"));
    SIDES.forEach((side, s) => {
      const d = trails[s].map((p, i) => `${i ? "L" : "M"}${x(p)} ${y(p)}`).join("");
      chart.append(make("path", { d, class: `line trail ${side}` }));
      if (trails[s].length) chart.append(marker(side, x(trails[s].at(-1)), y(trails[s].at(-1))));
    });
    chart.append(label);
    $("map").replaceChildren(chart);
    $("near").textContent = now.length ? `Nearest role now: ${now.join("; ")}.` : "Each dot is a role. Point at one for its name.";
  }

  // What the user does

  function send(...messages) {
    turns.push(...messages.map((user) => ({ user })));
    draw();
    return run();
  }

  function again(sides) {
    controls();
    for (const turn of turns) for (const side of sides) if (side === "treated" || !("given" in turn)) turn[side] = null;
    draw();
    if (turns.length) run();
  }

  function controls() {
    const { kind, percentile, coefficient, seed } = settings;
    for (const input of document.getElementsByName("kind")) input.checked = input.value === kind;
    $("percentile").value = percentile;
    $("coefficient").value = coefficient;
    $("seed").value = seed;
    $("cap-row").hidden = kind !== "cap";
    $("steer-row").hidden = kind !== "steer";
    $("percentile-text").textContent = `${percentile}th percentile, ${floor().toFixed(1)}`;
    $("coefficient-text").textContent = `${coefficient} mean norms, `
      + (coefficient < 0 ? "away from the Assistant" : "toward the Assistant");
    for (const box of $("layers").querySelectorAll("input")) box.checked = settings.layers[kind].includes(+box.value);
    $("head").textContent = titled("treated");
    $("key").textContent = titled("treated").toLowerCase();
    $("lead").textContent = kind === "cap" ? "kept above a floor" : "pushed along a direction";
  }

  const within = (x, least, most) => Number.isFinite(x) && x >= least && x <= most;

  const state = () => ({
    ...settings, conversation: turns.map((turn) => ("given" in turn ? [turn.user, turn.given] : [turn.user])),
  });

  function restore({ conversation, kind, percentile, coefficient, seed, layers }) {
    const text = (s) => typeof s === "string" && s.length <= 20000;
    const layer = (l) => Number.isInteger(l) && within(l, 0, count - 1);
    if (!(conversation.length <= 64 && conversation.every((t) => within(t.length, 1, 2) && t.every(text)) && within(percentile, 0, 100)
      && within(coefficient, -1, 1) && within(seed, 0, 999999) && kind in settings.layers
      && [layers.cap, layers.steer].every((l) => l.length && l.every(layer)))) throw new Error("bad values");
    Object.assign(settings, { kind, percentile: Math.round(percentile), coefficient, seed: Math.round(seed), layers });
    turns = conversation.map(([user, given]) => (given === undefined ? { user } : { user, given }));
    again([]);
  }

  function fromLink() {
    if (location.hash.length < 2) return;
    try {
      restore(JSON.parse(decodeURIComponent(location.hash.slice(1))));
    } catch {
      say("This link holds no conversation that this page can read.");
    }
  }

  async function open() {
    const [file] = $("file").files;
    $("file").value = "";
    try {
      if (file.size > 1e6) throw new Error("more than 1 MB");
      const past = [];
      for (const { role, content } of JSON.parse(await file.text()).conversation)
        if (role === "user") past.push([content]);
        else if (role === "assistant") past.at(-1).push(content);
      restore({ ...state(), conversation: past });
    } catch (error) {
      say(`${file?.name} is not a transcript, {"conversation": [{"role", "content"}, …]}: ${error.message}`);
    }
  }

  function save(side) {
    const kept = turns.filter((turn) => turn[side]?.done);
    const conversation = kept.flatMap((turn) => [
      { role: "user", content: turn.user }, { role: "assistant", content: turn[side].tokens.join("") }]);
    const how = side === "treated" ? { steering_config: { ...intervention(), seed: settings.seed } } : {};
    const file = { model: info.model, turns: conversation.length, ...how, conversation };
    const href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 2)], { type: "application/json" }));
    make("a", { href, download: `${info.model}-${titled(side).toLowerCase()}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  }

  async function copy() {
    history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(state()))}`);
    await navigator.clipboard?.writeText(location.href).then(
      () => say("The link is copied. It holds the messages and the settings."),
      () => say("The link is in the address bar."));
  }

  // Wiring

  $("composer").addEventListener("submit", (e) => {
    e.preventDefault();
    if (running) return running.abort();
    const text = $("message").value.trim();
    if (!text) return;
    $("message").value = "";
    send(text);
  });
  $("message").addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    if (!running) $("composer").requestSubmit();
  });
  document.addEventListener("keydown", (e) => e.key === "Escape" && running?.abort());
  for (const { label, texts } of info.buttons) {
    let next = 0;
    $("scripted").append(make("button", { type: "button", onclick: () => !running && send(texts[next++ % texts.length]) }, label));
  }
  $("drift").addEventListener("click", () => {
    send(...info.drift);
    $("message").focus();
  });
  $("undo").addEventListener("click", () => {
    turns = turns.filter((turn) => turn.node).slice(0, -1);
    draw();
    run();
  });
  $("clear").addEventListener("click", () => {
    turns = [];
    draw();
    run();
  });
  $("link").hidden = Boolean(info.served);
  $("link").addEventListener("click", copy);
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", open);
  for (const side of SIDES) $(`save-${side}`).addEventListener("click", () => save(side));
  for (let layer = 0; layer < count; layer++)
    $("layers").append(make("label", {}, make("input", { type: "checkbox", value: layer }), ` ${layer}`));
  $("layers").addEventListener("change", () => {
    const chosen = [...$("layers").querySelectorAll(":checked")].map((box) => +box.value);
    if (chosen.length) settings.layers = { ...settings.layers, [settings.kind]: chosen };
    else say("At least one layer is needed.");
    again(["treated"]);
  });
  $("kinds").addEventListener("change", (e) => {
    settings.kind = e.target.value;
    again(["treated"]);
  });
  for (const id of ["percentile", "coefficient"]) {
    $(id).addEventListener("input", () => {
      settings[id] = +$(id).value;
      controls();
    });
    $(id).addEventListener("change", () => again(["treated"]));
  }
  $("seed").addEventListener("change", () => {
    settings.seed = Math.min(999999, Math.max(0, Math.round(+$("seed").value) || 0));
    again(SIDES);
  });
  $("readings").addEventListener("change", (e) => {
    reading = e.target.value;
    draw();
  });
  addEventListener("hashchange", fromLink);
  $("model").textContent = info.model;
  $("about").textContent = info.about;
  controls();
  draw();
  fromLink();
})();
