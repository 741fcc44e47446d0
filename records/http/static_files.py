"""Static files, served by WhiteNoise, whether or not they were collected."""

import os
from pathlib import Path
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage

from records.http.problems import method_not_allowed

#: Files that are not for browsers.
MANIFEST, SOURCE_MAP = "staticfiles.json", ".map"


class StaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Name a file by its hash if it is collected, else by its plain name."""

    def stored_name(self, name: str) -> str:
        try:
            stored: str = super().stored_name(name)
        except ValueError:
            return name
        return stored


def is_public(url: str) -> bool:
    *folders, name = url.split("/")
    return name != MANIFEST and not name.endswith(SOURCE_MAP) and not any(part[:1] == "." for part in (*folders, name))


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """Serve collected files, and other files from where they are installed.

    Hidden files, the manifest and source maps are not served.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.use_finders:
            self.add_files_from_finders()

    def add_files(self, root: Any, prefix: str | None = None) -> None:
        if self.autorefresh or Path(root).is_dir():  # WhiteNoise warns of a missing directory
            super().add_files(root, prefix)

    def add_file_to_dictionary(self, url: str, path: str, stat_cache: Any = None) -> None:
        if is_public(url) and url not in self.files:  # collected files are added first
            super().add_file_to_dictionary(url, path, stat_cache=stat_cache)

    def find_file(self, url: str) -> Any:
        return super().find_file(url) if is_public(url) else None

    def add_cache_headers(self, headers: Any, path: str, url: str) -> None:
        super().add_cache_headers(headers, path, url)
        # WhiteNoise has one tag for a file and its compressed variants, which only a weak tag may be.
        stat = os.stat(path)
        headers["ETag"] = f'W/"{int(stat.st_mtime):x}-{stat.st_size:x}"'

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponseBase:
        if request.method not in {"GET", "HEAD"}:
            return method_not_allowed(request)
        response: HttpResponseBase = WhiteNoiseMiddleware.serve(static_file, request)
        return response
