"""Print what the benchmark requests from the configured, loaded database: an access token and ids, as JSON.

The token is a superuser's, so that the lists are those of all rows.
"""

# ruff: noqa: E402 - models are imported after django.setup()

import json
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django

django.setup()

from django.db.models import Count, Q

from stocks.models import Stock
from users.access_tokens import access_token
from users.models import Session, User
from users.models.session import Device

SEED = 20_260_101
STOCKS_OF_USER = 11
SAMPLE_SIZE = 5_000


def main() -> None:
    rng = random.Random(SEED)
    superuser = User.objects.filter(username="bench-admin").first()
    superuser = superuser or User.objects.create_superuser("bench-admin", "bench-admin@example.com")
    live = Count("stocks", filter=Q(stocks__deleted_at=None))
    users = User.objects.annotate(live=live).filter(live=STOCKS_OF_USER).order_by("id").values_list("pk", flat=True)
    stocks = list(Stock.objects.order_by("id").values_list("pk", flat=True))
    targets = {
        "token": access_token(Session.objects.start(superuser, Device(None, ""))),
        "owner": superuser.pk,
        "stocks": rng.sample(stocks, min(SAMPLE_SIZE, len(stocks))),
        "users": list(users),
    }
    print(json.dumps(targets))


if __name__ == "__main__":
    main()
