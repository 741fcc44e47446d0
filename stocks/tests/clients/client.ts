// What a person would write with types made by openapi-typescript: type-checked, and run by test_clients.py.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Stock = components["schemas"]["Stock"];

declare const process: { argv: string[]; exitCode?: number };

function must(truth: unknown, what: string): asserts truth {
  if (!truth) throw new Error(what);
}

const baseUrl = process.argv[2];
must(baseUrl, "The address of the service is missing.");
const client = createClient<paths>({ baseUrl });
const person = { username: "ts-client", email: "ts@example.com", password: "glacier-Tango-41-velvet" };

const registered = await client.POST("/api/v1/auth/register", { body: { ...person, name: "Ts Client" } });
must(registered.data, "register");
must(registered.response.headers.get("Location") === `/api/v1/users/${registered.data.id}`, "Location");

const unknown = await client.POST("/api/v1/auth/login", { body: { username: "x", password: "x", nickname: "x" } });
must(unknown.error?.errors?.["nickname"]?.[0], "unknown field");

const login = await client.POST("/api/v1/auth/login", {
  body: { username: person.username, password: person.password },
});
must(login.data, "login");
const headers = { Authorization: `Bearer ${login.data.access_token}` };

const names = ["AAPL", "GOOG", "MSFT", "IBM", "ORCL"];
const created: Stock[] = [];
for (const name of names) {
  const answer = await client.POST("/api/v1/stocks", { headers, body: { name, price: 175.5, quantity: 10 } });
  must(answer.data && "id" in answer.data, `create ${name}`);
  created.push(answer.data);
}

const paged: Stock[] = [];
let cursor: string | null = "";
while (cursor !== null) {
  const page: { data?: components["schemas"]["PaginatedStockList"] } = await client.GET("/api/v1/stocks", {
    headers,
    params: { query: { cursor, size: 2, sort_by: "-name" } },
  });
  must(page.data, "page");
  must(page.data.total === null && page.data.page === null, "a cursor counts nothing");
  paged.push(...page.data.items);
  const next: string | null = page.data.links.next;
  cursor = next === null ? null : new URL(next, baseUrl).searchParams.get("cursor");
}
must(paged.map((stock) => stock.name).join() === [...names].sort().reverse().join(), "every stock once, in order");

const [first] = created;
must(first, "first");
const path = { id: first.id };
const patched = await client.PATCH("/api/v1/stocks/{id}", { headers, params: { path }, body: { price: 190.25 } });
must(patched.data?.price === 190.25 && patched.data.version === first.version + 1, "patch");

const user = await client.GET("/api/v1/users/{id}", { headers, params: { path: { id: registered.data.id } } });
must(user.data, "user");
must(user.data.stocks_total === names.length && user.data.stocks[0]?.name === "AAPL", "stocks of the user");
const gender: "Male" | "Female" | null = user.data.gender;
must(gender === null, "gender");

const refused = await client.POST("/api/v1/stocks", { headers, body: { name: "AAPL", price: 0, quantity: 10 } });
must(refused.error?.status === 400 && refused.error.errors?.["price"]?.length === 1, "refused");
must(refused.response.headers.get("X-Request-ID") === refused.error.request_id, "request id");

const many = await client.POST("/api/v1/stocks", {
  headers,
  body: ["IBM", "SAP"].map((name) => ({ name, price: 1.5, quantity: 1 })),
});
must(many.data && "items" in many.data, "create several");
must(many.data.items.map((stock) => stock.name).join() === "IBM,SAP", "in the order of the request");
const changes = many.data.items.map(({ id, version }) => ({ id, version, price: 2.5 }));
const changed = await client.PATCH("/api/v1/stocks", { headers, body: changes });
must(changed.data && "items" in changed.data && changed.data.items[1]?.price === 2.5, "change several");
const query207 = { atomic: false };
const partly = await client.DELETE("/api/v1/stocks", {
  headers,
  params: { query: query207 },
  body: [...changes.map(({ id }) => id), 0],
});
must(partly.data && "results" in partly.data && partly.data.succeeded === 2, "delete several");

const deleted = await client.DELETE("/api/v1/stocks/{id}", { headers, params: { path } });
must(deleted.response.status === 204, "delete");
const gone = await client.GET("/api/v1/stocks/{id}", { headers, params: { path } });
must(gone.error?.detail === `Stock with ID ${first.id} not found`, "gone");

// Types alone: what the service refuses does not compile.
// @ts-expect-error A price is needed.
const incomplete: components["schemas"]["StockRequest"] = { name: "AAPL", quantity: 10 };
// @ts-expect-error A request has no other fields.
const unexpected: components["schemas"]["LoginRequest"] = { username: "x", password: "x", nickname: "x" };
// @ts-expect-error There is no such parameter.
const query: paths["/api/v1/stocks"]["get"]["parameters"]["query"] = { ordering: "name" };
void [incomplete, unexpected, query];
