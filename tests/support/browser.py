"""Prefect's UI as a person uses it: eyes, mouse and keyboard of a real browser that gets no further than this machine.

The browser is the system's Chromium, driven by Playwright: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, Route, TimeoutError, expect, sync_playwright

PATIENCE_MS = 30_000  # with a busy machine
WIDTH = 1160
RELOAD_MS = 3_000
SUBMITS, PRESSES = 5, 8
RUN_MS = 120_000  # from the click until a run has ended
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
expect.set_options(timeout=PATIENCE_MS)


class Ui:
    """What a person sees and does.

    Attributes:
        page: of the browser.
        outside: hosts of other machines that the UI asked for; it was not let through to them.
    """

    def __init__(self, page: Page, address: str, pictures: Path | None) -> None:
        self.page, self.outside = page, set[str]()
        self._address, self._pictures = address, pictures
        self._main = page.locator("main")

    def open(self) -> None:
        self.page.goto(self._address)

    def show_deployments(self) -> None:
        self.page.get_by_role("link", name="Deployments", exact=True).first.click()
        expect(self._deployment("backup")).to_be_visible()

    def open_form(self, deployment: str) -> None:
        """From wherever one is, by the list of deployments; there are more of them than it shows at once."""
        self.show_deployments()
        self._choose(deployment)
        self.page.get_by_role("menuitem", name="Custom run").click()
        expect(self.page.get_by_role("button", name="Submit")).to_be_visible()

    def fill_in(self, **parameters: bool | float | str) -> None:
        """Switches for ``bool``, drop-downs for ``str``, fields for numbers."""
        for name, value in parameters.items():
            field = self.page.get_by_label(f"{name} (Optional)")
            if isinstance(value, bool):
                field.set_checked(value)
            elif isinstance(value, str):
                self.page.get_by_role("button", name=f"Select {name}").click()
                self.page.get_by_role("option", name=value, exact=True).click()
            else:
                field.fill(str(value))

    def submit(self) -> None:
        """The form, and on to the run's page."""
        self._start(self.page.get_by_role("button", name="Submit"))

    def run_as_it_is(self, deployment: str) -> None:
        """Without a form, and on to the run's page."""
        self.show_deployments()
        self._choose(deployment)
        self._start(self.page.get_by_role("menuitem", name="Quick run"))

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def open_artifact(self, key: str) -> None:
        """Of the run that is shown; the newest of that key."""
        run = self.page.url.partition("/flow-run/")[2][:36]
        self.tab("Artifacts")
        card = self._main.get_by_role("link", name=key).first
        self._reload_until(card)
        card.click()
        own = self.page.get_by_role("complementary").locator(f'a[href*="{run}"]').first
        for _ in range(PRESSES):  # what is listed first is an older run's for a moment
            self._main.locator('a[href*="/artifacts/artifact/"]').first.click()
            expect(self.page.get_by_role("tab", name="Raw")).to_be_visible()
            with contextlib.suppress(TimeoutError):
                own.wait_for(timeout=RELOAD_MS)
                return
            self.page.go_back()
            self.page.reload()
        raise AssertionError(f"no artifact {key} of the run {run}")

    def back_to_run(self) -> None:
        self.page.get_by_role("complementary").locator('a[href*="/runs/flow-run/"]').first.click()

    def sees(self, text: str | re.Pattern[str]) -> Locator:
        """Waits for it."""
        found = self._main.get_by_text(text).first
        expect(found).to_be_visible()
        return found

    def comes_to_see(self, text: re.Pattern[str]) -> Locator:
        """Presses F5 until it is there: what the UI shows of artifacts does not change by itself."""
        found = self._main.get_by_text(text).first
        self._reload_until(found)
        return found

    def sees_state(self, name: str) -> None:
        """Waits until the run that is shown has ended so."""
        expect(self._main.get_by_text(re.compile("^(Completed|Failed|Crashed|Cancelled)$")).first).to_be_visible(
            timeout=RUN_MS
        )
        expect(self._main.get_by_text(name, exact=True).first).to_be_visible()

    def picture(self, name: str, height: int = 900, whole: bool = False) -> None:
        """Keeps what is shown, if pictures are wanted; without the note that a run was started."""
        if self._pictures:
            self.page.set_viewport_size({"width": WIDTH, "height": height})
            self.page.wait_for_timeout(1500)  # charts grow
            path, hidden = self._pictures / f"{name}.png", "[data-sonner-toaster] { display: none }"
            self.page.screenshot(path=path, full_page=whole, style=hidden)

    def guard(self, route: Route) -> None:
        """Lets through what is on this machine."""
        where = urlsplit(route.request.url)
        if where.scheme in ("blob", "data") or where.hostname == "127.0.0.1":
            route.continue_()
        else:
            self.outside.add(where.hostname or "")
            route.abort()

    def _deployment(self, name: str) -> Locator:
        return self._main.locator('a[href*="/deployments/deployment/"]').get_by_text(name, exact=True)

    def _choose(self, deployment: str) -> None:
        self.page.get_by_placeholder("Search deployments").fill(deployment)
        expect(self._deployment("backup")).to_be_hidden()  # the list is the one that was asked for
        run = self.page.get_by_role("button", name="Run", exact=True)
        self._press(self._deployment(deployment), until=run)
        run.click()

    def _press(self, what: Locator, until: Locator) -> None:
        """Again if nothing came of it: a list that is being drawn anew loses a click."""
        for _ in range(PRESSES):
            with contextlib.suppress(TimeoutError):
                what.click(timeout=RELOAD_MS)
            with contextlib.suppress(TimeoutError):
                until.wait_for(timeout=RELOAD_MS)
                return
        raise AssertionError(f"pressed in vain: {what}")

    def _reload_until(self, found: Locator) -> None:
        for _ in range(RUN_MS // RELOAD_MS):
            with contextlib.suppress(TimeoutError):
                found.wait_for(timeout=RELOAD_MS)
                return
            self.page.reload()
        raise AssertionError(f"it does not appear: {found}")

    def _start(self, button: Locator) -> None:
        """Once more while the server's SQLite is busy: the UI then says "Unknown error while creating flow run"."""
        for _ in range(SUBMITS):
            with self.page.expect_response(re.compile("/create_flow_run$")) as answer:
                button.click()
            if answer.value.status != 503:
                break
        run = answer.value.json()["id"]  # the note of a run before may still be there
        self.page.get_by_role("link", name="View run").and_(self.page.locator(f'a[href*="{run}"]')).first.click()
        expect(self.page.get_by_role("tab", name="Job Variables")).to_be_visible()


@contextmanager
def browsing(executable: str, address: str, pictures: Path | None = None) -> Iterator[Ui]:
    """A window on a UI; when the test fails, its message says what was on the page."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=OPTIONS)
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": 900}, reduced_motion="reduce")
            page.set_default_timeout(PATIENCE_MS)
            ui = Ui(page, address, pictures)
            page.route("**/*", ui.guard)
            try:
                yield ui
            except BaseException as error:
                error.add_note(f"seen at {page.url}:\n{page.locator('body').inner_text()[:3000]}")
                raise
        finally:
            browser.close()
