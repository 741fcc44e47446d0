"""Static files, also where nobody has collected them."""

from pathlib import Path
from typing import Any

from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Name a file by its hash where it is collected, and plainly where it is not."""

    def stored_name(self, name: str) -> str:
        try:
            return super().stored_name(name)
        except ValueError:
            return name


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """Serve collected files, and those that are not collected from where they are installed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.use_finders:
            collected = dict(self.files)
            self.add_files_from_finders()
            self.files |= collected

    def add_files(self, root: Any, prefix: str | None = None) -> None:
        if self.autorefresh or Path(root).is_dir():  # WhiteNoise warns of a missing directory
            super().add_files(root, prefix)
