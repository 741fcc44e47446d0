from importlib import import_module
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.db.backends.signals import connection_created
from django.db.models import CharField, TextField
from django.db.models.functions import Lower, Upper
from django.db.models.signals import pre_delete

from records.audit.append_only import register_functions
from records.db import exact
from records.db.text import LOOKUPS, simple_upper


def echo_sql(connection, **kwargs) -> None:
    # Django logs statements only where it is told to record them.
    connection.force_debug_cursor = True


def add_functions(connection, **kwargs) -> None:
    """Give SQLite an UPPER that knows more than ASCII, on which no index rests, and exact arithmetic."""
    if connection.vendor == "sqlite":
        connection.connection.create_function("UPPER", 1, _upper, deterministic=True)
        exact.register(connection.connection)


def _upper(value: Any) -> Any:
    return simple_upper(value if isinstance(value, str) else str(value)) if value is not None else None


def log_ends_of_relations() -> None:
    """What a record is related to may be deleted, such as a group: then Django itself takes the relation away, and
    tells nobody."""
    from records.models import Record

    def end(sender, instance, **kwargs) -> None:
        for relation in sender._meta.related_objects:
            if relation.many_to_many and issubclass(relation.related_model, Record):
                getattr(instance, relation.get_accessor_name()).clear()

    records = [model for model in apps.get_models() if issubclass(model, Record)]
    for target in {relation.related_model for model in records for relation in model._meta.many_to_many}:
        pre_delete.connect(end, sender=target, weak=False)


class RecordsConfig(AppConfig):
    name = "records"

    def import_models(self) -> None:
        super().import_models()
        import_module("records.audit.models")  # not imported by records.models, which is below it

    def ready(self) -> None:
        # `username__lower="ada"` meets the index behind a Lower(...) constraint; `__iexact` compares in upper case.
        CharField.register_lookup(Lower)
        TextField.register_lookup(Lower)
        CharField.register_lookup(Upper)
        TextField.register_lookup(Upper)
        for lookup in LOOKUPS:
            CharField.register_lookup(lookup)
            TextField.register_lookup(lookup)
        connection_created.connect(add_functions)
        connection_created.connect(register_functions)
        log_ends_of_relations()
        import_module("records.audit.receivers")
        if settings.SQL_ECHO:
            connection_created.connect(echo_sql)
