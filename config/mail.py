"""The mail server of the settings, for both forms that Django has: EMAIL_* and, since 6.1, MAILERS."""

from typing import Any

TIMEOUT_SECONDS = 10
SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"


def backend(config: dict[str, Any]) -> str:
    """Return the path of the backend: for SMTP, ours with a deadline."""
    path: str = config["EMAIL_BACKEND"]
    return "users.smtp.EmailBackend" if path == SMTP_BACKEND else path


def mailers(config: dict[str, Any]) -> dict[str, Any]:
    """Return MAILERS from the EMAIL_* settings of django-environ."""
    options: dict[str, Any] = {}
    if config["EMAIL_BACKEND"] == SMTP_BACKEND:
        options = {
            "host": config["EMAIL_HOST"],
            "port": config["EMAIL_PORT"],
            "username": config.get("EMAIL_HOST_USER") or "",
            "password": config.get("EMAIL_HOST_PASSWORD") or "",
            "use_tls": config.get("EMAIL_USE_TLS", False),
            "use_ssl": config.get("EMAIL_USE_SSL", False),
            "timeout": TIMEOUT_SECONDS,
        }
    elif config.get("EMAIL_FILE_PATH"):
        options = {"file_path": config["EMAIL_FILE_PATH"]}
    return {"default": {"BACKEND": backend(config), "OPTIONS": options}}
