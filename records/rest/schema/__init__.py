"""The OpenAPI description: operations, their errors and headers, and the schemas of requests and responses.

The fields and their validators describe what they accept, so that a changed rule shows up by itself. Declared are only
examples (`Meta.examples` of a serializer) and what no field knows.
"""

from records.rest.schema.auto_schema import RecordSchema
from records.rest.schema.bulk import BulkSchema
from records.rest.schema.filters import RecordFilterExtension

__all__ = ["BulkSchema", "RecordFilterExtension", "RecordSchema"]
