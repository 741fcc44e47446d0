from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class UsersConfig(AppConfig):
    name = "users"
    default = True

    def ready(self) -> None:
        from users import authentication, delivery  # noqa: F401 - their signal receivers, which need the models


class ManagementConfig(admin_apps.AdminConfig):
    """Django's admin with the site of this service."""

    default = False
    default_site = "users.site.ManagementSite"
