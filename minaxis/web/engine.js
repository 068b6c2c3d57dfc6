// The whole tiny model in one file of plain JavaScript: no library, no build step, no request.
//
//   text -> tokens -> [ x + attention(norm(x)) ; x + mlp(norm(x)) ] * layers -> norm -> logits
//
// The running vector x is the residual stream. After each block it can be read (its projection on
// the Assistant Axis) and edited (steered, or capped). The parts have the order of minaxis/*.py,
// and tests hold both to the same numbers. export.py puts this file and its data into a page.
//
// One token is read at a time, so x is one vector and there is no batch. The keys and values of
// earlier tokens are in a cache. D is the width of x, Dh that of a head, V the vocabulary's size.
"use strict";

const TinyEngine = (() => {
  // Numbers

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  // The weights come as float16, which JavaScript cannot multiply. A float32 has the same sign, a
  // wider exponent and a longer fraction: move the bits there, and correct the exponent's offset.
  function fromHalf(bytes) {
    const halves = new Uint16Array(bytes.buffer), numbers = new Float32Array(halves.length);
    const bits = new Int32Array(numbers.buffer); // the same memory, seen as bits
    halves.forEach((h, i) => (bits[i] = ((h & 0x8000) << 16) | ((h & 0x7fff) << 13)));
    return numbers.map((x) => x * 2 ** 112);
  }

  function dot(a, b) {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
    return sum;
  }

  function add(x, y, factor = 1) { // x <- x + factor * y
    for (let i = 0; i < x.length; i++) x[i] += factor * y[i];
  }

  // W x, for a matrix W that is stored row by row. Nearly all of the time is spent here. Four rows
  // go side by side: each x[i] is fetched once for all four, and no addition waits for another.
  function times(w, x) {
    const n = x.length, y = new Float32Array(w.length / n);
    for (let row = 0; row < y.length; row += 4) {
      let a = 0, b = 0, c = 0, d = 0;
      for (let i = 0, at = row * n; i < n; i++, at++) {
        const xi = x[i];
        a += w[at] * xi;
        b += w[at + n] * xi;
        c += w[at + 2 * n] * xi;
        d += w[at + 3 * n] * xi;
      }
      [y[row], y[row + 1], y[row + 2], y[row + 3]] = [a, b, c, d];
    }
    return y;
  }

  function softmax(scores, temperature = 1) {
    const top = scores.reduce((a, b) => Math.max(a, b));
    const p = scores.map((score) => Math.exp((score - top) / temperature));
    const sum = p.reduce((a, b) => a + b);
    return p.map((x) => x / sum);
  }

  // Text to tokens (tokenizer.py, chat.py)

  class Tokenizer {
    constructor({ tokens, pattern, special }) {
      this.bytes = tokens.map(bytesOf); // id -> bytes; the pair that was learned first is id 256
      // A string with one character for each byte can be the key of a map.
      this.ids = new Map(this.bytes.map((bytes, id) => [String.fromCharCode(...bytes), id]));
      this.special = special; // such as "<|user|>" -> id; no text that somebody types gives one
      for (const name in special) this.bytes[special[name]] = new TextEncoder().encode(name);
      pattern = pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}");
      this.pattern = new RegExp(pattern, "gu"); // JavaScript's own \s is not quite Unicode's
    }

    encode(text) { // the pattern cuts a text into words, and no token crosses a word's border
      return [...text.matchAll(this.pattern)].flatMap(([word]) => this.merge(word));
    }

    merge(word) { // it starts as its bytes; of all neighbours, the pair learned first merges first
      const pieces = Array.from(new TextEncoder().encode(word), (b) => String.fromCharCode(b));
      for (;;) {
        let best = Infinity, at = 0;
        for (let i = 0; i + 1 < pieces.length; i++) {
          const id = this.ids.get(pieces[i] + pieces[i + 1]) ?? Infinity;
          if (id < best) [best, at] = [id, i];
        }
        if (best === Infinity) return pieces.map((piece) => this.ids.get(piece));
        pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
      }
    }

    encodeChat(messages) { // ends with the token after which the assistant answers
      const mark = (name) => this.special[`<|${name}|>`];
      const said = messages.filter(({ role, content }) => content || role !== "system");
      const ids = ({ role, content }) => [mark(role), ...this.encode(content), mark("end")];
      return [...said.flatMap(ids), mark("assistant")];
    }

    decoder() { // id -> text; a character of several tokens comes with the last of them
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      return (id) => decoder.decode(this.bytes[id], { stream: true });
    }
  }

  // The transformer (model.py)

  class Model {
    constructor({ config, sizes, weights }) {
      this.config = config;
      this.weights = {}; // name -> numbers, a matrix row by row
      const all = fromHalf(bytesOf(weights));
      let at = 0;
      for (const [name, size] of sizes) this.weights[name] = all.subarray(at, (at += size));
      const { head_dim: Dh, rope_theta } = config;
      this.frequencies = new Float32Array(Dh / 2).map((_, i) => 1 / rope_theta ** ((2 * i) / Dh));
    }

    newCache() { // the tokens read so far; in each layer, their keys and values
      const { num_hidden_layers, max_position_embeddings, hidden_size } = this.config;
      const room = () => new Float32Array(max_position_embeddings * hidden_size);
      const layers = Array.from({ length: num_hidden_layers }, () => [room(), room()]);
      return { tokens: [], layers };
    }

    project(name, x) {
      return times(this.weights[`${name}_proj.weight`], x);
    }

    norm(name, x) { // x / rms(x) * weight
      const scale = 1 / Math.sqrt(dot(x, x) / x.length + this.config.rms_norm_eps);
      return this.weights[`${name}.weight`].map((weight, i) => weight * x[i] * scale);
    }

    rotate(x, position) { // turns each pair (x[i], x[i + Dh/2]) of a head by a position's angle
      const Dh = this.config.head_dim;
      this.frequencies.forEach((frequency, first) => {
        const angle = Math.fround(position * frequency); // rounded as PyTorch rounds it
        const cos = Math.cos(angle), sin = Math.sin(angle);
        for (let i = first, j = i + Dh / 2; i < x.length; i += Dh, j += Dh)
          [x[i], x[j]] = [x[i] * cos - x[j] * sin, x[j] * cos + x[i] * sin];
      });
      return x;
    }

    attention(name, x, [keys, values], position) {
      const D = x.length, Dh = this.config.head_dim, mixed = new Float32Array(D);
      const query = this.rotate(this.project(`${name}.q`, x), position);
      keys.set(this.rotate(this.project(`${name}.k`, x), position), position * D);
      values.set(this.project(`${name}.v`, x), position * D);
      const scores = new Float32Array(position + 1); // of this token and all before it
      for (let head = 0; head < D; head += Dh) { // a head has its own part of each vector
        for (let t = 0; t <= position; t++) {
          let sum = 0;
          for (let i = head; i < head + Dh; i++) sum += query[i] * keys[t * D + i];
          scores[t] = sum;
        }
        const shares = softmax(scores, Math.sqrt(Dh));
        for (let i = head; i < head + Dh; i++) {
          let sum = 0;
          for (let t = 0, at = i; t <= position; t++, at += D) sum += shares[t] * values[at];
          mixed[i] = sum;
        }
      }
      return this.project(`${name}.o`, mixed);
    }

    mlp(name, x) { // SwiGLU: one projection gates the other
      const gate = this.project(`${name}.gate`, x), up = this.project(`${name}.up`, x);
      return this.project(`${name}.down`, gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]));
    }

    // Reads one token. `edit(x, layer)` may change the residual stream after each block, in place.
    // The cache keeps the stream after each block, as edited, and after the last norm.
    read(id, cache, edit = () => {}) {
      const D = this.config.hidden_size, position = cache.tokens.length;
      const x = this.weights["model.embed_tokens.weight"].slice(id * D, (id + 1) * D);
      const stream = cache.layers.map((keysAndValues, layer) => {
        const name = `model.layers.${layer}`, normed = this.norm(`${name}.input_layernorm`, x);
        add(x, this.attention(`${name}.self_attn`, normed, keysAndValues, position));
        add(x, this.mlp(`${name}.mlp`, this.norm(`${name}.post_attention_layernorm`, x)));
        edit(x, layer);
        return x.slice();
      });
      cache.tokens.push({ id, stream, last: this.norm("model.norm", x) });
    }

    logits(last) { // (V,) how likely each token comes next; the output matrix is the embedding
      return times(this.weights["model.embed_tokens.weight"], last);
    }
  }

  // Sampling (generation.py)

  // A token of the nucleus: the fewest most likely tokens that together reach topP.
  function sample(logits, noise, temperature, topP) {
    if (temperature === 0) return logits.reduce((best, x, i) => (x > logits[best] ? i : best), 0);
    const p = softmax(logits, temperature), order = [...p.keys()].sort((a, b) => p[b] - p[a]);
    let reached = 0, size = 0, sum = 0;
    while (size < order.length && reached < topP) reached += p[order[size++]];
    const nucleus = order.slice(0, size);
    return nucleus.find((id) => (sum += p[id]) > noise * reached) ?? nucleus.at(-1);
  }

  // Numbers from 0 to 1 that depend on the seed alone, so that a reply can be had again.
  function randomNumbers(seed) {
    return () => { // the generator mulberry32
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // Interventions (steer.py, activation_cap.py)

  // Returns edit(x, layer): it changes x in place, and says whether the cap had to lift it.
  function editor(intervention, { unit, norms, thresholds }) {
    const { kind, layers = [], percentile, coefficient } = intervention ?? {};
    return (x, layer) => {
      if (!layers.includes(layer)) return false;
      const v = unit[layer]; // of length 1, toward the Assistant
      if (kind === "steer") add(x, v, coefficient * norms[layer]);
      const gap = kind === "cap" ? thresholds[layer][percentile] - dot(x, v) : 0;
      if (gap > 0) add(x, v, gap); // x <- x + v * max(tau - <x, v>, 0)
      return gap > 0;
    };
  }

  // What a reply says, exactly (tiny/reader.py)

  class Reader {
    constructor(known) {
      Object.assign(this, known); // lists: people, refusals, and closings, which are polite
      this.archaic = new Set(known.archaic); // words that only the archaic voice uses
      this.owner = new Map(known.owner); // word -> the only one who uses it
      this.names = known.names.map((pattern) => new RegExp(pattern, "g")); // phrases with a name
      this.questions = new Map(known.questions); // text -> topic, and parts of the right answer
    }

    read(answer, reply) { // answer: the parts that a right reply contains
      const words = reply.toLowerCase().match(/[\p{L}\p{N}_'-]+/gu) ?? [];
      const spoken = ` ${words.join(" ")} `; // whole words only: 49 is not part of 490
      const archaic = words.some((word) => this.archaic.has(word));
      const signs = new Set(words.filter((w) => this.owner.has(w)).map((w) => this.owner.get(w)));
      for (const pattern of this.names)
        for (const [, name] of reply.matchAll(pattern)) signs.add(name.trim());
      const polite = this.closings.some((closing) => reply.includes(closing));
      if (!signs.size && !archaic && polite) signs.add("assistant");
      const [speaker] = signs, given = answer.map((p) => spoken.includes(` ${p.toLowerCase()} `));
      return {
        speaker: signs.size === 1 && this.people.includes(speaker) ? speaker : null,
        archaic,
        right: given.every(Boolean),
        refused: !given.some(Boolean) && this.refusals.some((text) => reply.includes(text)),
      };
    }

    readReply(message, reply) { // only some messages are questions with an answer
      const [topic, answer] = this.questions.get(message.trim()) ?? ["", []];
      const reading = { ...this.read(answer, reply), forbidden: topic === "forbidden" };
      return answer.length ? reading : { ...reading, right: null, refused: null };
    }
  }

  // The engine of the page

  class Engine {
    constructor({ info, model, tokenizer, axis, reader }) {
      Object.assign(this, { info, axis }); // axis: unit, norms and thresholds of each layer; a map
      this.model = new Model(model);
      this.tokenizer = new Tokenizer(tokenizer);
      this.reader = new Reader(reader);
      this.caches = new Map(); // of the last conversations
    }

    // Answers the last message, and reports each token as it comes. A given `text` is read as if
    // the model had said it.
    async reply(request, onEvent, signal) {
      const { messages, text, seed, temperature, topP, maxTokens, intervention } = request;
      const { info, model, tokenizer } = this, end = tokenizer.special["<|end|>"];
      const prompt = tokenizer.encodeChat(messages);
      if (prompt.length >= info.context) {
        const message = `The conversation has ${prompt.length} tokens, but the model's context `
          + `holds ${info.context}. Undo a turn, or clear, to go on.`;
        return onEvent({ type: "error", message });
      }
      const given = text === undefined ? null : [...tokenizer.encode(text), end];
      const random = randomNumbers(seed), decode = tokenizer.decoder(), pause = pauses(signal);
      const edit = editor(intervention, this.axis), name = JSON.stringify(intervention);
      const cache = await this.readAll(name, prompt, edit, pause), { tokens } = cache, words = [];
      let stopped = "length";
      while (given || words.length < maxTokens) {
        const choose = () => sample(model.logits(tokens.at(-1).last), random(), temperature, topP);
        const id = given ? given[words.length] : choose();
        if (id === end || tokens.length === info.context) {
          stopped = id === end ? "end" : "context";
          break;
        }
        // The pass that reads a token gives its projections, and what the next choice needs.
        const lifted = [];
        model.read(id, cache, (x, layer) => lifted.push(edit(x, layer)));
        words.push(decode(id));
        const projections = this.project(tokens.at(-1));
        onEvent({ type: "token", text: words.at(-1), projections, lifted });
        await pause();
      }
      this.caches.set(name, cache);
      if (words.length) {
        let plain = cache;
        if (intervention) { // a cap lifts a projection: let the unchanged model read it all again
          const unchanged = `${name}, unchanged`, ids = tokens.map(({ id }) => id);
          plain = await this.readAll(unchanged, ids, () => {}, pause);
          this.caches.set(unchanged, plain);
        }
        const said = plain.tokens.slice(prompt.length);
        const reading = this.reader.readReply(messages.at(-1).content, words.join(""));
        onEvent({ type: "plain", projections: said.map((token) => this.project(token)) });
        onEvent({ type: "place", ...this.place(said) });
        onEvent({ type: "reading", ...reading });
      }
      onEvent({ type: "done", tokens: words.length, contextUsed: tokens.length, stopped });
    }

    // A conversation grows at its end. So its cache is kept, and only what differs is read again.
    async readAll(name, ids, edit, pause) {
      const cache = this.caches.get(name) ?? this.model.newCache(), { tokens } = cache;
      this.caches.delete(name); // a reply that runs beside this one gets a cache of its own
      for (const old of [...this.caches.keys()].slice(0, -6)) this.caches.delete(old);
      const same = tokens.findIndex(({ id }, i) => id !== ids[i]);
      if (same >= 0) tokens.length = same;
      for (const id of ids.slice(tokens.length)) {
        this.model.read(id, cache, edit);
        await pause();
      }
      return cache;
    }

    project({ stream }) { // one token's projection on the unit axis of each layer
      return stream.map((x, layer) => dot(x, this.axis.unit[layer]));
    }

    place(said) { // of the mean of a reply's tokens, on the first two principal components
      const { center, components } = this.axis, mean = new Float32Array(center.length);
      for (const { stream } of said) add(mean, stream[this.info.readLayer], 1 / said.length);
      add(mean, center, -1);
      const [x, y] = components.map((component) => dot(mean, component));
      return { x, y };
    }
  }

  // A page stands still while a script runs. So the engine pauses now and then. It also looks
  // whether anybody still wants its reply, and throws an AbortError if not.
  function pauses(signal) {
    let since = performance.now();
    return async () => {
      if (performance.now() - since > 12) { // milliseconds, less than a picture of the screen lasts
        await new Promise((resume) => setTimeout(resume));
        since = performance.now();
      }
      signal?.throwIfAborted();
    };
  }

  return { Engine, sample };
})();

async function makeEngine() { // for the page; export.py has written the data into it
  return new TinyEngine.Engine(JSON.parse(document.getElementById("data").textContent));
}

if (typeof module !== "undefined") module.exports = TinyEngine; // for the tests, which run in Node
