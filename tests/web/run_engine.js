// Answers the questions of test_engine.py about engine.js.
//
//   node run_engine.js ENGINE.js DATA.json JOBS.json OUT.bin
//
// Prints one JSON result for each job, and writes the logits of all steps, or the weights, to OUT.bin as float32.
"use strict";
const fs = require("fs");
const [enginePath, dataPath, jobsPath, outPath] = process.argv.slice(2);
const { Engine, sample } = require(enginePath);
const read = (path) => JSON.parse(fs.readFileSync(path, "utf8"));

const engine = new Engine(read(dataPath));
const out = fs.openSync(outPath, "w");

// What the model reads and computes during a reply
let tokens = [];
const [readToken, computeLogits] = ["read", "logits"].map((f) => engine.model[f].bind(engine.model));
engine.model.read = (id, cache, edit) => {
  tokens.push(id);
  return readToken(id, cache, edit);
};
engine.model.logits = (last) => {
  const logits = computeLogits(last);
  fs.writeSync(out, logits);
  return logits;
};

const jobs = {
  encode: ({ text }) => engine.tokenizer.encode(text),
  chat: ({ messages }) => engine.tokenizer.encodeChat(messages),
  decode: ({ ids }) => ids.map(engine.tokenizer.decoder()).join(""),
  sample: ({ logits, noise, temperature, topP }) =>
    sample(Float32Array.from(logits), noise, temperature, topP),
  read: ({ message, reply }) => engine.reader.readReply(message, reply),
  weights: () => Object.values(engine.model.weights).map((w) => fs.writeSync(out, w)),
  time({ tokens }) { // milliseconds of the processor for each token
    const cache = engine.model.newCache(), start = process.cpuUsage();
    for (let id = 0; id < tokens; id++) {
      readToken(id, cache);
      computeLogits(cache.tokens.at(-1).last);
    }
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000 / tokens;
  },
  async reply({ request, abortAfter, context = 1024, keep = false }) {
    if (!keep) engine.caches.clear();
    engine.info.context = context;
    const events = [], controller = new AbortController();
    tokens = [];
    let error = null;
    const add = (event) => events.push(event) === abortAfter && controller.abort();
    await engine.reply(request, add, controller.signal).catch((e) => (error = e.name));
    return { events, tokens, error };
  },
};

(async () => {
  const results = [];
  for (const job of read(jobsPath)) results.push(await jobs[job.kind](job));
  console.log(JSON.stringify(results));
})();
