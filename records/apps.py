import sqlite3
from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.backends.signals import connection_created
from django.db.models import CharField, TextField
from django.db.models.functions import Lower, Upper

from records.audit.append_only import register_functions
from records.db import exact
from records.db.case import CASE_INSENSITIVE_LOOKUPS, simple_upper


def echo_sql(connection: Any, **kwargs: Any) -> None:
    # Django logs statements only if it records them.
    connection.force_debug_cursor = True


def add_functions(connection: Any, **kwargs: Any) -> None:
    """Register exact arithmetic and a Unicode UPPER on SQLite, where no index uses UPPER."""
    if connection.vendor == "sqlite":
        connection.connection.create_function("UPPER", 1, _upper, deterministic=True)
        exact.register(connection.connection)


def raise_parameter_limit(connection: Any, **kwargs: Any) -> None:
    """Let Django use as many parameters as this SQLite accepts, as Django 6 does: it splits larger statements."""
    if connection.vendor == "sqlite":
        limit = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        connection.features.max_query_params = limit


def _upper(value: Any) -> Any:
    return simple_upper(value if isinstance(value, str) else str(value)) if value is not None else None


class RecordsConfig(AppConfig):
    name = "records"

    def import_models(self) -> None:
        super().import_models()
        import_module("records.audit.models")  # records.models is a lower layer and does not import it

    def ready(self) -> None:
        # `username__lower="ada"` uses the index of a Lower(...) constraint. `__iexact` compares in upper case.
        CharField.register_lookup(Lower)
        TextField.register_lookup(Lower)
        CharField.register_lookup(Upper)
        TextField.register_lookup(Upper)
        for lookup in CASE_INSENSITIVE_LOOKUPS:
            CharField.register_lookup(lookup)
            TextField.register_lookup(lookup)
        connection_created.connect(add_functions)
        connection_created.connect(raise_parameter_limit)
        connection_created.connect(register_functions)
        import_module("records.models.many_to_many").connect_signals()
        import_module("records.audit.receivers").connect_signals()
        import_module("records.models.idempotency").connect_signals()
        if settings.SQL_ECHO:
            connection_created.connect(echo_sql)
