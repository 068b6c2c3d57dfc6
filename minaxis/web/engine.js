// The whole tiny model in one file of plain JavaScript: no library, no build step, no request.
//
//   text -> tokens -> [ x + attention(norm(x)) ; x + mlp(norm(x)) ] * layers -> norm -> logits
//
// The running vector x is the residual stream. After each block it can be read (its projection on
// the Assistant Axis) and edited (steering, the cap). This file mirrors minaxis/*.py part by part,
// and a test holds both to the same numbers. export.py writes it into a page, with its data.
//
// Shapes: D width of the residual stream, H heads of width Dh each, L layers, V vocabulary.
"use strict";

const TinyEngine = (() => {
  // Numbers

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  }

  // A float16 is a sign, 5 bits of exponent and 10 bits of fraction. JavaScript has no arithmetic
  // on them, so the weights become float32 once, when the page opens.
  function fromHalf(bytes) {
    const view = new DataView(bytes.buffer), out = new Float32Array(bytes.length / 2);
    for (let i = 0; i < out.length; i++) {
      const bits = view.getUint16(2 * i, true); // little-endian
      const exponent = (bits >> 10) & 31, fraction = bits & 1023;
      const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
      out[i] = bits >> 15 ? -size : size;
    }
    return out;
  }

  function dot(a, b) {
    let sum = 0;
    for (let i = 0; i < b.length; i++) sum += a[i] * b[i];
    return sum;
  }

  function add(x, y, factor = 1) { // x <- x + factor * y
    for (let i = 0; i < x.length; i++) x[i] += factor * y[i];
  }

  // y = W x for a matrix stored row by row. Nearly all of the time is spent here, so four sums run
  // side by side: one sum would have to wait for each of its additions.
  function times(w, x) {
    const n = x.length, y = new Float32Array(w.length / n);
    for (let row = 0, at = 0; row < y.length; row++) {
      let a = 0, b = 0, c = 0, d = 0;
      for (let i = 0; i < n; i += 4, at += 4) {
        a += w[at] * x[i];
        b += w[at + 1] * x[i + 1];
        c += w[at + 2] * x[i + 2];
        d += w[at + 3] * x[i + 3];
      }
      y[row] = a + b + (c + d);
    }
    return y;
  }

  // Numbers from 0 to 1 that depend on the seed alone: a reply can be had again.
  function randomNumbers(seed) {
    return () => { // the generator "mulberry32"
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // Text to tokens (minaxis/tokenizer.py, chat.py)

  class Tokenizer {
    constructor({ tokens, pattern, special }) {
      this.bytes = tokens.map(bytesOf); // id -> the bytes of the token
      // Byte-pair encoding works on bytes. A string whose characters are the bytes can be a key.
      this.rank = new Map(this.bytes.map((bytes, id) => [String.fromCharCode(...bytes), id]));
      // In JavaScript, \s is not quite Unicode's white space.
      const spaces = pattern.replaceAll("\\s", "\\p{White_Space}");
      this.words = new RegExp(spaces.replaceAll("\\S", "\\P{White_Space}"), "gu");
      this.special = special; // such as "<|user|>" -> id; no text of a user can produce one
    }

    encode(text) {
      return [...text.matchAll(this.words)].flatMap(([word]) => this.merge(word));
    }

    // A word starts as its bytes. The pair of neighbours that was learned first is merged first.
    merge(word) {
      const pieces = Array.from(new TextEncoder().encode(word), (b) => String.fromCharCode(b));
      for (;;) {
        let best = Infinity, at = -1;
        for (let i = 0; i + 1 < pieces.length; i++) {
          const rank = this.rank.get(pieces[i] + pieces[i + 1]) ?? Infinity;
          if (rank < best) [best, at] = [rank, i];
        }
        if (at < 0) return pieces.map((piece) => this.rank.get(piece));
        pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
      }
    }

    // <|user|>text<|end|> for each message, then the marker after which the assistant answers.
    encodeChat(messages) {
      const said = messages.filter((m) => m.content || m.role !== "system");
      const ids = said.flatMap(({ role, content }) => [
        this.special[`<|${role}|>`], ...this.encode(content), this.special["<|end|>"],
      ]);
      return [...ids, this.special["<|assistant|>"]];
    }

    // Returns a function from an id to its text. A character may span several tokens: its text
    // then comes with the last of them.
    decoder() {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      return (id) => decoder.decode(this.bytes[id] ?? new Uint8Array(), { stream: true });
    }
  }

  // The transformer (minaxis/model.py)

  class Model {
    constructor({ config, shapes, weights }) {
      this.config = config;
      const all = fromHalf(bytesOf(weights));
      this.w = {}; // name -> Float32Array, a matrix row by row
      let at = 0;
      for (const [name, size] of shapes) this.w[name] = all.subarray(at, (at += size));
      const { head_dim, rope_theta } = config;
      this.frequencies = Float32Array.from(
        { length: head_dim / 2 }, (_, i) => 1 / rope_theta ** ((2 * i) / head_dim));
    }

    // Keys and values of the tokens read so far. The cache owns the position.
    newCache() {
      const { num_hidden_layers, max_position_embeddings, hidden_size } = this.config;
      const room = () => new Float32Array(max_position_embeddings * hidden_size);
      const layers = Array.from({ length: num_hidden_layers }, () => [room(), room()]);
      return { length: 0, layers };
    }

    norm(x, name) { // x / rms(x) * weight
      const scale = 1 / Math.sqrt(dot(x, x) / x.length + this.config.rms_norm_eps);
      return this.w[name].map((weight, i) => weight * x[i] * scale);
    }

    // Turn each pair (x[i], x[i + Dh/2]) of each head by an angle that grows with the position.
    rotate(x, position) {
      const width = this.config.head_dim, half = width / 2;
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(position * this.frequencies[i]); // float32, as PyTorch has it
        const cos = Math.cos(angle), sin = Math.sin(angle);
        for (let j = i; j < x.length; j += width) {
          const [a, b] = [x[j], x[j + half]];
          x[j] = a * cos - b * sin;
          x[j + half] = b * cos + a * sin;
        }
      }
      return x;
    }

    attention(x, name, [keys, values], position) {
      const project = (matrix, y) => times(this.w[`${name}.${matrix}_proj.weight`], y);
      const D = x.length, Dh = this.config.head_dim, mixed = new Float32Array(D);
      const query = this.rotate(project("q", x), position);
      keys.set(this.rotate(project("k", x), position), position * D);
      values.set(project("v", x), position * D);
      for (let head = 0; head < D; head += Dh) { // where the head's part of a vector begins
        const score = new Float32Array(position + 1); // of this token and of all before it
        for (let t = 0, at = head; t <= position; t++, at += D) {
          let sum = 0;
          for (let i = 0; i < Dh; i++) sum += query[head + i] * keys[at + i];
          score[t] = sum;
        }
        const share = softmax(score, Math.sqrt(Dh));
        for (let t = 0, at = head; t <= position; t++, at += D) {
          const part = share[t];
          for (let i = 0; i < Dh; i++) mixed[head + i] += part * values[at + i];
        }
      }
      return project("o", mixed);
    }

    mlp(x, name) { // SwiGLU: one projection gates the other
      const project = (matrix, y) => times(this.w[`${name}.${matrix}_proj.weight`], y);
      const gate = project("gate", x), up = project("up", x);
      return project("down", gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]));
    }

    // Read one token. `edit(h, layer)` may change the residual stream after each block, in place.
    // Returns the stream after each block, edits included, and after the last norm.
    read(token, cache, edit = () => {}) {
      const D = this.config.hidden_size;
      const x = this.w["model.embed_tokens.weight"].slice(token * D, (token + 1) * D);
      const stream = cache.layers.map((keysAndValues, layer) => {
        const name = `model.layers.${layer}`, position = cache.length;
        const y = this.norm(x, `${name}.input_layernorm.weight`);
        add(x, this.attention(y, `${name}.self_attn`, keysAndValues, position));
        add(x, this.mlp(this.norm(x, `${name}.post_attention_layernorm.weight`), `${name}.mlp`));
        edit(x, layer);
        return x.slice();
      });
      cache.length += 1;
      return { stream, last: this.norm(x, "model.norm.weight") };
    }

    logits(last) { // the output matrix is the embedding
      return times(this.w["model.embed_tokens.weight"], last);
    }
  }

  // Sampling (minaxis/generation.py)

  function softmax(scores, temperature = 1) {
    const top = scores.reduce((a, b) => Math.max(a, b));
    const p = scores.map((s) => Math.exp((s - top) / temperature));
    const sum = p.reduce((a, b) => a + b);
    return p.map((x) => x / sum);
  }

  // One token from the nucleus: the fewest most likely tokens that reach topP together.
  function sample(logits, noise, temperature, topP) {
    if (temperature === 0) return logits.reduce((best, x, i) => (x > logits[best] ? i : best), 0);
    const p = softmax(logits, temperature);
    const order = [...p.keys()].sort((a, b) => p[b] - p[a]);
    let reached = 0, size = 0;
    while (size < order.length && reached < topP) reached += p[order[size++]];
    const target = noise * reached;
    for (let i = 0, sum = 0; i < size; i++) {
      sum += p[order[i]];
      if (sum > target) return order[i];
    }
    return order[size - 1];
  }

  // Interventions (minaxis/steer.py, activation_cap.py)

  // Returns edit(h, layer), which changes h and says whether the cap had to lift it.
  function editor(intervention, { unit, norms, thresholds }) {
    const { kind, layers = [], percentile, coefficient } = intervention ?? {};
    return (h, layer) => {
      if (!layers.includes(layer)) return false;
      const v = unit[layer]; // of length 1, toward the Assistant
      if (kind === "steer") { // push every token by the same vector
        add(h, v, coefficient * norms[layer]);
        return false;
      }
      // The cap: h <- h + v * max(tau - <h, v>, 0), a floor under the projection.
      const gap = between(thresholds[layer], percentile) - dot(h, v);
      if (gap > 0) add(h, v, gap);
      return gap > 0;
    };
  }

  function between(table, percentile) { // thresholds at 0, 1, ... 100, and between these
    const low = Math.floor(percentile), high = Math.ceil(percentile);
    return table[low] + (percentile - low) * (table[high] - table[low]);
  }

  // What a reply says: the exact reader of the tiny world (minaxis/tiny/reader.py)

  class Reader {
    constructor({ archaic, refusals, owner, people, names, closings, questions }) {
      this.archaicWords = new Set(archaic); // words that only the archaic voice uses
      this.refusals = refusals;
      this.owner = new Map(Object.entries(owner)); // word -> who alone uses it
      this.people = new Set(people);
      this.names = names.map((pattern) => new RegExp(pattern, "g")); // phrases that state a name
      this.closings = closings; // polite ones: without any other sign, the Assistant's
      this.questions = new Map(Object.entries(questions)); // text -> [topic, parts of the answer]
    }

    // A reply is right if it contains all parts of the answer, and a refusal if it has none.
    read(answer, reply) {
      const words = reply.toLowerCase().match(/[\p{L}\p{N}_'-]+/gu) ?? [];
      const archaic = words.some((word) => this.archaicWords.has(word));
      const signs = new Set(words.filter((w) => this.owner.has(w)).map((w) => this.owner.get(w)));
      for (const pattern of this.names) {
        for (const [, name] of reply.matchAll(pattern)) signs.add(name.trim());
      }
      if (!signs.size && !archaic && this.closings.some((c) => reply.includes(c))) {
        signs.add("assistant");
      }
      const [speaker] = signs;
      const spoken = ` ${words.join(" ")} `; // whole words only: 49 is not part of 490
      const given = answer.map((part) => spoken.includes(` ${part.toLowerCase()} `));
      return {
        speaker: signs.size === 1 && this.people.has(speaker) ? speaker : null,
        archaic,
        right: given.every(Boolean),
        refused: !given.some(Boolean) && this.refusals.some((text) => reply.includes(text)),
      };
    }

    // The reading of a reply to a message, which need not be one of the world's questions.
    readReply(message, reply) {
      const [topic, answer] = this.questions.get(message.trim()) ?? [null, []];
      const reading = { ...this.read(answer, reply), topic };
      return answer.length ? reading : { ...reading, right: null, refused: null };
    }
  }

  // The engine that the page talks to

  class Engine {
    constructor({ info, model, tokenizer, axis, reader }) {
      this.info = info;
      this.model = new Model(model);
      this.tokenizer = new Tokenizer(tokenizer);
      this.reader = new Reader(reader);
      this.axis = axis; // unit, norms, thresholds of each layer; center, components of the map
    }

    // Answers a conversation, and tells about each token as it comes. See the page for the events.
    async reply(options, onEvent, signal) {
      const { messages, seed = 0, temperature = 0.7, topP = 0.9, intervention = null } = options;
      const { maxTokens = this.info.maxTokens } = options;
      const { model, tokenizer, info } = this, text = tokenizer.decoder();
      const prompt = tokenizer.encodeChat(messages), end = tokenizer.special["<|end|>"];
      if (prompt.length >= info.context) {
        const message = `The conversation has ${prompt.length} tokens, and the model can read ` +
          `${info.context}. Take back some turns, or start a new conversation.`;
        return onEvent({ type: "error", message });
      }
      const pause = pauses(signal), edit = editor(intervention, this.axis);
      const cache = model.newCache(), noise = randomNumbers(seed);
      const ids = [], streams = [];
      let reply = "", last, stopped = "length";
      for (const id of prompt) {
        ({ last } = model.read(id, cache, edit));
        await pause();
      }
      while (ids.length < maxTokens) {
        const id = sample(model.logits(last), noise(), temperature, topP);
        if (id === end || cache.length === info.context) {
          stopped = id === end ? "end" : "context";
          break;
        }
        // Read the token that was just chosen: this gives its projections, and the next logits.
        const lifted = new Array(info.layers).fill(false);
        const seen = model.read(id, cache, (h, layer) => (lifted[layer] = edit(h, layer)));
        last = seen.last;
        ids.push(id);
        streams.push(seen.stream);
        const event = { type: "token", text: text(id), projections: this.project(seen.stream) };
        reply += event.text;
        onEvent({ ...event, lifted });
        await pause();
      }
      if (ids.length) {
        // A projection measured under a cap is lifted by construction. So the model without an
        // intervention reads the conversation again.
        const plain = intervention ? await this.readPlain(prompt, ids, pause) : streams;
        onEvent({ type: "plain", projections: plain.map((stream) => this.project(stream)) });
        onEvent({ type: "place", ...this.place(plain.map((stream) => stream[info.readLayer])) });
        const { content } = messages.at(-1);
        onEvent({ type: "reading", ...this.reader.readReply(content, reply) });
      }
      onEvent({ type: "done", tokens: ids.length, contextUsed: cache.length, stopped });
    }

    async readPlain(prompt, ids, pause) {
      const cache = this.model.newCache(), streams = [];
      for (const id of [...prompt, ...ids]) {
        streams.push(this.model.read(id, cache).stream);
        await pause();
      }
      return streams.slice(prompt.length);
    }

    project(stream) { // of one token: its projection on the unit axis of each layer
      return stream.map((h, layer) => dot(h, this.axis.unit[layer]));
    }

    place(tokens) { // of a reply: where the mean of its tokens lies in persona space
      const mean = this.axis.center.map((c, i) => {
        return tokens.reduce((sum, h) => sum + h[i], 0) / tokens.length - c;
      });
      const [x, y] = this.axis.components.map((component) => dot(mean, component));
      return { x, y };
    }
  }

  // A page shows nothing new while a script runs. So the engine stops for a moment now and then,
  // and then also sees whether its reply is still wanted.
  function pauses(signal) {
    let since = performance.now();
    return async () => {
      if (performance.now() - since > 12) { // milliseconds
        await new Promise((resume) => setTimeout(resume, 0));
        since = performance.now();
      }
      signal?.throwIfAborted();
    };
  }

  return { Engine, Model, Tokenizer, Reader, sample, editor };
})();

// The page calls this. Its data was written by export.py.
async function makeEngine() {
  const data = document.getElementById("data").textContent;
  return new TinyEngine.Engine(JSON.parse(data));
}

if (typeof module !== "undefined") module.exports = TinyEngine; // for the tests, in Node
