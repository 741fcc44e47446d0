from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError, transaction
from django.db.models import Model, Q

from records.db.clock import database_now
from records.models import IdempotencyKey, SoftDeletable
from users.delivery import deliver_due
from users.mail import queue_deletion_reminder
from users.models import QueuedMail, RateLimit, Session, SpentToken, User

REMINDER_LEAD = timedelta(days=1)
#: Seconds that the command waits for the mail server.
MAX_MAIL_SECONDS = 60


class Command(BaseCommand):
    help = (
        "Permanently remove rows deleted more than ACCOUNT_DELETION_GRACE_DAYS ago and accounts whose scheduled "
        "removal is due, and mail a reminder one day before a removal. Run it every hour."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Report what would be done without doing it.")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        self.dry_run = dry_run
        now = database_now()
        failures = [*self._remind(now), *self._close_accounts(now)]
        # Purge dependent models first, because purging a user removes all of their rows in one transaction.
        for model in reversed(list(apps.get_models())):
            if issubclass(model, SoftDeletable):
                self._purge(model, now - settings.ACCOUNT_DELETION_GRACE)
        self._delete_expired(now)
        if failures:
            raise CommandError(" ".join(failures))

    def _remind(self, now: datetime) -> list[str]:
        leaving = User.objects.active().due_for_deletion(now + REMINDER_LEAD)
        waiting = leaving.filter(deletion_at__gt=now, deletion_reminded_at=None, email__isnull=False)
        queued = len(waiting)
        for user in [] if self.dry_run else waiting:
            with transaction.atomic():
                if queue_deletion_reminder(user):
                    user.deletion_reminded_at = now
                    user.save()
                else:
                    queued -= 1
        self._report(queued, "reminder", "queued")
        if self.dry_run:
            return []
        # Mails that are not sent within this time stay in the queue, and the service sends them.
        deliver_due(max_seconds=MAX_MAIL_SECONDS)
        late = QueuedMail.objects.filter(kind="deletion_reminder").count()
        unqueued = len(waiting) - queued
        failures = [f"{late} reminders could not be mailed yet; the service tries again."] if late else []
        return failures + ([f"{unqueued} reminders found the mail queue full."] if unqueued else [])

    def _close_accounts(self, now: datetime) -> list[str]:
        due = User.all_objects.due_for_deletion(now)
        failures = []
        for user in due:
            try:
                if not self.dry_run:
                    # `due` is checked again under the row's lock, because the user may cancel at this moment.
                    list(due.filter(pk=user.pk).purge_in_batches())
            except ValidationError as error:
                failures.append(f"The account {user} stays: {error.messages[0]}")
            except IntegrityError:
                failures.append(f"The account {user} is in use just now; the next run tries again.")
        self._report(len(due) - len(failures), "account", "closed")
        return failures

    def _purge(self, model: type[SoftDeletable], before: datetime) -> None:
        old = model.all_objects.deleted().filter(deleted_at__lt=before)
        name = f"deleted {model._meta.verbose_name}"
        total = count = old.count()
        if not self.dry_run:
            count = 0
            for removed in old.purge_in_batches():
                count += removed
                if total > removed:
                    self.stderr.write(f"{name}s: {count:,} of {total:,} removed …")
        self._report(count, name, "removed")

    def _delete_expired(self, now: datetime) -> None:
        ended = Q(expires_at__lt=now) | Q(revoked_at__lt=now - settings.ACCOUNT_DELETION_GRACE)
        for queryset in (
            Session.objects.filter(ended),
            SpentToken.objects.filter(expires_at__lt=now),
            RateLimit.objects.filter(expires_at__lt=now),
            IdempotencyKey.objects.expired(now),
        ):
            model: type[Model] = queryset.model
            count = queryset.count() if self.dry_run else queryset.delete()[0]
            self._report(count, f"expired {model._meta.verbose_name}", "removed")

    def _report(self, count: int, what: str, done: str) -> None:
        if count:
            verb = f"would be {done}" if self.dry_run else done
            self.stdout.write(f"{count} {what}{'s' * (count > 1)} {verb}.")
