from records.rest.audit_log import views
from records.rest.routers import RecordRouter

router = RecordRouter()
router.register("admin/audit-logs", views.AuditEntryViewSet)
