"""The clock of the database, which all nodes of the service share."""

from datetime import UTC, datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.functions import Now


class DatabaseNow(Now):
    """Django's `Now()` in the text format in which Django stores times on SQLite, so that comparisons work."""

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        milliseconds = "STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f000', 'NOW')"
        return self.as_sql(compiler, connection, template=f"REPLACE({milliseconds}, '.000000', '')", **context)


NOW = {
    "postgresql": "SELECT statement_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}


def database_now(using: str = DEFAULT_DB_ALIAS) -> datetime:
    """Return the current time of the database. Costs one query: prefer selecting `DatabaseNow()` in an existing one."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(NOW[connection.vendor])
        [now] = cursor.fetchone()
    return now.astimezone(UTC) if isinstance(now, datetime) else datetime.fromisoformat(now).replace(tzinfo=UTC)
