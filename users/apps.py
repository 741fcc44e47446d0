from importlib import import_module

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class UsersConfig(AppConfig):
    name = "users"
    default = True

    def ready(self) -> None:
        import_module("users.authentication.browser")  # connects receivers, which need the models
        import_module("users.delivery")


class ManagementConfig(admin_apps.AdminConfig):
    """Django's admin with the site of this service."""

    default = False
    default_site = "users.site.ManagementSite"
