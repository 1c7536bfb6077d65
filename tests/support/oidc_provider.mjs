// An OpenID provider: `node oidc_provider.mjs NODE_MODULES PORT`. Each of its clients stands for a person who has signed in,
// and gets a signed access token for the collector by its own secret. People sign in with a browser too, at the client
// `console`: they write their name.
import { generateKeyPairSync } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, port] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const issuer = `http://127.0.0.1:${port}`;
const now = () => Math.floor(Date.now() / 1000);
let hasLeft = false;
const people = {
  leaver: () => ({ groups: hasLeft ? ["all"] : ["ops"], amr: ["pwd"], auth_time: now() }),
  ops: () => ({ groups: ["ops", "all"], amr: ["pwd", "mfa"], auth_time: now() }),
  mara: () => ({ groups: ["ops"], amr: ["pwd", "mfa"], auth_time: now() }),
  "ops-by-acr": () => ({ groups: "ops", acr: "urn:strong", auth_time: now() }),
  "ops-by-password": () => ({ groups: ["ops"], amr: ["pwd"], auth_time: now() }),
  "ops-an-hour-ago": () => ({ groups: ["ops"], amr: ["mfa"], auth_time: now() - 3600 }),
  "ops-tomorrow": () => ({ groups: ["ops"], amr: ["mfa"], auth_time: now() + 86400 }),
  "ops-without-time": () => ({ groups: ["ops"], amr: ["mfa"] }),
  helpdesk: () => ({ groups: ["helpdesk"], amr: ["mfa"], auth_time: now() }),
  stranger: () => ({ groups: ["all"], amr: ["mfa"], auth_time: now() }),
  jane: () => ({ email: "Jane@example.com", email_verified: true }),
  ann: () => ({ email: "ann@example.com", email_verified: true }), // Who has signed in here an hour ago.
  mallory: () => ({ email: "jane@example.com", email_verified: false }),
  nobody: () => ({ email: "nobody@example.com", email_verified: true }),
};
const key = (kid) => ({ ...generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" });
const provider = new Provider(issuer, {
  clients: [
    ...Object.keys(people).map((id) => ({
      client_id: id,
      client_secret: "secret-of-" + id,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    {
      client_id: "console",
      client_secret: "secret-of-console",
      grant_types: ["authorization_code"],
      redirect_uris: (process.env.REDIRECT ?? "http://127.0.0.1/back").split(" "),
      response_types: ["code"],
      require_auth_time: true,
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ["sub", "groups", "amr", "acr"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false,
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, ...people[id]() }) }),
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ["of the tests"] },
  jwks: { keys: [key(process.env.KEY_ID ?? "first")] },
  extraTokenClaims: (_ctx, token) => people[token.clientId]?.(),
  ttl: { ClientCredentials: 600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://edgeproxy",
      getResourceServerInfo: (_ctx, resource) => ({ scope: "", audience: resource, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } } }),
    },
  },
});
const form = '<!doctype html><title>Who?</title><form method="post"><input name="person" autofocus><button>I am</button></form>';
provider.on("grant.error", (_ctx, error) => console.log("refused:", error.message, error.error_description ?? ""));
provider.on("server_error", (_ctx, error) => console.log("failed:", error));
provider.use(async (ctx, next) => {
  if (ctx.path === "/leave") { // The person "leaver" has no group of operators from now on.
    hasLeft = true;
    ctx.status = 204;
    return;
  }
  if (!ctx.path.startsWith("/interaction/")) return next();
  if (ctx.method === "GET") {
    ctx.type = "html";
    ctx.body = form;
    return;
  }
  let sent = "";
  for await (const piece of ctx.req) sent += piece;
  const accountId = new URLSearchParams(sent).get("person");
  const details = await provider.interactionDetails(ctx.req, ctx.res);
  const grant = new provider.Grant({ accountId, clientId: details.params.client_id });
  grant.addOIDCScope("openid email");
  const { amr, acr } = people[accountId]();
  await provider.interactionFinished(ctx.req, ctx.res, {
    login: { accountId, amr, acr, ...(accountId === "ann" && { ts: now() - 3600 }) },
    consent: { grantId: await grant.save() },
  });
  ctx.respond = false;
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
