"""One real service and one real browser for all tests here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.stack import PASSWORD, USER, Rest, Stack


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share a service, so they share a process of xdist."""
    for item in items:
        if "tests/e2e" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="session")
def stack(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("e2e") / "data")
    try:
        yield running.up()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def rest(stack: Stack) -> Rest:
    return Rest(stack.url)


@pytest.fixture(scope="session")
def session(browser: Any, stack: Stack) -> dict[str, Any]:
    """The cookies of someone who has signed in."""
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("User name").fill(USER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{stack.url}/")
    state: dict[str, Any] = context.storage_state()
    context.close()
    return state


@pytest.fixture
def open_page(browser: Any, stack: Stack, session: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """A signed-in page. Whatever its console complains about, a refused style or script above all, fails the test."""
    contexts, complaints = [], []

    def start(**options: Any) -> Any:
        context = browser.new_context(**{"base_url": stack.url, "storage_state": session, **options})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: said.type in {"error", "warning"} and complaints.append((page.url, said.text)))
        page.on("response", lambda answer: _is_amiss(answer) and complaints.append((answer.url, str(answer.status))))
        page.on("pageerror", lambda error: complaints.append((page.url, str(error))))
        return page

    yield start
    for context in contexts:
        context.close()
    # The browser tells a 404 or 400 as a failed load; which of them a test did not ask for is known better below.
    told = [said for said in complaints if not said[1].startswith("Failed to load resource")]
    # A live check that a newer one has overtaken is aborted, which htmx tells twice.
    told = [said for said in told if not said[1].startswith(("htmx:sendAbort", "htmx:afterRequest"))]
    assert not told


def _is_amiss(answer: Any) -> bool:
    """A server error, or a file, part or figure of a page that is not there. A page itself may be 404 or 400,
    and a form that is checked while one types 400."""
    if answer.status < 400:
        return False
    return answer.status >= 500 or not (answer.request.is_navigation_request() or answer.request.method == "POST")
