"""What a visitor of the chat page does: chat_page.py URL PICTURE; prints `ok NAME` or `not ok NAME: why`."""
import json, sys, urllib.request
from browser import Browser

url, picture = sys.argv[1:]
browser = Browser()


def check(name, true, why=""):
    print(f"ok chat page: {name}" if true else f"not ok chat page: {name}: {why}", flush=True)


def ask(line):
    browser.evaluate(f'$("line").value = {json.dumps(line)}; $("ask").requestSubmit();')
    browser.wait('!running && document.querySelector(".turn.assistant .note")')


try:
    browser.open(url)
    browser.wait('$("model").options.length > 1')
    check("it lists the models", browser.evaluate('[...$("model").options].map(o => o.value).join()') == "tiny,ab")
    browser.evaluate('$("seed").value = 3; $("max_tokens").value = 40; $("temperature").value = 0.6')
    ask("How do I save a document?")
    shown = browser.evaluate('document.querySelector(".turn.assistant").firstChild.data')
    body = {"messages": [{"role": "user", "content": "How do I save a document?"}], "seed": 3, "max_tokens": 40,
            "temperature": 0.6, "top_p": 0.95}
    query = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    wanted = json.load(urllib.request.urlopen(query))["choices"][0]["message"]["content"]
    check("it shows what the API answers", shown == wanted, f"{shown!r} is not {wanted!r}")
    check("no buttons without an experiment", browser.evaluate('document.querySelectorAll(".verdict").length') == 0)

    browser.evaluate('$("new").click(); $("model").value = "ab"')
    ask("<b>bold</b> & plain")
    check("what is typed stays text", browser.evaluate('document.querySelector(".turn.user").textContent') == "<b>bold</b> & plain")
    browser.evaluate('document.querySelector(".verdict[aria-label=\\"good answer\\"]").click()')
    browser.wait('document.querySelector(".verdict[aria-pressed=true]")')
    table = json.load(urllib.request.urlopen(url + "/ab"))
    check("a verdict reaches the experiment", sum(v["up"] for v in table["variants"]) == 1, table)
    browser.evaluate('$("theme").click()')
    check("light and dark", browser.evaluate("document.documentElement.dataset.theme") in ("light", "dark"))
    check("nothing sticks out", browser.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    browser.picture(picture)
    browser.evaluate('$("max_tokens").value = 4000; $("mode").value = "text"; $("line").value = "Click"; $("ask").requestSubmit();')
    browser.wait('running && document.querySelector(".busy").firstChild.data.length > 0')
    browser.evaluate('$("ask").requestSubmit()')
    browser.wait("!running")
    check("Stop stops", True)
except (RuntimeError, TimeoutError) as error:
    check("works", False, error)
finally:
    browser.close()
