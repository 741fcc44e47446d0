"""Accounts of users at OpenID Connect providers."""

from django.db import models


class IdentityManager(models.Manager["Identity"]):
    def get_by_natural_key(self, provider: str, subject: str) -> "Identity":
        return self.get(provider=provider, subject=subject)


class Identity(models.Model):
    """An account of a user at a provider. Its `subject` never changes; its e-mail address may."""

    user = models.ForeignKey("users.User", on_delete=models.CASCADE, related_name="identities")
    provider = models.CharField(max_length=50)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = IdentityManager()

    class Meta:
        db_table = "identities"
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["provider", "subject"], name="identities_unique")]

    def __str__(self) -> str:
        return f"{self.subject} at {self.provider}"

    def natural_key(self) -> tuple[str, str]:
        return (self.provider, self.subject)

    natural_key.dependencies = ["users.user"]  # type: ignore[attr-defined]
