"""Create resources in a copy of the project, test them on SQLite and on the given PostgreSQL, and remove them.

Usage: resources.py postgres://…
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import requests

PROJECT = Path(__file__).resolve().parent.parent
PASSWORD = "correct-horse-7-battery"
#: Arguments of startresource, each with the body of a POST; {Category} is the id of the category that was created before.
RESOURCES = [
    ("Item title:str description:text? owner:user --searchable", {"title": "Lamp"}),
    (
        "Task title:str description:text? status:choice(pending,completed)=pending due_date:date? owner:user",
        {"title": "Water the plants", "due_date": "2026-12-01"},
    ),
    (
        "Post title:str content:text is_published:bool author_id:uuid --soft-delete --slug",
        {"title": "Hello", "content": "World", "is_published": True, "author_id": "00000000-0000-4000-8000-000000000001"},
    ),
    ("Category name:str slug:str --admin --slug", {"name": "Summer Sale"}),
    (
        "Product name:str price:decimal description:text category:fk(categories.Category) stock:int --searchable",
        {"name": "Chair", "price": 49.5, "description": "Wood", "category_id": "{Category}", "stock": 3},
    ),
    # Every type, modifier and option.
    (
        "Gadget title:str code:str! note:text? amount:int=1 weight:float? price:decimal=9.5 is_on:bool=true "
        'seen_at:datetime=now built_on:date=today serial:uuid!=random data:json={"a":[1]} contact:email!? homepage:url? '
        "size_class:choice(small,medium,large)=small category:fk(categories.Category)? helper:fk(users.User)? "
        "owner:user --soft-delete --searchable --admin --slug --public",
        {"title": "Robot", "code": "R1", "category_id": "{Category}", "data": {"legs": [2, None]}},
    ),
    # The same types, required, without an owner; an irregular plural.
    (
        "Person nick:str! bio:text age:int height:float! wage:decimal! is_tall:bool born_at:datetime! born_on:date! "
        "token:uuid! extra:json mail:email! site:url! mood:choice(happy,sad,1,x) boss:fk(users.User) --searchable --admin",
        {
            "nick": "ada", "bio": "–", "age": 36, "height": 1.65, "wage": 10.25, "is_tall": False,
            "born_at": "1815-12-10T12:00:00Z", "born_on": "1815-12-10", "token": "00000000-0000-4000-8000-000000000001",
            "extra": [], "mail": "ada@example.com", "site": "https://example.com", "mood": "1", "boss_id": "{me}",
        },
    ),
    # A name of two words, and references between rows of one owner.
    (
        "OrderLine gadget:fk(gadgets.Gadget) item:fk(items.Item)! task:fk(tasks.Task)? amount:int owner:user --soft-delete",
        {"gadget_id": "{Gadget}", "item_id": "{Item}", "amount": 2},
    ),
    # Resources of a broker: names close to those of the project, and references to stocks.
    ("Portfolio name:str! is_main:bool owner:user --searchable --admin", {"name": "Pension"}),
    (
        "Holding portfolio:fk(portfolios.Portfolio) stock:fk(stocks.Stock) amount:decimal owner:user",
        {"portfolio_id": "{Portfolio}", "stock_id": "{Stock}", "amount": 2.5},
    ),
    (
        "Order stock:fk(stocks.Stock) side:choice(buy,sell)=buy amount:int is_open:bool owner:user "
        "--soft-delete --searchable",
        {"stock_id": "{Stock}", "amount": 3},
    ),
    (
        "Transaction stock:fk(stocks.Stock)? filled:fk(orders.Order)! price:decimal at:datetime=now owner:user --admin",
        {"stock_id": "{Stock}", "filled_id": "{Order}", "price": 175.5},
    ),
    ("Flag is_up:bool --public", {"is_up": True}),
    ("Staff name:str --plural staff", {"name": "Ada"}),
    ("Note data:json owner:user --searchable", {"data": {"text": "ü"}}),
]  # fmt: skip


def run(*command: str, refused: bool = False, **environment: str) -> str:
    """Return the output of a command; exit if it fails, or if `refused` and it succeeds."""
    process = subprocess.run(command, env=os.environ | environment, text=True, capture_output=True)
    if (process.returncode != 0) != refused:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{process.stdout[-8000:]}\n{process.stderr[-4000:]}")
    return process.stdout + process.stderr


def manage(*arguments: str, **options) -> str:
    return run(sys.executable, "manage.py", *arguments, **options)


def step(text: str) -> None:
    print(f"-- {text}", flush=True)


def split_line(line: str) -> list[str]:
    return line.split()


def name_of(line: str) -> str:
    return split_line(line)[0]


def copy_to(folder: Path) -> None:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if Path(name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, folder / name)


def walk(routes: dict[str, tuple[str, str]], port: str) -> None:
    """Use each resource through its API and its admin pages."""
    url = f"http://127.0.0.1:{port}"
    login = requests.post(f"{url}/api/v1/auth/login", data={"username": "root", "password": PASSWORD}, timeout=30)
    api = requests.Session()
    api.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
    ids = {"me": api.get(f"{url}/api/v1/users/me").json()["id"]}
    stock = {"name": "^GSPC", "price": 1, "quantity": 1}
    ids["Stock"] = expect(api.post(f"{url}/api/v1/stocks", json=stock), 201).json()["id"]
    browser = requests.Session()
    form = browser.get(f"{url}/admin/login/").text
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', form)[1]
    form_data = {"csrfmiddlewaretoken": token, "username": "root", "password": PASSWORD, "next": "/admin/"}
    expect(browser.post(f"{url}/admin/login/", form_data), 200)
    for line, body in RESOURCES:
        name, (path, admin) = name_of(line), routes[name_of(line)]
        body = {key: ids.get(value[1:-1], value) if isinstance(value, str) else value for key, value in body.items()}
        row = expect(api.post(f"{url}{path}", json=body), 201).json()
        ids[name] = row["id"]
        assert row == row | body, (row, body)
        if "--slug" in line:
            # Other unique fields need another value.
            duplicate = body | ({"code": "R2"} if "code" in body else {})
            assert expect(api.post(f"{url}{path}", json=duplicate), 201).json()["slug"] == f"{row['slug']}-2"
        assert expect(api.get(f"{url}{path}/{row['id']}"), 200).json() == row
        assert expect(api.get(f"{url}{path}"), 200).json()["total"] == 1 + ("--slug" in line)
        expect(api.get(f"{url}{path}", params={"unknown": 1}), 400)
        expect(api.post(f"{url}{path}", json=body | {"unknown": 1}), 400)
        expect(requests.get(f"{url}{path}", timeout=30), 200 if "--public" in line else 401)
        expect(requests.post(f"{url}{path}", json=body, timeout=30), 401)
        assert expect(api.get(f"{url}{path}/{row['id']}/history"), 200).json()["items"][0]["action"] == "create"
        expect(api.get(f"{url}{path}", headers={"Accept": "text/html"}), 200)
        for page in ("", "add/", f"{row['id']}/change/", f"{row['id']}/history/"):
            answer = expect(browser.get(f"{url}{admin}{page}"), 200)
            assert answer.url.startswith(f"{url}{admin}"), answer.url
    conflict = expect(api.delete(f"{url}{routes['Category'][0]}/{ids['Category']}"), 409).json()
    assert "in use by 1 product" in conflict["detail"], conflict
    expect(api.get(f"{url}/api/v1/users/{ids['me']}/portfolio"), 200)
    documented = expect(requests.get(f"{url}/openapi.json", timeout=30), 200).json()["paths"]
    assert all(path in documented for path, _ in routes.values())


def purge(*apps: str) -> None:
    models = f"[next(apps.get_app_config(app).get_models()) for app in {apps}]"
    manage("shell", "-c", f"from django.apps import apps\nfor model in {models}: model.all_objects.all().purge()")


def expect(answer: requests.Response, status: int) -> requests.Response:
    assert answer.status_code == status, (answer.request.method, answer.url, answer.status_code, answer.text[:2000])
    return answer


def serve_and_walk(routes: dict[str, tuple[str, str]], port: str) -> None:
    environment = os.environ | {"PORT": port, "THROTTLE_USER": "100000/min", "THROTTLE_ANON": "100000/min"}
    server = subprocess.Popen([sys.executable, "manage.py", "serve"], env=environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.2)
        walk(routes, port)
    finally:
        server.terminate()
        server.wait(30)


def main(postgres: str) -> None:
    os.chdir(PROJECT)
    with tempfile.TemporaryDirectory() as name:
        copy_to(Path(name))
        os.chdir(name)
        for command in ("init -q", "add -A", "-c user.name=ci -c user.email=ci@example.com commit -qm start"):
            run("git", *command.split())

        step("Dry run")
        assert "+class Item(Record)" in manage("startresource", *split_line(RESOURCES[0][0]), "--dry-run")
        assert run("git", "status", "--porcelain") == ""

        routes = {}
        for line, _ in RESOURCES:
            step(f"startresource {line}")
            printed = manage("startresource", *split_line(line))
            routes[name_of(line)] = (re.search(r"(/api/v1/\S+):", printed)[1], re.search(r"/admin/\S+", printed)[0])
        apps = [admin.split("/")[2] for _, admin in routes.values()]
        assert routes["Person"][0] == "/api/v1/people"

        step("Lint, format, types, migrations, OpenAPI")
        for command in ("ruff check -q .", "ruff format -q --check .", "mypy ."):
            run(sys.executable, "-m", *command.split())
        manage("makemigrations", "--check", "--dry-run")
        manage("spectacular", "--fail-on-warn", "--validate", "--file", os.devnull)

        for number, database in enumerate([f"sqlite:///{quote(name)}/var/resources.sqlite3", postgres]):
            kind = database.partition(":")[0]
            os.environ |= {"DATABASE_URL": database, "SECRET_KEY": secrets.token_urlsafe(64)}
            step(f"Tests on {kind}")
            run(sys.executable, "-m", "pytest", *apps, "records/tests/test_audit.py", ".ci/every_resource.py")
            step(f"API and admin on {kind}")
            Path("var").mkdir(exist_ok=True)
            manage("migrate", "-v", "0")
            manage("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com",
                   DJANGO_SUPERUSER_PASSWORD=PASSWORD)  # fmt: skip
            serve_and_walk(routes, str(18431 + number))
            step(f"Resources with rows are not removed on {kind}")
            assert "The table notes has 1 row" in manage("removeresource", "Note", refused=True)
            assert "categories is used by" in manage("removeresource", "Category", refused=True)
            assert set(apps) == {path.name for path in Path().iterdir()} & set(apps)
            step(f"Remove and create again on {kind}")
            purge("notes")
            manage("removeresource", "Note")
            manage("startresource", *split_line(RESOURCES[-1][0]))
            manage("migrate", "-v", "0")

        step("Remove all in reverse order")
        purge(*apps[::-1])
        for line, _ in RESOURCES[::-1]:
            manage("removeresource", name_of(line))
        assert run("git", "status", "--porcelain", "--ignored=no") == "", run("git", "status", "--porcelain")
        assert not any(Path(app).exists() for app in apps)
        manage("check")
        manage("migrate", "--check")
        tables = manage("inspectdb")
        assert not [app for app in apps if f"db_table = '{app}'" in tables]


main(*sys.argv[1:])
