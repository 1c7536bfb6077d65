// An OpenID provider: `node oidc_provider.mjs NODE_MODULES PORT`. Each of its clients stands for a person who has signed in,
// and gets a signed access token for the collector by its own secret.
import { generateKeyPairSync } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, port] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const issuer = `http://127.0.0.1:${port}`;
const now = () => Math.floor(Date.now() / 1000);
const people = {
  ops: () => ({ groups: ["ops", "all"], amr: ["pwd", "mfa"], auth_time: now() }),
  "ops-by-acr": () => ({ groups: "ops", acr: "urn:strong", auth_time: now() }),
  "ops-by-password": () => ({ groups: ["ops"], amr: ["pwd"], auth_time: now() }),
  "ops-an-hour-ago": () => ({ groups: ["ops"], amr: ["mfa"], auth_time: now() - 3600 }),
  "ops-without-time": () => ({ groups: ["ops"], amr: ["mfa"] }),
  helpdesk: () => ({ groups: ["helpdesk"], amr: ["mfa"], auth_time: now() }),
  stranger: () => ({ groups: ["all"], amr: ["mfa"], auth_time: now() }),
};
const key = (kid) => ({ ...generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" });
const provider = new Provider(issuer, {
  clients: Object.keys(people).map((id) => ({
    client_id: id,
    client_secret: "secret-of-" + id,
    grant_types: ["client_credentials"],
    redirect_uris: [],
    response_types: [],
  })),
  jwks: { keys: [key(process.env.KEY_ID ?? "first")] },
  extraTokenClaims: (_ctx, token) => people[token.clientId](),
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
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
