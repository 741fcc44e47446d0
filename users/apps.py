from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "users"

    def ready(self) -> None:
        from users import authentication  # noqa: F401 - its signal receivers, which need the models
