"""What a browser makes of a page, as far as forms go."""

import re
from html.parser import HTMLParser


def filled_form(page: str, name: str = "") -> dict[str, list[str]]:
    """Return what a browser sends for the form with this id, or the one with the most fields, if nobody touches it.

    As in the HTML standard, inputs of one line lose their line breaks, and a textarea sends CRLF.
    """
    parser = _Forms()
    parser.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    return parser.forms[name] if name else max(parser.forms.values(), key=len)


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
        given = {key: value or "" for key, value in pairs}
        if tag == "form":
            self.fields = self.forms.setdefault(given.get("id", f"form {len(self.forms)}"), {})
        elif tag == "input" and "disabled" not in given and given.get("name"):
            self._input(given)
        elif tag == "textarea":
            self.textarea, self.text = given.get("name"), ""
        elif tag == "select":
            self.select, self.options, self.is_multiple = given.get("name"), [], "multiple" in given
        elif tag == "option" and self.select:
            self.options.append((given.get("value", ""), "selected" in given))

    def _input(self, given):
        kind = given.get("type", "text")
        if kind in {"submit", "button", "reset", "image", "file"}:
            return
        if kind in {"checkbox", "radio"}:
            if "checked" in given:
                self._add(given["name"], given.get("value", "on"))
            return
        value = given.get("value", "")
        value = value if kind == "hidden" else re.sub(r"[\n]", "", value)
        self._add(given["name"], value.strip() if kind in {"email", "url"} else value)

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        if tag == "textarea" and self.textarea:
            self._add(self.textarea, self.text.removeprefix("\n").replace("\n", "\r\n"))
            self.textarea = None
        elif tag == "select" and self.select:
            chosen = [value for value, is_selected in self.options if is_selected]
            if not chosen and self.options and not self.is_multiple:
                chosen = [self.options[0][0]]
            for value in chosen:
                self._add(self.select, value)
            self.select = None

    def _add(self, name, value):
        self.fields.setdefault(name, []).append(value)
