// The engine of a served page: the server answers, one line of JSON for each event.
async function makeEngine() {
  const info = await (await fetch("info")).json();

  async function reply(request, onEvent, signal) {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("reply", {
      method: "POST", headers, body: JSON.stringify(request), signal,
    });
    if (!response.ok) throw new Error(await response.text());
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (text + value).split("\n");
      text = lines.pop();
      for (const line of lines) onEvent(JSON.parse(line));
    }
  }
  return { info, reply };
}
