"""The live page: type, or press a button, and watch the baseline and an intervention side by side.

page.html, page.css, page.js   the page, which speaks to an engine
engine.js       the tiny model in plain JavaScript: the engine inside of an exported page
remote.js       the engine of a served page: it asks the server
page.py         joins these to one file, and says what the page needs to know about a model
export.py       writes the page with the tiny model inside: `cap_demo.py --page FILE.html`
answers.py      answers one message, token by token, with what the page shows about it
server.py       serves the page, and answers with PyTorch: `cap_demo.py --web`
chat.py         the same side-by-side conversation in a terminal: `cap_demo.py --chat`
"""
