// The official JavaScript client against the test server. main.go sets the environment and
// knows the steps.
import assert from "node:assert/strict";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { ClientSecretCredential } from "@azure/identity";
import { CryptographyClient, KeyClient } from "@azure/keyvault-keys";

const env = process.env;
const url = env.VAULT_URL;

function credential(name, secret) {
  return new ClientSecretCredential(env.TENANT_ID, env[name + "_CLIENT_ID"], secret ?? env[name + "_CLIENT_SECRET"], {
    authorityHost: env.AUTHORITY,
    disableInstanceDiscovery: true, // which is a service of the public cloud's
    retryOptions: { maxRetries: 0 },
  });
}

// The vault's address is not of the domain that its challenge names.
const options = { disableChallengeResourceVerification: true, retryOptions: { maxRetries: 0 } };
const officer = new KeyClient(url, credential("OFFICER"), options);
const service = new KeyClient(url, credential("SERVICE"), options);
const poll = { intervalInMs: 1 };

async function step(name, f) {
  await f();
  console.log("ok " + name);
}

async function refused(status, code, inner, message, f) {
  await assert.rejects(f, (e) => {
    assert.equal(e.statusCode, status, e);
    assert.equal(e.code, code, e);
    if (e.response.bodyAsText) { // a list's error has only what was read of it
      assert.equal(JSON.parse(e.response.bodyAsText).error.innererror?.code, inner, e);
    }
    assert.match(e.message, message);
    return true;
  });
}

async function all(pages) {
  const items = [];
  for await (const p of pages) items.push(p);
  return items;
}

await step("a wrong secret is refused", async () => {
  const client = new KeyClient(url, credential("OFFICER", "wrong"), options);
  await assert.rejects(() => client.getKey("kek"), (e) => {
    assert.match(e.message, /AADSTS7000215/);
    return true;
  });
});

let created;
await step("create", async () => {
  created = await officer.createRsaKey("js", { keySize: 2048, keyOps: ["wrapKey", "unwrapKey"], tags: { for: "test" } });
  assert.equal(created.keyType, "RSA");
  assert.equal(created.key.n.length, 256);
  assert.deepEqual(created.keyOperations, ["wrapKey", "unwrapKey"]);
  assert.equal(created.properties.enabled, true);
  assert.equal(created.properties.tags.for, "test");
  assert.equal(created.properties.vaultUrl, url);
  assert.ok(created.properties.createdOn instanceof Date);
});

await step("import", async () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const jwk = privateKey.export({ format: "jwk" });
  const key = { kty: "RSA", keyOps: ["wrapKey", "unwrapKey"] };
  for (const part of ["n", "e", "d", "p", "q", "dp", "dq", "qi"]) key[part] = Buffer.from(jwk[part], "base64url");
  const got = await officer.importKey("js-imported", key);
  assert.deepEqual(Buffer.from(got.key.n), key.n);
});

await step("get", async () => {
  const current = await service.getKey("js");
  assert.equal(current.id, created.id);
  const version = await service.getKey("js", { version: created.properties.version });
  assert.equal(version.id, created.id);
  assert.equal(version.properties.recoveryLevel, "Recoverable+Purgeable");
});

await step("list keys in pages", async () => {
  const pages = await all(officer.listPropertiesOfKeys().byPage({ maxPageSize: 2 }));
  assert.ok(pages.length > 1, "one page");
  assert.ok(pages.every((p) => p.length <= 2));
  const names = pages.flat().map((p) => p.name);
  assert.ok(names.includes("js") && names.includes("js-imported") && names.includes("kek"), names);
  assert.equal(new Set(names).size, names.length);
  await refused(400, "BadParameter", undefined, /unexpected statusCode 400/, () => all(officer.listPropertiesOfKeys().byPage({ maxPageSize: 26 })));
});

await step("list versions in pages", async () => {
  await officer.createRsaKey("js-versions");
  await officer.createRsaKey("js-versions");
  const last = await officer.createRsaKey("js-versions");
  const pages = await all(officer.listPropertiesOfKeyVersions("js-versions").byPage({ maxPageSize: 2 }));
  assert.deepEqual(pages.map((p) => p.length), [2, 1]);
  assert.ok(pages.flat().some((p) => p.version === last.properties.version));
  assert.deepEqual(await all(officer.listPropertiesOfKeyVersions("no-such-key")), []);
});

let wrapped;
const secret = randomBytes(32);
const crypto = new CryptographyClient(created.id, credential("SERVICE"), options);
await step("wrap and unwrap", async () => {
  wrapped = await crypto.wrapKey("RSA-OAEP-256", secret);
  assert.equal(wrapped.keyID, created.id);
  const got = await crypto.unwrapKey("RSA-OAEP-256", wrapped.result);
  assert.deepEqual(Buffer.from(got.result), secret);
});

await step("wrap at the vault", async () => {
  // Without get the client does not have the public key, and cannot wrap by itself.
  const blind = new CryptographyClient(created.id, credential("WRAPPER"), options);
  const w = await blind.wrapKey("RSA-OAEP-256", secret);
  assert.deepEqual(Buffer.from((await crypto.unwrapKey("RSA-OAEP-256", w.result)).result), secret);
});

await step("expiry and tags", async () => {
  // The client writes dates in 32 bits.
  const expiresOn = new Date("2037-01-02T03:04:05Z");
  const got = await officer.updateKeyProperties("js", created.properties.version, { expiresOn, tags: { for: "change" } });
  assert.deepEqual(got.properties.expiresOn, expiresOn);
  assert.equal((await officer.getKey("js")).properties.tags.for, "change");
});

await step("disable and enable", async () => {
  await officer.updateKeyProperties("js", created.properties.version, { enabled: false });
  assert.equal((await service.getKey("js")).properties.enabled, false);
  await refused(403, "Forbidden", "KeyDisabled", /Operation unwrapKey is not allowed on a disabled key/, () => crypto.unwrapKey("RSA-OAEP-256", wrapped.result));
  await officer.updateKeyProperties("js", created.properties.version, { enabled: true });
  await crypto.unwrapKey("RSA-OAEP-256", wrapped.result);
});

await step("rotation policy", async () => {
  await officer.updateKeyRotationPolicy("js", { expiresIn: "P90D", lifetimeActions: [{ action: "Rotate", timeBeforeExpiry: "P30D" }] });
  const got = await officer.getKeyRotationPolicy("js");
  assert.equal(got.expiresIn, "P90D");
  assert.ok(got.lifetimeActions.some((a) => a.action === "Rotate" && a.timeBeforeExpiry === "P30D"), JSON.stringify(got));
});

await step("rotate", async () => {
  const next = await officer.rotateKey("js");
  assert.notEqual(next.id, created.id);
  assert.equal((await service.getKey("js")).id, next.id);
  assert.deepEqual(Buffer.from((await crypto.unwrapKey("RSA-OAEP-256", wrapped.result)).result), secret);
});

await step("back up, purge and restore", async () => {
  const made = await officer.createRsaKey("js-backup");
  const backup = await officer.backupKey("js-backup");
  await refused(409, "Conflict", undefined, /exists/, () => officer.restoreKeyBackup(backup));
  await (await officer.beginDeleteKey("js-backup", poll)).pollUntilDone();
  await refused(409, "Conflict", "ObjectIsDeletedButRecoverable", /recovered or purged/, () => officer.createRsaKey("js-backup"));
  await officer.purgeDeletedKey("js-backup");
  const got = await officer.restoreKeyBackup(backup);
  assert.equal(got.id, made.id);
  await refused(400, "BadParameter", undefined, /./, () => officer.restoreKeyBackup(Buffer.from("no backup")));
});

await step("delete and recover", async () => {
  const made = await officer.createRsaKey("js-deleted");
  const gone = await (await officer.beginDeleteKey("js-deleted", poll)).pollUntilDone();
  assert.ok(gone.properties.scheduledPurgeDate > gone.properties.deletedOn);
  assert.equal(gone.properties.recoveryId, url + "/deletedkeys/js-deleted");
  await refused(404, "KeyNotFound", undefined, /js-deleted was not found/, () => officer.getKey("js-deleted"));
  const listed = await all(officer.listDeletedKeys());
  assert.deepEqual(listed.map((k) => k.name), ["js-deleted"]);
  const back = await (await officer.beginRecoverDeletedKey("js-deleted", poll)).pollUntilDone();
  assert.equal(back.id, made.id);
  await refused(404, "KeyNotFound", undefined, /Deleted Key not found: js-deleted/, () => officer.getDeletedKey("js-deleted"));
});

await step("errors", async () => {
  await refused(404, "KeyNotFound", undefined, /A key with \(name\/id\) no-such-key was not found/, () => officer.getKey("no-such-key"));
  await refused(404, "KeyNotFound", undefined, /was not found/, () => officer.getKey("js", { version: "0".repeat(32) }));
  await refused(403, "Forbidden", "ForbiddenByRbac", /not authorized/, () => service.createRsaKey("js-forbidden"));
  const altered = Uint8Array.from(wrapped.result);
  altered[9] ^= 1;
  await refused(400, "BadParameter", undefined, /OAEP padding/, () => crypto.unwrapKey("RSA-OAEP-256", altered));
  await refused(400, "BadParameter", undefined, /RSA1_5/, () => crypto.unwrapKey("RSA1_5", wrapped.result));
  const made = await officer.createRsaKey("js-wrap-only", { keyOps: ["wrapKey"] });
  const c = new CryptographyClient(made.id, credential("UNWRAPPER"), options);
  await refused(403, "Forbidden", "KeyOperationForbidden", /unwrapKey is not permitted on this key/, () => c.unwrapKey("RSA-OAEP-256", wrapped.result));
});
