"""Whatever fits the description, or just does not, is answered as the description says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from config.wsgi import application


@pytest.fixture
def described(transactional_db):
    return schemathesis.openapi.from_wsgi("/openapi.json", application)


schema = schemathesis.pytest.from_fixture("described")


@pytest.mark.django_db(transaction=True)
@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_fit_their_description(case, superuser):
    response = case.call(headers={"Authorization": superuser._credentials["HTTP_AUTHORIZATION"]})
    case.validate_response(
        response, checks=[checks.not_a_server_error, checks.status_code_conformance, checks.response_schema_conformance]
    )
