from records import views
from records.rest.routers import RecordRouter

router = RecordRouter()
router.register("admin/audit-logs", views.AuditEntryViewSet)
