from django.contrib import admin

from records.admin import RecordAdmin
from stocks.models import Stock


@admin.register(Stock)
class StockAdmin(RecordAdmin):
    list_display = ("name", "owner", "quantity", "price", "is_active", "created_at")
    list_filter = ("is_active",)
    list_select_related = ("owner",)
    search_fields = ("name",)
    repeating_search_field = "name"
    fields = (
        "owner", "name", "price", "quantity", "is_active", *RecordAdmin.record_fields, *RecordAdmin.deletion_fields,
    )  # fmt: skip
