// An OpenID Connect provider on a free port of this machine; it prints its issuer, and ends with its standard input.
//
//     node provider.mjs '{"accounts": {"ada": {"email": "ada@example.com"}}, "redirectUri": "http://…/callback"}'
//
// `alg` is what it signs with; with `onlyInUserinfo` the ID token says no more of a person than their `sub`.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";

import Provider from "oidc-provider";

const { accounts, redirectUri, alg = "ES256", onlyInUserinfo = false } = JSON.parse(process.argv[2]);

const LOGIN = `<!doctype html><title>Provider</title><form method="post">
<input name="login"><button name="answer" value="allow">Allow</button><button name="answer" value="deny">Deny</button>
</form>`;

function signingKey() {
  const kinds = { ES256: ["ec", { namedCurve: "P-256" }], RS256: ["rsa", { modulusLength: 2048 }] };
  const { privateKey } = generateKeyPairSync(...kinds[alg]);
  return { ...privateKey.export({ format: "jwk" }), use: "sig", alg };
}

function findAccount(ctx, accountId) {
  return accounts[accountId] && { accountId, claims: () => ({ sub: accountId, ...accounts[accountId] }) };
}

async function answer(provider, request, response) {
  const { params } = await provider.interactionDetails(request, response);
  if (request.method === "GET") {
    response.setHeader("Content-Type", "text/html").end(LOGIN);
    return;
  }
  const form = new URLSearchParams(await text(request));
  if (form.get("answer") === "deny") {
    await provider.interactionFinished(request, response, { error: "access_denied" });
    return;
  }
  const accountId = form.get("login");
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope("openid email profile");
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { login: { accountId }, consent });
}

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      {
        client_id: "stocks",
        client_secret: "secret",
        redirect_uris: [redirectUri],
        id_token_signed_response_alg: alg,
      },
    ],
    jwks: { keys: [signingKey()] },
    pkce: { required: () => true, methods: ["S256"] },
    claims: { email: ["email", "email_verified"], profile: ["name", "preferred_username"] },
    conformIdTokenClaims: onlyInUserinfo,
    findAccount,
    features: { devInteractions: { enabled: false } },
    interactions: { url: (ctx, { uid }) => `/interaction/${uid}` },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
    cookies: {
      keys: [randomUUID()],
      // Ports share their cookies.
      names: { session: `session${port}`, interaction: `interaction${port}`, resume: `resume${port}` },
    },
  });
  const routes = provider.callback();
  server.on("request", (request, response) => {
    if (!request.url.startsWith("/interaction/")) {
      routes(request, response);
      return;
    }
    answer(provider, request, response).catch((error) => response.writeHead(400).end(String(error)));
  });
  console.log(provider.issuer);
});

process.stdin.resume().on("end", () => process.exit());
