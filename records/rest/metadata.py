"""The response to OPTIONS, and the descriptions of views on pages."""

import inspect
from typing import Any

from rest_framework.metadata import SimpleMetadata
from rest_framework.request import Request
from rest_framework.utils import formatting


class RecordMetadata(SimpleMetadata):
    def determine_metadata(self, request: Request, view: Any) -> dict[str, Any]:
        """List the media types that this caller can send and get here: programs send no forms."""
        metadata: dict[str, Any] = super().determine_metadata(request, view)
        return metadata | {
            "renders": [renderer.media_type for renderer in view.get_renderers()],
            "parses": [parser.media_type for parser in view.get_parsers()],
        }


def view_description(view: Any, html: bool = False) -> str:
    """Describe a view by its handler of GET: the docstring of its class is about the code."""
    handler = getattr(view, getattr(view, "action", None) or "get", None)
    text = formatting.dedent(getattr(view, "description", None) or inspect.getdoc(handler) or "")
    return formatting.markup_description(text) if html else text
