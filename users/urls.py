from django.urls import path

from records.rest.routers import RecordRouter
from users.oidc.views import OAuthCallbackView, OAuthLoginView
from users.views.deletion import CancelAccountDeletionView, ConfirmAccountDeletionView, RequestAccountDeletionView
from users.views.login import BrowserTokenView, LoginView, LogoutView, RefreshView
from users.views.pages import account_pages
from users.views.passwords import ChangePasswordView, RequestPasswordResetView, ResetPasswordView
from users.views.registration import RegisterView, RequestEmailVerificationView, VerifyEmailView
from users.views.sessions import SessionViewSet
from users.views.users import UserViewSet

router = RecordRouter()
router.register("users", UserViewSet)

page_patterns = [path(name, view, name=name) for name, view in account_pages.items()]

urlpatterns = [
    path("auth/register", RegisterView.as_view(), name="register"),
    path("auth/request-email-verification", RequestEmailVerificationView.as_view()),
    path("auth/verify-email", VerifyEmailView.as_view(), name="verify-email"),
    path("auth/login", LoginView.as_view(), name="login"),
    path("auth/oauth/<str:provider>/login", OAuthLoginView.as_view(), name="oauth-login"),
    path("auth/oauth/<str:provider>/callback", OAuthCallbackView.as_view(), name="oauth-callback"),
    path("auth/token", BrowserTokenView.as_view()),
    path("auth/refresh", RefreshView.as_view()),
    path("auth/logout", LogoutView.as_view()),
    path("auth/sessions", SessionViewSet.as_view({"get": "list", "delete": "end_all"}, name="Sessions")),
    path("auth/sessions/<str:id>", SessionViewSet.as_view({"delete": "destroy"}, detail=True)),
    path("auth/change-password", ChangePasswordView.as_view()),
    path("auth/request-password-reset", RequestPasswordResetView.as_view()),
    path("auth/reset-password", ResetPasswordView.as_view()),
    path("auth/request-account-deletion", RequestAccountDeletionView.as_view()),
    path("auth/confirm-account-deletion", ConfirmAccountDeletionView.as_view()),
    path("auth/cancel-account-deletion", CancelAccountDeletionView.as_view()),
]
