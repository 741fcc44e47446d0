from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "users"

    def ready(self) -> None:
        from users import authentication, delivery  # noqa: F401 - their signal receivers, which need the models
