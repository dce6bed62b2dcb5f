"""What a page of a store costs: ``python -m benchmarks.page [REFS] [VERSIONS]``.

Makes a store in memory of so many refs, 10,000 by default, each a bundle of five artifacts with so many versions, 3 by
default, and prints the bytes of its page, the CPU of reading the store and of making the page, the requests that a
store in S3 would have been asked, and, where Chromium is installed, how long it takes until the list is there: from the
start of loading to the end of the page's program, by the page's own clock.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import mfstore
from mfstore.backends.memory import MemoryBackend
from mfstore.page.render import page
from mfstore.page.store_facts import Wanted, store_facts
from mfstore.settings import resolve
from mfstore.store import Store

LOADS = 5


class Counting(MemoryBackend):
    """Counts what is asked for as S3 would be asked: an object each, and a listing for a thousand."""

    def __init__(self, *given):
        super().__init__(*given)
        self.asked = Counter()

    def get(self, key):
        self.asked["objects"] += 1
        return super().get(key)

    def list(self, prefix):
        self.asked["pages"] += 1
        for number, info in enumerate(super().list(prefix), 1):
            self.asked["pages"] += number % 1000 == 0
            yield info


def fill(store, refs, versions):
    for version in range(versions):
        for number in range(refs):
            bundle = {
                "model": [number, version] * 40, "rows": number, "score": version / 7, "features": ["a", "b", "c"],
                "text": f"{number} and {version}",
            }  # fmt: skip
            note = {"auc": 0.9 + version / 100, "tags": ["nightly", f"team{number % 20}"], "seed": number}
            store.save(bundle, ref=f"models/team{number % 20}/model-{number:06}", note=note)


def loading(html):
    """Milliseconds of each load; None: there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    found = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(html)
        for number in range(LOADS):
            done = subprocess.run(
                [
                    chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    f"--user-data-dir={folder}/browser-{number}", "--dump-dom", file.as_uri(),
                ],
                capture_output=True, check=True,
            )  # fmt: skip
            found.append(int(re.search(rb'data-ms="(\d+)"', done.stdout)[1]))
    return sorted(found)


def main(refs=10_000, versions=3):
    backend = Counting()
    store = Store(backend.url, backend, resolve(), create=True, algorithm="blake3")
    fill(store, refs, versions)
    backend.asked.clear()
    began = time.process_time()
    facts = store_facts(store, "memory://", "A store", Wanted("", 10, True))
    read = time.process_time()
    html = page(facts)
    made = time.process_time()
    print(f"mfstore {mfstore.__version__}, {refs:,} refs of {versions} versions")
    print(f"page: {len(html.encode()) / 1e6:.1f} MB")
    print(f"CPU: {read - began:.1f} s reading the store, {made - read:.1f} s making the page")
    print(f"requests: {backend.asked['objects']:,} objects, {backend.asked['pages']:,} pages of listings")
    times = loading(html)
    print("Chromium: not installed" if times is None else f"Chromium: {times[len(times) // 2]} ms (of {times})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
