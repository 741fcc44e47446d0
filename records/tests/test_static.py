"""Private files in the static folder are not served."""

import gzip

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from records.http.static_files import StaticFilesMiddleware

PRIVATE = ["staticfiles.json", ".collected", ".env", ".git/config", "a/.hidden", "a/staticfiles.json", "a/b.js.map"]
PUBLIC = ["a/b.js", "a/b.css", "a/LICENSE", "staticfiles.js", "a/map.js"]


@pytest.fixture(params=["collected", "looked up"])
def serve(request, settings, tmp_path):
    """Return a function that requests a static file, with collected files and with files looked up on each request."""
    for name in (*PRIVATE, *PUBLIC):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("content " * 200)
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    settings.STATIC_ROOT = tmp_path
    settings.WHITENOISE_AUTOREFRESH = settings.WHITENOISE_USE_FINDERS = request.param == "looked up"
    middleware = StaticFilesMiddleware(lambda request: HttpResponse(status=404))

    def request_file(name, method="GET", **headers):
        answer = middleware(RequestFactory().generic(method, f"/static/{name}", **headers))
        if getattr(answer, "file_to_stream", None):
            answer.file_to_stream.close()
        return answer

    return request_file


@pytest.mark.parametrize("name", PRIVATE)
def test_private_file_is_not_found(serve, name):
    assert [serve(path).status_code for path in (name, f"{name}.gz")] == [404, 404]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_file_is_served_compressed(serve, name):
    plain, compressed = serve(name), serve(name, HTTP_ACCEPT_ENCODING="gzip")
    assert (plain.status_code, compressed.status_code, compressed["Content-Encoding"]) == (200, 200, "gzip")
    assert plain["Vary"] == compressed["Vary"] == "Accept-Encoding"


def test_tag_of_a_file_and_its_compressed_variant_is_weak(serve):
    tag = serve("a/b.js")["ETag"]
    assert tag.startswith('W/"')
    assert serve("a/b.js", HTTP_ACCEPT_ENCODING="gzip")["ETag"] == tag
    assert serve("a/b.js", HTTP_IF_NONE_MATCH=tag).status_code == 304


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_file_is_read_only(anonymous, method):
    answer = anonymous.generic(method, "/static/users/account.js")
    assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json")
    assert answer["Allow"] == "GET, HEAD"
