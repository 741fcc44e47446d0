"""Django REST framework as its tutorial shows it: models, model serializers, view sets and a router.

https://www.django-rest-framework.org/tutorial/quickstart/
https://www.django-rest-framework.org/tutorial/6-viewsets-and-routers/

The settings are those of `django-admin startproject`. The tutorial would be much slower without two changes:
connections persist, and lists use DRF's cursor pagination, which counts no rows.
"""

# ruff: noqa: DJ008, E402 - nothing prints models; they and views are imported after django.setup()

import os
import secrets
from urllib.parse import urlsplit

import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
#: Owner of new stocks, because the peers do not authenticate.
OWNER_ID = int(os.environ["OWNER_ID"])

settings.configure(
    SECRET_KEY=secrets.token_urlsafe(64),
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    TIME_ZONE="UTC",
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": url.hostname,
            "PORT": url.port,
            "USER": url.username,
            "NAME": url.path[1:],
            "CONN_MAX_AGE": None,
        }
    },
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "rest_framework",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    REST_FRAMEWORK={"COERCE_DECIMAL_TO_STRING": False},
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler
from django.db import models
from django.urls import include, path
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.pagination import CursorPagination
from rest_framework.routers import DefaultRouter


class Record(models.Model):
    id = models.BigAutoField(primary_key=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    version = models.PositiveBigIntegerField(default=1)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class User(Record):
    username = models.CharField(max_length=50)
    email = models.EmailField(max_length=255, null=True)
    name = models.CharField(max_length=40, null=True)
    gender = models.CharField(max_length=6, null=True)
    age = models.SmallIntegerField(null=True)
    bio = models.TextField(null=True)
    phone_number = models.CharField(max_length=32, null=True)
    is_active = models.BooleanField()
    is_verified = models.BooleanField()
    is_staff = models.BooleanField()
    is_superuser = models.BooleanField()
    oauth_provider = models.CharField(max_length=50, null=True)

    class Meta:
        app_label = "peer"
        db_table = "users"
        managed = False


class Stock(Record):
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="stocks", default=OWNER_ID)
    name = models.CharField(max_length=10)
    price = models.DecimalField(max_digits=15, decimal_places=4)
    quantity = models.BigIntegerField()
    is_active = models.BooleanField(default=True)
    deletion_reason = models.CharField(max_length=200, default="")

    class Meta:
        app_label = "peer"
        db_table = "stocks"
        managed = False


class StockSerializer(serializers.ModelSerializer):
    user_id = serializers.ReadOnlyField(source="owner_id")

    class Meta:
        model = Stock
        fields = ["id", "name", "price", "quantity", "is_active", "user_id", "created_at", "updated_at", "version"]
        read_only_fields = ["version"]


class UserSerializer(serializers.ModelSerializer):
    stocks = StockSerializer(many=True, read_only=True)

    class Meta:
        model = User
        fields = [
            "id", "username", "email", "name", "gender", "age", "bio", "phone_number", "is_active", "is_verified",
            "is_staff", "is_superuser", "oauth_provider", "created_at", "updated_at", "version", "stocks",
        ]  # fmt: skip


class IdPagination(CursorPagination):
    ordering = "id"
    page_size = 100
    page_size_query_param = "size"


class StockViewSet(viewsets.ModelViewSet):
    queryset = Stock.objects.filter(deleted_at=None)
    serializer_class = StockSerializer
    pagination_class = IdPagination


class UserViewSet(viewsets.ModelViewSet):
    queryset = User.objects.filter(deleted_at=None).prefetch_related(
        models.Prefetch("stocks", Stock.objects.filter(deleted_at=None).order_by("id"))
    )
    serializer_class = UserSerializer

    @action(detail=True)
    def stocks(self, request, pk):
        stocks = Stock.objects.filter(owner=pk, deleted_at=None).order_by("id")
        return self.get_paginated_response(StockSerializer(self.paginate_queryset(stocks), many=True).data)

    pagination_class = IdPagination


router = DefaultRouter(trailing_slash=False)
router.register("stocks", StockViewSet)
router.register("users", UserViewSet)
urlpatterns = [path("", include(router.urls))]
application = WSGIHandler()
