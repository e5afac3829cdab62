"""Pictures of Flower's page of the fleet for the docs: of a fleet that nobody has used, under load, and with its cache frozen.

python -m benchmarks.screenshots docs        (make screenshots)

Ends with 1 if the page's console has said anything, or if a picture is too large.
"""

from __future__ import annotations

import argparse
import io
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium
from benchmarks.kit.endpoint import Fault, ScriptedEndpoint
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.measures.page_load import FADE_S, MODEL_MS, Load, start_flower
from workers.client import PersonaClient
from workers.queue.factory import make_app
from workers.stack.plan import FLOWER_USER
from workers.stack.servers.ports import choose_ports
from workers.stack.servers.valkey_server import HOST

WIDE, NARROW = 1280, 390
RATE_PER_S: Final = 60
LOAD_S: Final = 75.0
FROZEN_WITHIN_S: Final = 20.0
MOST_BYTES: Final = 220_000
COLOURS: Final = (64, 48, 32)
FAILING: Final = 3
CALLS_OF_A_TASK: Final = 3


class Camera:
    """Takes pictures of one page into a folder."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser, self._folder = browser, folder
        self.problems: list[str] = []

    def take(self, name: str, width: int, theme: str) -> None:
        """The whole page, `width` pixels wide. Notes what its console has said by now, and a file that is too large."""
        self._browser.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._browser.prefer(theme)
        time.sleep(FADE_S)
        path = self._folder / f"{name}.png"
        self._browser.screenshot(path, width=width)
        for most_colours in COLOURS:
            shrink(path, most_colours)
            if (size := path.stat().st_size) <= MOST_BYTES:
                break
        print(f"{path}: {size / 1000:.0f} kB")
        if size > MOST_BYTES:
            self.problems.append(f"{path.name} has {size:,} bytes; allowed are up to {MOST_BYTES:,}")
        self.problems += [f"{path.name}: the console says: {error}" for error in self._browser.errors]


def shrink(path: Path, most_colours: int) -> None:
    """A palette in the place of three bytes a point: half the size, and no difference that an eye would see."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        points = np.asarray(image.convert("RGB"))
    # By hand: the library's own methods tint large grounds, or give a colour of few points, as a mark is, to its neighbour.
    colours, places, counts = np.unique(points.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    apart = np.full(len(colours), np.inf)
    nearest = np.zeros(len(colours), np.uint8)
    chosen = []
    for number in range(min(most_colours, len(colours))):
        # The one that is most missed: by how many points, and how far off the nearest is that is there already.
        most = int(np.argmax(counts * (apart if number else 1)))
        chosen.append(colours[most])
        off = ((colours.astype(int) - colours[most]) ** 2).sum(axis=1)
        nearest[off < apart] = number
        apart = np.minimum(apart, off)
    reduced = Image.fromarray(nearest[places].reshape(points.shape[:2]), "P")
    reduced.putpalette(np.array(chosen, np.uint8).tobytes())
    written = io.BytesIO()
    reduced.save(written, "PNG", optimize=True)
    path.write_bytes(written.getvalue())


def take_pictures(folder: Path, load_s: float = LOAD_S) -> list[str]:
    """Returns what was wrong with them. Every process that it starts has ended then."""
    with ExitStack() as resources:
        model = resources.enter_context(ScriptedEndpoint(delay_ms=MODEL_MS))
        password = secrets.token_urlsafe(24)
        environ = {
            "PERSONA_LLM_URL": model.url,
            "PERSONA_LLM_MODEL": "a-model",
            "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}",
        }
        fleet = resources.enter_context(Fleet(print, nodes=0, children=2, environ=environ))
        port = choose_ports({"flower": None})["flower"]
        start_flower(fleet, port)
        browser = resources.enter_context(Browser())
        camera = Camera(browser, folder)
        browser.open(f"http://{FLOWER_USER}:{password}@{HOST}:{port}/")
        browser.wait(
            "document.getElementById('fleet').dataset.state === 'live' && !document.getElementById('fleet-first').hidden"
        )
        camera.take("flower-empty", WIDE, "light")
        camera.take("flower-empty-390", NARROW, "dark")
        fleet.add_nodes(2)
        with load(fleet, model, load_s) as running:
            wait_for(browser, "document.querySelector('#fleet-hot [data-key] button')", load_s)
            time.sleep(max(0.0, running - time.monotonic()))
            browser.evaluate("document.querySelector('#fleet-hot [data-key] button').click()")
            browser.wait("document.querySelector('[data-fact=served_by]')")
            browser.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            camera.take("flower", WIDE, "light")
            camera.take("flower-dark", WIDE, "dark")
            camera.take("flower-390", NARROW, "light")
            camera.take("flower-390-dark", NARROW, "dark")
        os.kill(fleet.servers["cache"], signal.SIGSTOP)
        try:
            wait_for(browser, "document.getElementById('fleet').dataset.state === 'away'", FROZEN_WITHIN_S)
            camera.take("flower-frozen", WIDE, "dark")
            camera.take("flower-frozen-390", NARROW, "light")
        finally:
            os.kill(fleet.servers["cache"], signal.SIGCONT)
        return camera.problems


@contextmanager
def load(fleet: Fleet, model: ScriptedEndpoint, load_s: float) -> Iterator[float]:
    """Requests at a steady rate, a few of which the model refuses. Gives the moment from which on pictures are worth it, by
    `time.monotonic`; the load goes on until the block is left, or a while."""
    with ExitStack() as resources:
        client = resources.enter_context(PersonaClient(fleet.settings))
        app = make_app(fleet.settings)
        resources.callback(app.close)
        model.script(Fault("status", status=401, times=FAILING))
        generator = resources.enter_context(ThreadPoolExecutor(1, thread_name_prefix="load"))
        requests = Load(client, app)
        resources.callback(requests.stop)
        running = generator.submit(requests.run, 2 * load_s, RATE_PER_S)
        yield time.monotonic() + load_s
        requests.stop()
        running.result()


def wait_for(browser: Browser, condition: str, bound_s: float) -> None:
    browser.wait(condition, timeout_s=bound_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder: Path = parser.parse_args().folder
    if find_chromium() is None:
        print(f"no Chromium is installed ({HOW_TO_INSTALL})", file=sys.stderr)
        return 1
    try:
        problems = take_pictures(folder)
    except BenchmarkFailedError as error:
        problems = list(error.problems)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
