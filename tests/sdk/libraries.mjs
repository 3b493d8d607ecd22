// The providers' libraries for Node. Takes a JSON line a question and answers with one: { op, provider, secret, method,
// path, headers, body, now } to { text }, { headers } or { good }. Runs from the folder the libraries are installed into.
import { createInterface } from "node:readline";
import { verifyWebhook } from "@clerk/backend/webhooks";
import { signRequest, verifyRequest } from "@contentful/node-apps-toolkit";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { Mux } from "@mux/mux-node";
import * as github from "@octokit/webhooks-methods";
import { signWebhookPayload, verifyWebhookSignature } from "@notionhq/client";
import { encodeSignatureHeader, isValidSignature } from "@sanity/webhook";
import { shopifyApi, ApiVersion } from "@shopify/shopify-api";
import "@shopify/shopify-api/adapters/node";
import { WebflowClient } from "webflow-api";

const canonical = (q) => ({ method: q.method, path: q.path, headers: q.headers, body: q.body });

const sign = {
  github: async (q) => ({ text: await github.sign(q.secret, q.body) }),
  sanity: async (q) => ({ text: await encodeSignatureHeader(q.body, q.now * 1000, q.secret) }),
  notion: async (q) => ({ text: await signWebhookPayload({ body: q.body, verificationToken: q.secret }) }),
  contentful: async (q) => ({ headers: signRequest(q.secret, canonical(q), q.now * 1000) }),
};

const verify = {
  github: (q) => github.verify(q.secret, q.body, q.headers["x-hub-signature-256"]),
  sanity: (q) => isValidSignature(q.body, q.headers["sanity-webhook-signature"], q.secret),
  contentful: (q) => verifyRequest(q.secret, canonical(q)),
  notion: (q) => verifyWebhookSignature({ body: q.body, signature: q.headers["x-notion-signature"], verificationToken: q.secret }),
  clerk: async (q) => {
    const request = new Request("https://hooks.example.com/", { method: "POST", headers: q.headers, body: q.body });
    return Boolean(await verifyWebhook(request, { signingSecret: q.secret }));
  },
  linear: (q) => new LinearWebhookClient(q.secret).verify(Buffer.from(q.body), q.headers["linear-signature"], JSON.parse(q.body).webhookTimestamp),
  mux: async (q) => {
    const client = new Mux({ tokenId: "id", tokenSecret: "secret", webhookSecret: q.secret });
    await client.webhooks.verifySignature(q.body, q.headers);
    return true;
  },
  shopify: async (q) => {
    const shopify = shopifyApi({
      apiKey: "key", apiSecretKey: q.secret, hostName: "hooks.example.com", isEmbeddedApp: false,
      apiVersion: Object.values(ApiVersion)[0], logger: { level: 0, log: () => {} },
    });
    const { IncomingMessage, ServerResponse } = await import("node:http");
    const rawRequest = new IncomingMessage(null);
    Object.assign(rawRequest, { method: "POST", url: q.path, headers: q.headers });
    rawRequest.rawHeaders.push(...Object.entries(q.headers).flat());
    const answer = await shopify.webhooks.validate({ rawBody: q.body, rawRequest, rawResponse: new ServerResponse(rawRequest) });
    if (!answer.valid && answer.reason !== "invalid_hmac") throw new Error(`not about the signature: ${answer.reason}`);
    return answer.valid;
  },
  webflow: (q) => new WebflowClient({ accessToken: "token" }).webhooks.verifySignature({ headers: q.headers, body: q.body, secret: q.secret }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  let answer;
  try {
    answer = question.op === "sign" ? await sign[question.provider](question) : { good: Boolean(await verify[question.provider](question)) };
  } catch (error) {
    answer = { good: false, why: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
