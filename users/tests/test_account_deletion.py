import time
from datetime import datetime, timedelta
from io import StringIO

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.utils import timezone

from conftest import PASSWORD, Client, mailed_token
from records.audit.models import AuditEntry
from stocks.models import Stock
from users.mail_tokens import DELETE_ACCOUNT, mail_token
from users.models import Session, SpentToken, User

AUTH = "/api/v1/auth"
ME = "/api/v1/users/me"


@pytest.fixture
def departing(owner):
    """Return a user who has confirmed the deletion of their account."""
    token = mail_token(DELETE_ACCOUNT, owner.user)
    assert Client().post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code == 200
    return owner


def purge(**options) -> str:
    output = StringIO()
    call_command("purge_deleted", stdout=output, **options)
    return output.getvalue()


def shift_deletion(user, **time):
    """Move the date of deletion into the past by this much."""
    moment = User.all_objects.get(pk=user.pk).deletion_at - timedelta(**time)
    User.all_objects.filter(pk=user.pk).update(deletion_at=moment)


def exists(user) -> bool:
    return User.all_objects.filter(pk=user.pk).exists()


# Requesting, confirming, cancelling


def test_deletion_is_requested_confirmed_by_mail_and_cancelled(owner, anonymous):
    assert owner.post(f"{AUTH}/request-account-deletion").status_code == 202
    assert owner.get(ME).json()["deletion_at"] is None
    answer = anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": mailed_token()})
    assert (answer.status_code, list(answer.json())) == (200, ["deletion_at"])
    assert owner.get(ME).json()["deletion_at"] == answer.json()["deletion_at"]
    assert owner.post(f"{AUTH}/cancel-account-deletion").status_code == 204
    assert owner.get(ME).json()["deletion_at"] is None


def test_token_is_invalidated_by_confirmation_and_cancellation(owner, anonymous):
    def confirm(token):
        return anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code

    first = mail_token(DELETE_ACCOUNT, owner.user)
    time.sleep(1.1)  # tokens created within one second are equal
    second = mail_token(DELETE_ACCOUNT, owner.user)
    assert [confirm(first), confirm(second)] == [200, 400]
    owner.post(f"{AUTH}/cancel-account-deletion")
    assert confirm(second) == 400
    owner.user.refresh_from_db()
    assert confirm(mail_token(DELETE_ACCOUNT, owner.user)) == 200


@pytest.mark.parametrize("days", [0, 7, 30])
def test_deletion_date_follows_the_grace_setting(owner, anonymous, settings, days):
    settings.ACCOUNT_DELETION_GRACE = timedelta(days=days)
    answer = anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": mail_token(DELETE_ACCOUNT, owner.user)})
    assert answer.json()["deletion_at"].endswith("Z")
    distance = datetime.fromisoformat(answer.json()["deletion_at"]) - timezone.now()
    assert timedelta(days=days, minutes=-1) < distance <= timedelta(days=days)


def test_account_works_until_deletion(departing):
    assert departing.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1}).status_code == 201


def test_unconfirmed_request_deletes_nothing(owner):
    owner.post(f"{AUTH}/request-account-deletion")
    assert purge() == ""
    assert owner.get(ME).status_code == 200


def test_staff_cannot_see_deletion_date(departing, staff):
    assert "deletion_at" not in staff.get(f"/api/v1/users/{departing.user.pk}").json()


def test_deletion_date_is_read_only(owner):
    assert owner.patch(ME, {"deletion_at": None}).status_code == 400


@pytest.mark.parametrize("method", ["put", "patch"])
def test_update_returns_deletion_date(departing, method):
    assert getattr(departing, method)(ME, {"bio": "Leaving"}).json()["deletion_at"]


def test_cancelling_without_a_request_changes_nothing(owner):
    assert owner.post(f"{AUTH}/cancel-account-deletion").status_code == 204
    assert owner.get(ME).json()["version"] == 1


def test_last_superuser_cannot_delete_own_account(superuser):
    User.objects.superusers().exclude(pk=superuser.user.pk).update(is_superuser=False)
    assert "last active superuser" in superuser.post(f"{AUTH}/request-account-deletion").json()["detail"]
    token = mail_token(DELETE_ACCOUNT, superuser.user)
    assert superuser.post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code == 400


# The reminder


def test_reminder_is_mailed_once_a_day_before(departing):
    assert (purge(), mail.outbox) == ("", [])
    shift_deletion(departing.user, days=6, minutes=1)
    assert purge() == "1 reminder queued.\n"
    [message] = mail.outbox
    assert message.to == [departing.user.email]
    for body in (message.body, message.alternatives[0].content):
        assert "cancel-account-deletion" in body
    assert purge() == ""


def test_rescheduled_deletion_is_reminded_again(departing):
    shift_deletion(departing.user, days=6, minutes=1)
    purge()
    departing.post(f"{AUTH}/cancel-account-deletion")
    fresh = User.objects.get(pk=departing.user.pk)
    fresh.schedule_deletion()
    shift_deletion(fresh, days=6, minutes=1)
    assert purge() == "1 reminder queued.\n"


# Deletion


def test_due_account_is_removed_with_its_data(departing, make_stock, anonymous):
    make_stock(departing.user)
    shift_deletion(departing.user, days=7)
    assert "1 account closed." in purge()
    assert not exists(departing.user)
    assert not Stock.all_objects.filter(owner_id=departing.user.pk).exists()
    assert departing.get(ME).status_code == 401


def test_account_is_kept_before_its_deletion_date(departing):
    shift_deletion(departing.user, days=6, hours=23)
    purge()
    assert exists(departing.user)


def test_cancelled_deletion_is_not_executed(departing):
    departing.post(f"{AUTH}/cancel-account-deletion")
    purge()
    assert exists(departing.user)


def test_due_account_of_the_last_superuser_is_kept(departing, superuser):
    User.objects.superusers().exclude(pk=superuser.user.pk).update(is_superuser=False)
    User.objects.filter(pk__in=[departing.user.pk, superuser.user.pk]).update(deletion_at=timezone.now())
    with pytest.raises(CommandError, match="last active superuser"):
        purge()
    assert (exists(departing.user), exists(superuser.user)) == (False, True)


# Purging


def test_rows_deleted_before_the_grace_period_are_purged(owner, make_stock):
    old, recent, live = (make_stock(owner.user) for _ in range(3))
    for stock in (old, recent):
        owner.delete(f"/api/v1/stocks/{stock.pk}")
    Stock.all_objects.filter(pk=old.pk).update(deleted_at=timezone.now() - timedelta(days=7, minutes=1))
    assert purge() == "1 deleted stock removed.\n"
    assert set(Stock.all_objects.filter(owner=owner.user).values_list("pk", flat=True)) == {recent.pk, live.pk}


def test_deleted_user_is_purged_with_their_data(owner, staff, make_stock):
    make_stock(owner.user)
    staff.delete(f"/api/v1/users/{owner.user.pk}")
    User.all_objects.filter(pk=owner.user.pk).update(deleted_at=timezone.now() - timedelta(days=8))
    assert "1 deleted user removed." in purge()
    assert not exists(owner.user)
    assert not Stock.all_objects.filter(owner_id=owner.user.pk).exists()


def test_rows_are_purged_in_batches(owner, make_stock):
    for _ in range(5):
        make_stock(owner.user)
    Stock.objects.filter(owner=owner.user).delete()
    assert list(Stock.all_objects.filter(owner=owner.user).purge_in_batches(2)) == [2, 2, 1]
    assert not Stock.all_objects.filter(owner=owner.user).exists()


def test_interrupted_purge_is_continued_by_the_next_run(owner, make_stock):
    for _ in range(5):
        make_stock(owner.user)
    Stock.objects.filter(owner=owner.user).delete()
    rows = Stock.all_objects.filter(owner=owner.user)
    batches = rows.purge_in_batches(2)
    assert next(batches) == 2
    batches.close()
    assert (rows.count(), AuditEntry.objects.filter(action="purge").count()) == (3, 2)
    assert list(rows.purge_in_batches(2)) == [2, 1]


def test_progress_is_written_to_stderr(owner, make_stock, monkeypatch, capsys):
    in_batches = Stock.all_objects.all().__class__.purge_in_batches
    monkeypatch.setattr(
        "records.models.soft_deletion.SoftDeletableQuerySet.purge_in_batches", lambda rows: in_batches(rows, 2)
    )
    for _ in range(3):
        make_stock(owner.user)
    Stock.objects.filter(owner=owner.user).delete()
    Stock.all_objects.deleted().update(deleted_at=timezone.now() - timedelta(days=8))
    assert purge() == "3 deleted stocks removed.\n"
    assert capsys.readouterr().err == "deleted stocks: 2 of 3 removed …\ndeleted stocks: 3 of 3 removed …\n"


def test_unique_values_are_available_after_a_purge(owner, staff):
    username = owner.user.username
    staff.delete(f"/api/v1/users/{owner.user.pk}")
    body = {"username": username, "email": owner.user.email}
    assert staff.post("/api/v1/users", body).status_code == 400
    User.all_objects.filter(pk=owner.user.pk).update(deleted_at=timezone.now() - timedelta(days=8))
    purge()
    assert staff.post("/api/v1/users", body).status_code == 201


def test_dry_run_reports_and_removes_nothing(departing, make_stock):
    make_stock(departing.user).delete()
    Stock.all_objects.deleted().update(deleted_at=timezone.now() - timedelta(days=8))
    shift_deletion(departing.user, days=7)
    assert purge(dry_run=True) == "1 account would be closed.\n1 deleted stock would be removed.\n"
    assert (exists(departing.user), Stock.all_objects.deleted().count()) == (True, 1)


def test_expired_sessions_and_spent_tokens_are_removed(owner, stranger):
    SpentToken.objects.spend("x", timezone.now() - timedelta(seconds=1))
    Session.objects.filter(user=stranger.user).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert purge() == "1 expired session removed.\n1 expired spent token removed.\n"
    assert [session.user_id for session in Session.objects.all()] == [owner.user.pk]


def test_second_run_removes_nothing(departing):
    shift_deletion(departing.user, days=7)
    purge()
    assert purge() == ""


def test_spent_token_is_kept_until_it_expires(anonymous, make_user):
    user = make_user(password=PASSWORD)
    token = mail_token(DELETE_ACCOUNT, user)
    anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token})
    purge()
    assert anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code == 400
