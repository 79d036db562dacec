"""Drives headless Chromium through its debugging pipe: opens a page, evaluates JavaScript, takes pictures."""
import base64, json, os, shutil, subprocess


class Browser:
    def __init__(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            raise FileNotFoundError("no Chromium")
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()

        def wire():
            os.dup2(commands, 103), os.dup2(answers, 104)
            os.dup2(103, 3), os.dup2(104, 4)

        self._process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--window-size=1100,760"],
            preexec_fn=wire, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands), os.close(answers)
        self._count, self._held, self._session = 0, b"", None

    def _call(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._held:
                part = os.read(self._read, 1 << 16)
                if not part:
                    raise RuntimeError("Chromium has ended")
                self._held += part
            line, self._held = self._held.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]

    def open(self, url):
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Page.navigate", url=url)
        self.wait('document.readyState === "complete"')

    def evaluate(self, expression):
        result = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", "an exception"))
        return result["result"].get("value")

    def wait(self, condition, seconds=30):
        done = self.evaluate(
            f"new Promise(done => {{ const start = Date.now(); (function look() {{ if ({condition}) done(true);"
            f" else if (Date.now() - start > {seconds * 1000}) done(false); else setTimeout(look, 50); }})(); }})")
        if not done:
            raise TimeoutError(condition)

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self._process.kill()
        self._process.wait()
