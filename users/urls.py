from django.urls import path

from records.rest.routers import RecordRouter
from users import accounts, oauth, pages, views

router = RecordRouter()
router.register("users", views.UserViewSet)

page_patterns = [path(name, view, name=name) for name, view in pages.account_pages.items()]

urlpatterns = [
    path("auth/register", accounts.RegisterView.as_view(), name="register"),
    path("auth/request-email-verification", accounts.RequestEmailVerificationView.as_view()),
    path("auth/verify-email", accounts.VerifyEmailView.as_view(), name="verify-email"),
    path("auth/login", accounts.LoginView.as_view(), name="login"),
    path("auth/oauth/<str:provider>/login", oauth.OAuthLoginView.as_view(), name="oauth-login"),
    path("auth/oauth/<str:provider>/callback", oauth.OAuthCallbackView.as_view(), name="oauth-callback"),
    path("auth/token", accounts.BrowserTokenView.as_view()),
    path("auth/refresh", accounts.RefreshView.as_view()),
    path("auth/logout", accounts.LogoutView.as_view()),
    path("auth/sessions", views.SessionViewSet.as_view({"get": "list", "delete": "end_all"}, name="Sessions")),
    path("auth/sessions/<str:id>", views.SessionViewSet.as_view({"delete": "destroy"}, detail=True)),
    path("auth/change-password", accounts.ChangePasswordView.as_view()),
    path("auth/request-password-reset", accounts.RequestPasswordResetView.as_view()),
    path("auth/reset-password", accounts.ResetPasswordView.as_view()),
    path("auth/request-account-deletion", accounts.RequestAccountDeletionView.as_view()),
    path("auth/confirm-account-deletion", accounts.ConfirmAccountDeletionView.as_view()),
    path("auth/cancel-account-deletion", accounts.CancelAccountDeletionView.as_view()),
]
