"""The routes of the service."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

import records.urls
import stocks.urls
import users.urls
from config import documents, health
from records.rest.routers import RecordRouter
from records.rest.views import UnknownPathView

router = RecordRouter()
router.registry += users.urls.router.registry
router.registry += stocks.urls.router.registry
router.registry += records.urls.router.registry

# Login and logout of the browsable API, at paths without a trailing slash.
browser_login = [
    path(
        "login",
        LoginView.as_view(
            template_name="rest_framework/login.html",
            extra_context={"providers": lambda: list(settings.OAUTH_PROVIDERS)},
        ),
        name="login",
    ),
    path("logout", LogoutView.as_view(), name="logout"),
]

urlpatterns = [
    path("", health.IndexView.as_view(), name="index"),
    path("favicon.ico", documents.favicon),
    path("ping", health.PingView.as_view(), name="ping"),
    path("health/live", health.LiveView.as_view(), name="live"),
    path("health/ready", health.ReadyView.as_view(), name="ready"),
    path("api/v1", router.get_api_root_view(), name="api-root"),
    path("api/v1/", include(users.urls)),
    path("api/v1/", include(stocks.urls)),
    path("api/v1/", include(router.urls)),
    path("api/", include((browser_login, "rest_framework"))),
    re_path(r"^api(/.*)?$", UnknownPathView.as_view()),
    path("openapi.json", documents.openapi, name="schema"),
    path("docs", documents.read_only(SpectacularSwaggerSplitView.as_view(url_name="schema")), name="docs"),
    path("redoc.js", documents.redoc_script, name="redoc-script"),
    path("redoc", documents.read_only(SpectacularRedocView.as_view(url_name="schema")), name="redoc"),
    path("account/", include(users.urls.page_patterns)),
    path("admin/", admin.site.urls),
]

handler400 = "records.http.problems.bad_request"
handler403 = "records.http.problems.permission_denied"
handler404 = "records.http.problems.page_not_found"
handler500 = "records.http.problems.server_error"
