"""What a browser would do at the console, as far as a test needs it."""

import html
import re
from html.parser import HTMLParser
from typing import Any

from starlette.testclient import TestClient

from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.tasks import task

_VOID = {"meta", "link", "img", "input", "br", "line", "rect", "hr"}


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.scripts: list[dict[str, Any]] = []
        self.inline: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self._hidden += tag in ("script", "head")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "head")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.said.append(data)


class Page:
    """An answer, as a reader sees it."""

    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.headers = response.headers
        self.source: str = response.text
        parsed = _Text()
        parsed.feed(self.source)
        self.text = " ".join(" ".join(parsed.said).split())
        self.scripts = parsed.scripts
        self.inline = parsed.inline

    def link(self, text: str) -> str:
        """Where a link leads."""
        found = re.search(rf'<a[^>]*href="([^"]*)"[^>]*>\s*{re.escape(text)}\s*</a>', self.source)
        assert found, f"no link {text!r}"
        return html.unescape(found[1])

    @property
    def token(self) -> str:
        """What a form of the page sends along."""
        found = re.search(r'name="token" value="(\w+)"', self.source)
        assert found, "no form with a token"
        return found[1]


class Browser:
    """Asks for pages, and sends forms."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, address: str, **options: Any) -> Page:
        """Ask for a page."""
        return Page(self.client.get(address, **options))

    def post(self, address: str, data: dict[str, Any] | None = None, **options: Any) -> Page:
        """Send a form."""
        return Page(self.client.post(address, data=data, **options))

    def see(self, address: str, **parameters: Any) -> Page:
        """Ask for a page that has to be there."""
        page = self.get(address, params=parameters or None)
        assert page.status == 200, page.text
        return page


def json_store(storage: PostgresStorage) -> ResultStore:
    return ResultStore(result_storage=storage, serializer=JSONSerializer())


def settled(browser: Browser, address: str) -> Page:
    """A page whose figures are all counted."""
    for _ in range(100):
        page = browser.see(address)
        if "Counting…" not in page.text and "Looking…" not in page.text and "load delay" not in page.source:
            return page
    raise AssertionError(page.text)


def keys_in(page: Page) -> list[str]:
    """The keys of a list, in order."""
    found = re.findall(r'<td class="wide"><a class="key"[^>]*>(.*?)</a>', page.source)
    return [html.unescape(re.sub("<.*?>", "", one)) for one in found]


def by_task(storage: PostgresStorage, name: str, key: str) -> None:
    """Have a task of a name compute the result of a key."""

    def compute(number: int) -> int:
        return number

    task(name=name, cache_key_fn=lambda *_: key, result_storage=storage, persist_result=True)(compute)(1)
