"""report.html in a real browser, offline, on a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from quantlab import reports
from tests.reports.sample import huge, sample
from tests.reports.sample_gpu import gpu_sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("playwright")

SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=SWITCHES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {"sample": sample(), "gpu": gpu_sample(), "huge": huge()}
    folders = {name: tmp_path_factory.mktemp(name) for name in made}
    for name, report in made.items():
        reports.write(report, folders[name])
    return {name: folder / "report.html" for name, folder in folders.items()}


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("sample", 1280, "light"),
        ("sample", 1280, "dark"),
        ("sample", 390, "light"),
        ("sample", 390, "dark"),
        ("gpu", 1280, "light"),
        ("gpu", 390, "dark"),
        ("huge", 390, "light"),
    ],
)
def test_page(
    browser: "Browser",
    files: dict[str, Path],
    tmp_path: Path,
    name: str,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    with browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    ) as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(files[name].as_uri())
        for details in page.locator("details").all():
            details.evaluate("element => { element.open = true }")
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#summary table").first.is_visible()
        int8 = page.locator("#summary thead th").nth(2).bounding_box()
        assert int8 is not None
        assert int8["x"] + int8["width"] <= width, "the column that matters is in sight"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 29)"}[scheme]
        page.screenshot(path=tmp_path / "page.png", full_page=True)  # to look at: pytest keeps it
