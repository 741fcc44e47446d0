from django.urls import path

from records.rest.routers import RecordRouter
from users import views

router = RecordRouter()
router.register("users", views.UserViewSet)

urlpatterns = [
    path("auth/register", views.RegisterView.as_view(), name="register"),
    path("auth/verify-email", views.VerifyEmailView.as_view(), name="verify-email"),
    path("auth/login", views.LoginView.as_view(), name="login"),
]
