"""Log records with the id of the request and of the signed-in user, as text or JSON."""

import json
import logging
from datetime import UTC, datetime

from records import context


class RequestContextFilter(logging.Filter):
    """Add `request_id` and `user_id` to every log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = context.request_id() or "-"
        record.user_id = context.loaded_actor_id()
        return True


class JSONFormatter(logging.Formatter):
    """Format each log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "user_id": getattr(record, "user_id", None),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
