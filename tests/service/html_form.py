"""What a browser sends of a form, read from its HTML by the rules of the standard alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


def flowing(page: str) -> str:
    """A page's source with every run of white space as one space."""
    return " ".join(page.split())


@dataclass
class Select:
    name: str
    values: list[str] = field(default_factory=list)
    chosen: str | None = None

    @property
    def value(self) -> str | None:
        """A select without a selected option sends its first."""
        return self.chosen if self.chosen is not None else next(iter(self.values), None)


class _Controls(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self.select: Select | None = None
        self.option: dict[str, str | None] | None = None
        self.area: str | None = None
        self.text = ""
        self.templates = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.templates += tag == "template"
        if self.templates:
            return
        if tag == "input" and given.get("name"):
            self._input(given)
        elif tag == "select" and given.get("name"):
            self.select = Select(str(given["name"]))
        elif tag == "option":
            self._end_option()
            self.option, self.text = given, ""
        elif tag == "textarea" and given.get("name"):
            self.area, self.text = str(given["name"]), ""

    def _input(self, given: dict[str, str | None]) -> None:
        kind = given.get("type") or "text"
        if kind in {"checkbox", "radio"}:
            if "checked" in given:
                self.sent.append((str(given["name"]), given.get("value") or "on"))
        elif kind not in {"submit", "button", "file"}:
            self.sent.append((str(given["name"]), given.get("value") or ""))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.templates -= tag == "template"
        if tag == "option":
            self._end_option()
        elif tag == "select" and self.select:
            self._end_option()
            if self.select.value is not None:
                self.sent.append((self.select.name, self.select.value))
            self.select = None
        elif tag == "textarea" and self.area:
            self.sent.append((self.area, self.text.removeprefix("\n")))
            self.area = None

    def _end_option(self) -> None:
        if self.select is None or self.option is None:
            return
        given = self.option.get("value")
        value = " ".join(self.text.split()) if given is None else given
        self.select.values.append(value)
        if "selected" in self.option:
            self.select.chosen = value
        self.option = None


def sent_by(html: str) -> dict[str, list[str]]:
    """The names and values that an untouched form sends."""
    reader = _Controls()
    reader.feed(html)
    found: dict[str, list[str]] = {}
    for name, value in reader.sent:
        found.setdefault(name, []).append(value)
    return found
