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
def leaving(owner):
    """Somebody who has confirmed that they want to leave."""
    token = mail_token(DELETE_ACCOUNT, owner.user)
    assert Client().post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code == 200
    return owner


def purge(**options) -> str:
    said = StringIO()
    call_command("purge_deleted", stdout=said, **options)
    return said.getvalue()


def let_pass(user, **time):
    """As if the person had confirmed so much earlier."""
    moment = User.all_objects.get(pk=user.pk).deletion_at - timedelta(**time)
    User.all_objects.filter(pk=user.pk).update(deletion_at=moment)


def exists(user) -> bool:
    return User.all_objects.filter(pk=user.pk).exists()


# Asking, confirming, changing one's mind


def test_deletion_is_asked_for_confirmed_by_mail_and_cancelled(owner, anonymous):
    assert owner.post(f"{AUTH}/request-account-deletion").status_code == 202
    assert owner.get(ME).json()["deletion_at"] is None
    answer = anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": mailed_token()})
    assert (answer.status_code, list(answer.json())) == (200, ["deletion_at"])
    assert owner.get(ME).json()["deletion_at"] == answer.json()["deletion_at"]
    assert owner.post(f"{AUTH}/cancel-account-deletion").status_code == 204
    assert owner.get(ME).json()["deletion_at"] is None


def test_tokens_from_before_a_decision_decide_nothing(owner, anonymous):
    def confirm(token):
        return anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code

    first = mail_token(DELETE_ACCOUNT, owner.user)
    time.sleep(1.1)  # tokens of one second are the same token
    second = mail_token(DELETE_ACCOUNT, owner.user)
    assert [confirm(first), confirm(second)] == [200, 400]
    owner.post(f"{AUTH}/cancel-account-deletion")
    assert confirm(second) == 400
    owner.user.refresh_from_db()
    assert confirm(mail_token(DELETE_ACCOUNT, owner.user)) == 200


@pytest.mark.parametrize("days", [0, 7, 30])
def test_deletion_is_as_many_days_off_as_is_set(owner, anonymous, settings, days):
    settings.ACCOUNT_DELETION_GRACE = timedelta(days=days)
    answer = anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": mail_token(DELETE_ACCOUNT, owner.user)})
    assert answer.json()["deletion_at"].endswith("Z")
    distance = datetime.fromisoformat(answer.json()["deletion_at"]) - timezone.now()
    assert timedelta(days=days, minutes=-1) < distance <= timedelta(days=days)


def test_account_works_until_then(leaving):
    assert leaving.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1}).status_code == 201


def test_asking_alone_deletes_nothing(owner):
    owner.post(f"{AUTH}/request-account-deletion")
    assert purge() == ""
    assert owner.get(ME).status_code == 200


def test_day_of_deletion_is_ones_own_matter(leaving, staff):
    assert "deletion_at" not in staff.get(f"/api/v1/users/{leaving.user.pk}").json()


def test_day_of_deletion_cannot_be_written(owner):
    assert owner.patch(ME, {"deletion_at": None}).status_code == 400


@pytest.mark.parametrize("method", ["put", "patch"])
def test_day_of_deletion_is_in_the_answer_to_a_change(leaving, method):
    assert getattr(leaving, method)(ME, {"bio": "Leaving"}).json()["deletion_at"]


def test_cancelling_what_was_not_asked_for_changes_nothing(owner):
    assert owner.post(f"{AUTH}/cancel-account-deletion").status_code == 204
    assert owner.get(ME).json()["version"] == 1


def test_last_superuser_cannot_leave(superuser):
    User.objects.superusers().exclude(pk=superuser.user.pk).update(is_superuser=False)
    assert "last active superuser" in superuser.post(f"{AUTH}/request-account-deletion").json()["detail"]
    token = mail_token(DELETE_ACCOUNT, superuser.user)
    assert superuser.post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code == 400


# The reminder


def test_reminder_is_mailed_a_day_before_and_once(leaving):
    assert (purge(), mail.outbox) == ("", [])
    let_pass(leaving.user, days=6, minutes=1)
    assert purge() == "1 reminder queued.\n"
    [message] = mail.outbox
    assert message.to == [leaving.user.email]
    for body in (message.body, message.alternatives[0].content):
        assert "cancel-account-deletion" in body
    assert purge() == ""


def test_cancelled_deletion_is_reminded_again_next_time(leaving):
    let_pass(leaving.user, days=6, minutes=1)
    purge()
    leaving.post(f"{AUTH}/cancel-account-deletion")
    fresh = User.objects.get(pk=leaving.user.pk)
    fresh.schedule_deletion()
    let_pass(fresh, days=6, minutes=1)
    assert purge() == "1 reminder queued.\n"


# The day


def test_account_is_removed_with_everything_when_its_day_has_come(leaving, make_stock, anonymous):
    make_stock(leaving.user)
    let_pass(leaving.user, days=7)
    assert "1 account closed." in purge()
    assert not exists(leaving.user)
    assert not Stock.all_objects.filter(owner_id=leaving.user.pk).exists()
    assert leaving.get(ME).status_code == 401


def test_account_is_left_alone_before(leaving):
    let_pass(leaving.user, days=6, hours=23)
    purge()
    assert exists(leaving.user)


def test_cancelled_deletion_does_not_happen(leaving):
    leaving.post(f"{AUTH}/cancel-account-deletion")
    purge()
    assert exists(leaving.user)


def test_account_of_the_last_superuser_stays_and_the_others_go(leaving, superuser):
    User.objects.superusers().exclude(pk=superuser.user.pk).update(is_superuser=False)
    User.objects.filter(pk__in=[leaving.user.pk, superuser.user.pk]).update(deletion_at=timezone.now())
    with pytest.raises(CommandError, match="last active superuser"):
        purge()
    assert (exists(leaving.user), exists(superuser.user)) == (False, True)


# What was deleted


def test_rows_deleted_longer_ago_than_the_grace_are_removed_for_good(owner, make_stock):
    old, recent, live = (make_stock(owner.user) for _ in range(3))
    for stock in (old, recent):
        owner.delete(f"/api/v1/stocks/{stock.pk}")
    Stock.all_objects.filter(pk=old.pk).update(deleted_at=timezone.now() - timedelta(days=7, minutes=1))
    assert purge() == "1 deleted stock removed.\n"
    assert set(Stock.all_objects.filter(owner=owner.user).values_list("pk", flat=True)) == {recent.pk, live.pk}


def test_deleted_user_is_removed_with_everything(owner, staff, make_stock):
    make_stock(owner.user)
    staff.delete(f"/api/v1/users/{owner.user.pk}")
    User.all_objects.filter(pk=owner.user.pk).update(deleted_at=timezone.now() - timedelta(days=8))
    assert "1 deleted user removed." in purge()
    assert not exists(owner.user)
    assert not Stock.all_objects.filter(owner_id=owner.user.pk).exists()


def test_many_rows_are_removed_in_batches(owner, make_stock):
    for _ in range(5):
        make_stock(owner.user)
    Stock.objects.filter(owner=owner.user).delete()
    assert list(Stock.all_objects.filter(owner=owner.user).purge_in_batches(2)) == [2, 2, 1]
    assert not Stock.all_objects.filter(owner=owner.user).exists()


def test_run_that_is_killed_midway_keeps_what_is_done_and_the_next_goes_on(owner, make_stock):
    for _ in range(5):
        make_stock(owner.user)
    Stock.objects.filter(owner=owner.user).delete()
    rows = Stock.all_objects.filter(owner=owner.user)
    batches = rows.purge_in_batches(2)
    assert next(batches) == 2
    batches.close()
    assert (rows.count(), AuditEntry.objects.filter(action="purge").count()) == (3, 2)
    assert list(rows.purge_in_batches(2)) == [2, 1]


def test_progress_is_told_beside_the_result(owner, make_stock, monkeypatch, capsys):
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


def test_what_was_unique_is_free_after_the_purge(owner, staff):
    username = owner.user.username
    staff.delete(f"/api/v1/users/{owner.user.pk}")
    body = {"username": username, "email": owner.user.email}
    assert staff.post("/api/v1/users", body).status_code == 400
    User.all_objects.filter(pk=owner.user.pk).update(deleted_at=timezone.now() - timedelta(days=8))
    purge()
    assert staff.post("/api/v1/users", body).status_code == 201


def test_dry_run_says_so_and_removes_nothing(leaving, make_stock):
    make_stock(leaving.user).delete()
    Stock.all_objects.deleted().update(deleted_at=timezone.now() - timedelta(days=8))
    let_pass(leaving.user, days=7)
    assert purge(dry_run=True) == "1 account would be closed.\n1 deleted stock would be removed.\n"
    assert (exists(leaving.user), Stock.all_objects.deleted().count()) == (True, 1)


def test_what_signing_in_left_behind_is_removed(owner, stranger):
    SpentToken.objects.spend("x", timezone.now() - timedelta(seconds=1))
    Session.objects.filter(user=stranger.user).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert purge() == "1 expired session removed.\n1 expired spent token removed.\n"
    assert [each.user_id for each in Session.objects.all()] == [owner.user.pk]


def test_second_run_finds_nothing(leaving):
    let_pass(leaving.user, days=7)
    purge()
    assert purge() == ""


def test_spent_token_is_kept_as_long_as_it_would_be_good(anonymous, make_user):
    user = make_user(password=PASSWORD)
    token = mail_token(DELETE_ACCOUNT, user)
    anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token})
    purge()
    assert anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token}).status_code == 400
