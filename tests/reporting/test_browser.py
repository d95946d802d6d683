"""The report in a real browser: it draws, it is silent, and it asks no server for anything."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from large_ledger import large_ledger
from tuned_ledger import tuned_ledger

from steepest.api import MultiResult, race
from steepest.racing.result import Result
from steepest.reporting import write_html
from steepest.reporting.facts import headline
from steepest.train.task import Task

websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


class Browser:
    """A headless Chromium without any name service, spoken to over its debugging protocol."""

    def __init__(self, profile: Path) -> None:
        command = [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-allow-origins=*",
            "--disable-background-networking", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
        )
        try:
            port = self._port(profile / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
                pages = [page for page in json.load(reply) if page["type"] == "page"]
            self._socket = websocket.create_connection(
                pages[0]["webSocketDebuggerUrl"], timeout=60, max_size=None
            )
        except BaseException:
            self.close()
            raise
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _port(self, file: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if file.exists() and (lines := file.read_text().splitlines()):
                return lines[0]
            time.sleep(0.05)
        raise TimeoutError("Chromium did not open its debugging port within a minute")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def value(self, expression: str) -> Any:
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False,
             touch: bool = False) -> float:  # fmt: skip
        """Open a report, wait until every figure is drawn, and return the seconds that took."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=touch)  # fmt: skip
        self.events.clear()
        started = time.monotonic()
        self.call("Page.navigate", url=page.as_uri())
        deadline = started + 60
        done = "document.readyState === 'complete' && (!document.getElementById('plotly') " \
               "|| 'drawn' in document.documentElement.dataset)"  # fmt: skip
        while not self.value(done):
            assert time.monotonic() < deadline, self.complaints()
            time.sleep(0.02)
        return time.monotonic() - started

    def complaints(self) -> list[str]:
        """Exceptions, console warnings and errors, log entries."""
        found = []
        for event in self.events:
            method, body = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(body["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and body["type"] in ("error", "warning"):
                found.append(json.dumps(body["args"]))
            elif method == "Log.entryAdded" and body["entry"]["level"] in ("error", "warning"):
                found.append(body["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Everything that was fetched."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def make_task() -> Task:
    """Two clouds of points, told apart by a small network."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(300, 6, generator=generator)
    y = (x[:, 0] + 0.3 * torch.randn(300, generator=generator) > 0).long()

    def make_model() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

    def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float((outputs.argmax(1) == targets).float().mean())

    return Task(
        name="clouds <&> 구름",
        model=make_model,
        loss=torch.nn.functional.cross_entropy,
        train=(x[:200], y[:200]),
        val=(x[200:250], y[200:250]),
        test=(x[250:], y[250:]),
        metrics={"accuracy": accuracy},
        batch_size=20,
    )


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A real race, small enough for a test."""
    return race(
        make_task(),
        {
            "adam & <co>": "adam(lr=0.01) + cosine(warmup=0.1)",
            "모멘텀 sgd": "sgd(lr=0.1, momentum=0.9)",
            "too fast": "sgd(lr=1e30)",
        },
        seeds=3,
        steps=30,
        eval_every=10,
        target=0.8,
        timing=0.2,
        out=tmp_path_factory.mktemp("races") / "clouds",
    )


@pytest.fixture(scope="module")
def page(raced: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_html(raced, tmp_path_factory.mktemp("pages") / "report.html")


def test_a_real_race_is_drawn_without_a_word_or_a_request(
    browser: Browser, raced: Result, page: Path
) -> None:
    browser.open(page)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("data:", "blob:"))] == [
        page.as_uri()
    ]
    assert browser.value("document.querySelector('h1').innerText") == headline(raced)
    assert browser.value("document.querySelector('h1').getBoundingClientRect().top") < 300
    figures = browser.value("document.querySelectorAll('figure').length")
    drawn = browser.value(
        "[...document.querySelectorAll('.plot')].filter("
        "p => p.querySelector('.main-svg .xaxislayer-above, .main-svg .xy') "
        "&& p.getBoundingClientRect().height > 100).length"
    )
    assert figures == drawn == int(browser.value("document.documentElement.dataset.drawn"))
    # final 2, curves with findings 2, loss 1 + 3, validation 2, target 2, cost 4, layers 3,
    # learning rate 1
    assert figures == 20


def test_every_dot_of_the_final_figure_is_on_the_page(browser: Browser, page: Path) -> None:
    browser.open(page)
    dots = browser.value("document.querySelector('#final .plot').querySelectorAll('.point').length")
    assert dots == 2 * 3 + 2  # two arms that finished, three seeds each, and their means


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_narrow_and_wide_light_and_dark(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark, touch=width < 500)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    lightness = browser.value(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    )
    assert (lightness < 60) == dark
    ink = browser.value(
        "getComputedStyle(document.querySelector('.xtick text')).fill.match(/\\d+/g).map(Number)[0]"
    )
    assert (ink > 120) == dark


def test_the_switches_do_what_they_say(browser: Browser, page: Path) -> None:
    browser.open(page)
    panel = "document.querySelector('#loss .plot')"
    for scale in ("log", "linear"):
        browser.value(f"document.querySelector('#loss [data-scale={scale}]').click()")
        assert browser.value(f"{panel}._fullLayout.yaxis.type") == scale
    browser.value("document.querySelector('#loss [data-span=end]').click()")
    assert browser.value(f"{panel}._fullLayout.xaxis.range[0]") == 15
    browser.value("document.querySelector('#loss [data-scale=log]').click()")
    assert browser.value(f"{panel}._fullLayout.xaxis.range[0]") == 15
    low, high = browser.value(f"{panel}._fullLayout.yaxis.range")
    assert low < high < 0  # ten to that power: the loss of half-trained networks is below one
    browser.value("document.querySelector('#loss [data-span=all]').click()")
    assert browser.value(f"{panel}._fullLayout.xaxis.range[0]") <= 1
    browser.value("document.querySelector('.chip[data-arm=\"0\"]').click()")
    shown = "[...new Set(document.querySelector('#val .plot')._fullData" \
            ".filter(t => t.visible).map(t => t.meta.arm))].join()"  # fmt: skip
    assert browser.value(shown) == "1"
    browser.value("document.querySelector('.chip[data-arm=\"0\"]').click()")
    assert browser.value(shown) == "0,1"
    assert browser.complaints() == []


def test_the_verdict_is_painted_before_the_figures(
    browser: Browser, hand_written_race: Callable[..., Result], tmp_path: Path
) -> None:
    path = write_html(hand_written_race(steps=5000), tmp_path / "report.html")
    seconds = browser.open(path)
    painted = browser.value("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 2000
    assert seconds < 20  # about one on two idle cores; the machine may be busy
    assert browser.complaints() == []


@pytest.mark.parametrize(
    "options",
    [{"diverged": [(a, s) for a in range(2) for s in range(6)]},
     {"pending": [(a, s) for a in range(2) for s in range(6)], "timings": False},
     {"arms": ('<b>bold</b> & "quoted" </script>', "it's `x` %{y} ${z}", "글자")},
     {"arms": ("a",), "seeds": 1, "splits": (), "timings": False},
     {"arms": tuple(f"arm {n}" for n in range(12)), "seeds": 3, "steps": 60}],
    ids=["all diverged", "not begun", "nasty labels", "one run", "twelve arms"],
)  # fmt: skip
def test_odd_races_open_without_complaint(
    browser: Browser,
    hand_written_race: Callable[..., Result],
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    result = hand_written_race(**options)
    browser.open(write_html(result, tmp_path / "report.html"))
    assert browser.complaints() == []
    assert browser.value("document.querySelector('h1').innerText") == headline(result)
    labels = browser.value(
        "[...document.querySelectorAll('.chip')].map(c => c.textContent.trim()).join('|')"
    )
    assert labels == "|".join(arm.label for arm in result.arms)


def test_a_large_race_opens_within_two_seconds(browser: Browser, tmp_path: Path) -> None:
    """Eight arms, 16 trials, two tuning seeds, ten final seeds and defaults: 416 runs."""
    result = large_ledger(tmp_path / "race")
    path = write_html(result, tmp_path / "report.html")
    assert path.stat().st_size < 4_000_000
    # Seconds of the processor and not of the clock: other processes may be busy meanwhile.
    browser.call("Performance.enable", timeDomain="threadTicks")
    spent = []
    for _ in range(3):
        browser.open(path)
        metrics = browser.call("Performance.getMetrics")["metrics"]
        spent.append(next(row["value"] for row in metrics if row["name"] == "TaskDuration"))
        assert browser.complaints() == []
        assert [url for url in browser.requests() if not url.startswith(("data:", "blob:"))] == [
            path.as_uri()
        ]
    browser.call("Performance.disable")
    assert min(spent) < 2.0
    painted = browser.value("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 2000
    figures = browser.value("document.querySelectorAll('figure').length")
    # final 2, bought 2, rates 2, best of k 1, anytime 2, spaces 8, loss 1 + 8, validation 2,
    # target 2, cost 4, learning rate over time 1; and what else there is to say about trials
    assert figures >= 35
    assert figures == int(browser.value("document.documentElement.dataset.drawn"))
    empty = browser.value(
        "[...document.querySelectorAll('.plot')].filter(p => !p._fullData.some("
        "t => t.visible && t.x && t.x.length)).map(p => p.previousElementSibling.innerText)"
    )
    assert empty == []
    said = browser.value("document.querySelector('#loss').innerText")
    assert "Of 3,440 batches per run, 50 are drawn" in said
    assert "The ledger has them all" in said


@pytest.mark.parametrize("width", [360, 1280])
def test_names_over_rows_do_not_overlap_and_stay_inside(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    path = write_html(tuned_ledger(tmp_path / "race"), tmp_path / "report.html")
    browser.open(path, width=width, touch=width < 500)
    assert browser.value("document.documentElement.scrollWidth") <= width
    bad = browser.value("""
        [...document.querySelectorAll('.plot')].flatMap(plot => {
          const frame = plot.getBoundingClientRect();
          const boxes = [...plot.querySelectorAll('.annotation-text')]
            .map(e => [e.textContent, e.getBoundingClientRect()]);
          const out = boxes.filter(([t, b]) =>
            b.right > frame.right + 1 || b.left < frame.left - 1);
          const hit = boxes.filter(([t, b], i) => boxes.slice(i + 1).some(([u, c]) =>
            b.left < c.right && c.left < b.right && b.top < c.bottom - 1 && c.top < b.bottom - 1));
          return [...out, ...hit].map(([t]) => t);
        })
    """)
    assert bad == []


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> MultiResult:
    """A real race over two tasks."""
    tasks = [dataclasses.replace(make_task(), name=name) for name in ("clouds <&> 구름", "again")]
    return race(
        tasks,
        {"adam & <co>": "adam(lr=0.01)", "모멘텀 sgd": "sgd(lr=0.1, momentum=0.9)"},
        seeds=3,
        steps=30,
        eval_every=10,
        target=0.8,
        timing=0,
        engine="solo",
        out=tmp_path_factory.mktemp("races") / "several",
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_over_several_tasks_is_drawn_without_a_word_or_a_request(
    browser: Browser, several: MultiResult, width: int, dark: bool
) -> None:
    page = several.report()
    browser.open(page, width=width, dark=dark, touch=width < 500)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("data:", "blob:"))] == [
        page.as_uri()
    ]
    assert browser.value("document.documentElement.scrollWidth") <= width
    # scores 1, profile 1, time to target 2, finals 2
    assert browser.value("document.querySelectorAll('figure').length") == 6
    assert browser.value("document.documentElement.dataset.drawn") == "6"
    links = browser.value("[...document.querySelectorAll('a')].map(a => a.href)")
    assert links == [
        (result.folder / "report.html").as_uri() for result in several.results.values()
    ]
