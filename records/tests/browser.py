"""Forms as a browser submits them."""

import re
from html.parser import HTMLParser


def filled_form(page: str, name: str = "") -> dict[str, list[str]]:
    """Return what a browser submits for the unchanged form with this id, or for the form with the most fields.

    As in the HTML standard, single-line inputs lose their line breaks, and a textarea sends CRLF.
    """
    parser = _Forms()
    parser.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    return parser.forms[name] if name else max(parser.forms.values(), key=len)


def opened_form(client, path: str, name: str = "") -> dict[str, list[str]]:
    """Open a page, and return what a browser submits for its unchanged form."""
    return filled_form(client.get(path).content.decode(), name)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, list[str]]] = {}
        self.fields: dict[str, list[str]] = {}
        self.textarea: str | None = None
        self.select: str | None = None
        self.text = ""
        self.options: list[tuple[str, bool]] = []
        self.is_multiple = False

    def handle_starttag(self, tag, pairs):
        attributes = {key: value or "" for key, value in pairs}
        if tag == "form":
            self.fields = self.forms.setdefault(attributes.get("id", f"form {len(self.forms)}"), {})
        elif tag == "input" and "disabled" not in attributes and attributes.get("name"):
            self._input(attributes)
        elif tag == "textarea":
            self.textarea, self.text = attributes.get("name"), ""
        elif tag == "select":
            self.select, self.options, self.is_multiple = attributes.get("name"), [], "multiple" in attributes
        elif tag == "option" and self.select:
            self.options.append((attributes.get("value", ""), "selected" in attributes))

    def _input(self, attributes):
        kind = attributes.get("type", "text")
        if kind in {"submit", "button", "reset", "image", "file"}:
            return
        if kind in {"checkbox", "radio"}:
            if "checked" in attributes:
                self._add(attributes["name"], attributes.get("value", "on"))
            return
        value = attributes.get("value", "")
        value = value if kind == "hidden" else re.sub(r"[\n]", "", value)
        self._add(attributes["name"], value.strip() if kind in {"email", "url"} else value)

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        if tag == "textarea" and self.textarea:
            self._add(self.textarea, self.text.removeprefix("\n").replace("\n", "\r\n"))
            self.textarea = None
        elif tag == "select" and self.select:
            selected = [value for value, is_selected in self.options if is_selected]
            if not selected and self.options and not self.is_multiple:
                selected = [self.options[0][0]]
            for value in selected:
                self._add(self.select, value)
            self.select = None

    def _add(self, name, value):
        self.fields.setdefault(name, []).append(value)
