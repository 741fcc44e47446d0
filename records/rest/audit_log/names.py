"""The names under which the API shows the columns of an audited model."""

from records.audit.reversal import record_models
from records.rest.columns import api_names


def api_names_of_type(object_type: str) -> dict[str, str]:
    """Return the API name of each column of the rows that entries of this type are about."""
    model = record_models().get(object_type)
    return api_names(model) if model else {}
