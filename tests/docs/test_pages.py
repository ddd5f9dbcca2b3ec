"""The built pages: links, pictures, search, no network, and no page wider than a phone.

They need a build (`make docs`, which runs these tests); the browser's part needs Chromium.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

BUILD = Path(__file__).parents[2] / "docs" / "_build" / "html"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1400,900", "--enable-logging=stderr", "--remote-debugging-port=0",
)  # fmt: skip
WIDTHS = (1300, 390)
SEARCHED = {"smoother": "rts_smoother", "rotary": "Rotary attention", "filterpy": "filterpy"}

pytestmark = pytest.mark.skipif(
    not (BUILD / "index.html").exists(), reason="pages are not built: make docs"
)


class Page(HTMLParser):
    """What a page links to, loads and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("img", "script", "iframe", "source") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in BUILD.rglob("*.html")}


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", address):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            known = pages[target].anchors if target in pages else {anchor}
            if not target.exists() or (anchor and unquote(anchor) not in known):
                broken.append((path.name, link))
    assert len(pages) > 100
    assert not broken, broken[:10]


def test_pages_load_nothing_from_the_network_and_every_file_is_there(
    pages: dict[Path, Page],
) -> None:
    for path, page in pages.items():
        for address in page.loads:
            assert not re.match(r"(https?:)?//", address), (path.name, address)
            file = path.parent / unquote(re.sub(r"[?#].*", "", address))
            assert file.stat().st_size > 0, (path.name, address)


def test_formulas_are_mathml(pages: dict[Path, Page]) -> None:
    text = (BUILD / "guide.html").read_text(encoding="utf-8")
    assert text.count("<math") > 5
    assert "mathjax" not in text.lower()


VISIT = """<!doctype html><title>visit</title><body><script>
const wait = ms => new Promise(done => setTimeout(done, ms));
async function open_in(width, address) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  document.body.append(frame);
  await new Promise(done => { frame.onload = done; frame.src = address; });
  return frame;
}
async function visit() {
  const seen = [], searches = {};
  for (const width of WIDTHS) for (const name of NAMES) {
    const frame = await open_in(width, "/" + name), page = frame.contentDocument;
    for (const image of page.images) { image.loading = "eager"; await image.decode().catch(() => 0); }
    seen.push({name, width, wide: page.documentElement.scrollWidth - page.documentElement.clientWidth,
               blank: [...page.images].filter(i => !i.naturalWidth).map(i => i.src),
               text: page.querySelector("article").innerText.length});
    frame.remove();
  }
  for (const word of WORDS) {
    const frame = await open_in(1300, "/search.html?q=" + word);
    for (let k = 0; k < 100; k++) {
      await wait(100);
      if (/found|did not match/.test(frame.contentDocument.querySelector("#search-results").innerText)) break;
    }
    await wait(500);
    searches[word] = frame.contentDocument.querySelector("#search-results").innerText;
    frame.remove();
  }
  return {seen, searches};
}
visit().catch(error => ({error: String(error)}))
  .then(result => fetch("/result", {method: "POST", body: JSON.stringify(result)}));
</script></body>"""  # noqa: E501


class Quiet(SimpleHTTPRequestHandler):
    """Serves the pages and the script that visits them, and takes what it found."""

    visit = ""
    results: queue.Queue[str] = queue.Queue()

    def do_GET(self) -> None:
        if self.path != "/visit":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.visit.encode())

    def do_POST(self) -> None:
        self.results.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(pages: dict[Path, Page]) -> Iterator[str]:
    names = sorted(
        str(path.relative_to(BUILD))
        for path in pages
        if "generated" not in path.parts
        and "_static" not in path.parts
        and path.name not in ("search.html", "genindex.html", "py-modindex.html")
    )
    assert "index.html" in names
    assert len(names) > 20
    script = VISIT.replace("WIDTHS", json.dumps(WIDTHS)).replace("NAMES", json.dumps(names))
    Quiet.visit = script.replace("WORDS", json.dumps(list(SEARCHED)))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(BUILD))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_pages_in_a_browser(server: str, tmp_path: Path) -> None:
    """No error, no blank picture, nothing wider than the window; the search finds things."""
    said = tmp_path / "stderr"
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"{server}/visit"]
    with said.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as browser:
        try:
            result = json.loads(Quiet.results.get(timeout=300))
        finally:
            browser.terminate()
    assert "error" not in result, result
    assert {page["width"] for page in result["seen"]} == set(WIDTHS)
    for page in result["seen"]:
        assert page["wide"] <= 0, page
        assert page["blank"] == [], page
        assert page["text"] > 40, page
    for word, wanted in SEARCHED.items():
        assert wanted in result["searches"][word], (word, result["searches"][word][:300])
    assert [line for line in said.read_text().splitlines() if "CONSOLE" in line] == []
