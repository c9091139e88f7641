// Runs the public client, as it is published, through all it can do with
// objects, against the server at RUNLOOP_BASE_URL with RUNLOOP_API_KEY. Each
// step prints its name when it holds; the first that does not ends the run.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import zlib from 'node:zlib';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { Runloop, RunloopSDK } = require('@runloop/api-client');
const installed = new URL('node_modules/@runloop/api-client/package.json', import.meta.url);
assert.equal(JSON.parse(await fs.readFile(installed)).version, '1.32.0');

const sdk = new RunloopSDK(); // key and address from the environment, HTTP/2 by default
const objects = sdk.api.objects;
const tmp = await fs.mkdtemp(path.join(os.tmpdir(), 'sdktest-'));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// A signed URL must not reach the output, so failures name the step only.
async function step(name, f) {
  try {
    await f();
  } catch (err) {
    console.error(`FAILED: ${name}\n${String(err?.stack ?? err).replace(/\?[^\s"']*/g, '?…')}`);
    process.exit(1);
  }
  console.log(`ok: ${name}`);
}

async function refused(promise, type, status, pattern) {
  const err = await promise.then(() => assert.fail('it was not refused'), (err) => err);
  assert.ok(err instanceof type, `${err?.constructor?.name}: ${err}`);
  assert.equal(err.status, status);
  assert.match(err.message, pattern);
}

await step('uploadFromText', async () => {
  const o = await sdk.storageObject.uploadFromText('hällo\n', 'hello.txt', { metadata: { kind: 'text' } });
  const info = await o.getInfo();
  assert.match(info.id, /^obj_[0-9A-Za-z]{21}$/);
  assert.equal(info.id, o.id);
  assert.deepEqual(
    [info.name, info.content_type, info.state, info.size_bytes, info.metadata],
    ['hello.txt', 'text', 'READ_ONLY', 7, { kind: 'text' }],
  );
  assert.ok(Math.abs(info.create_time_ms - Date.now()) < 60_000);
  assert.equal(await o.downloadAsText(), 'hällo\n');
});

await step('uploadFromText of nothing, without metadata', async () => {
  const o = await sdk.storageObject.uploadFromText('', 'empty.txt');
  assert.equal((await o.getInfo()).size_bytes, 0);
  assert.equal(await o.downloadAsText(), '');
});

await step('uploadFromFile: the content type by extension', async () => {
  const gz = zlib.gzipSync('compressed');
  for (const [name, type] of [
    ['a.txt', 'text'], ['a.json', 'text'], ['a.md', 'text'], ['a.csv', 'text'], ['a.gz', 'gzip'],
    ['a.tar', 'tar'], ['a.tgz', 'tgz'], ['a.tar.gz', 'tgz'], ['a.bin', 'unspecified'], ['a', 'unspecified'],
  ]) {
    const file = path.join(tmp, name);
    await fs.writeFile(file, gz);
    const o = await sdk.storageObject.uploadFromFile(file, name);
    assert.equal((await o.getInfo()).content_type, type, name);
    // The client would inflate anything that came with Content-Encoding.
    assert.deepEqual(await o.downloadAsBuffer(), gz, name);
  }
  const o = await sdk.storageObject.uploadFromFile(path.join(tmp, 'a.gz'), 'named otherwise', { contentType: 'binary', metadata: { a: '1' } });
  const info = await o.getInfo();
  assert.deepEqual([info.name, info.content_type, info.metadata], ['named otherwise', 'binary', { a: '1' }]);
});

await step('uploadFromBuffer', async () => {
  const bytes = Buffer.alloc(5_000_000, 'äbc\0');
  const o = await sdk.storageObject.uploadFromBuffer(bytes, 'b.bin', 'binary', { metadata: { a: '1' } });
  assert.equal((await o.getInfo()).size_bytes, bytes.length);
  assert.ok((await o.downloadAsBuffer()).equals(bytes));
});

await step('uploadFromDir, with .dockerignore', async () => {
  const dir = path.join(tmp, 'dir');
  await fs.mkdir(path.join(dir, 'sub'), { recursive: true });
  await fs.writeFile(path.join(dir, 'keep.txt'), 'kept');
  await fs.writeFile(path.join(dir, 'sub', 'keep.sh'), '#!/bin/sh\n', { mode: 0o755 });
  await fs.writeFile(path.join(dir, 'drop.log'), 'dropped');
  await fs.symlink('keep.txt', path.join(dir, 'link'));
  await fs.writeFile(path.join(dir, '.dockerignore'), '*.log\n');
  const o = await sdk.storageObject.uploadFromDir(dir, { name: 'dir-obj', ttl_ms: 3_600_000 });
  const info = await o.getInfo();
  assert.deepEqual([info.content_type, info.state], ['tgz', 'READ_ONLY']);
  assert.equal(info.delete_after_time_ms, info.create_time_ms + 3_600_000);
  const tar = zlib.gunzipSync(await o.downloadAsBuffer()).toString('latin1');
  for (const kept of ['./keep.txt', './sub/keep.sh', './link']) assert.ok(tar.includes(kept), kept);
  assert.ok(!tar.includes('drop.log'));
});

await step('create, uploadContent, complete', async () => {
  const o = await sdk.storageObject.create({ name: 'manual.txt', content_type: 'text', metadata: { k: 'v' }, ttl_ms: 60_000 });
  assert.equal((await o.getInfo()).state, 'UPLOADING');
  await o.uploadContent('manual content');
  await o.complete();
  assert.equal(await sdk.storageObject.fromId(o.id).downloadAsText(), 'manual content');
  const start = Date.now();
  await refused(o.complete(), Runloop.ConflictError, 409, /UPLOADING/);
  assert.ok(Date.now() - start < 5_000, 'a conflict that lasts was retried');
});

await step('complete and delete with an empty body', async () => {
  const view = await objects.create({ name: 'raw', content_type: 'binary' });
  const put = await fetch(view.upload_url, { method: 'PUT', body: 'raw content' });
  assert.equal(put.status, 200);
  assert.equal((await objects.complete(view.id)).state, 'READ_ONLY');
  assert.equal((await objects.delete(view.id)).state, 'DELETED');
});

await step('list, page by page', async () => {
  const made = [];
  for (let i = 0; i < 7; i++) made.unshift((await sdk.storageObject.uploadFromText(`${i}`, `paged-${i}`)).id);
  const seen = [];
  for await (const o of objects.list({ limit: 2, name: 'paged-' })) seen.push(o.id);
  assert.deepEqual(seen, made);
  const page = await objects.list({ limit: 3, name: 'paged-' });
  assert.deepEqual([page.objects.length, page.has_more, page.total_count], [3, true, 7]);
  const filtered = await objects.list({
    limit: 3, name: 'paged-3', search: made[3], content_type: 'text', state: 'READ_ONLY', include_total_count: false,
  });
  assert.deepEqual(filtered.objects.map((o) => o.id), [made[3]]);
  const listed = await sdk.storageObject.list({ limit: 2 });
  assert.deepEqual(listed.map((o) => o.id), made.slice(0, 2));
  assert.ok((await objects.list()).objects.length <= 20);
});

await step('listPublic', async () => {
  // is_public is accepted by create, but the client's types do not know it.
  const view = await objects.create({ name: 'for-all', content_type: 'text', is_public: true });
  await fetch(view.upload_url, { method: 'PUT', body: 'x' });
  await objects.complete(view.id);
  const ids = [];
  for await (const o of objects.listPublic({ limit: 20 })) ids.push(o.id);
  assert.deepEqual(ids, [view.id]);
});

await step('getDownloadUrl, until it expires', async () => {
  const o = await sdk.storageObject.uploadFromText('for a second', 'brief.txt');
  const { download_url } = await o.getDownloadUrl(1);
  const during = await fetch(download_url);
  assert.deepEqual([during.status, await during.text()], [200, 'for a second']);
  let after;
  for (let i = 0; i < 100; i++) {
    after = await fetch(download_url);
    if (after.status !== 200) break;
    await after.arrayBuffer();
    await sleep(100);
  }
  assert.deepEqual([after.status, (await after.json()).code], [403, 'url_expired']);
  const long = await fetch((await o.getDownloadUrl(3600)).download_url);
  assert.equal(await long.text(), 'for a second');
});

await step('delete', async () => {
  const o = await sdk.storageObject.uploadFromText('short-lived', 'gone.txt');
  await o.delete();
  assert.equal((await o.getInfo()).state, 'DELETED');
  await refused(o.getDownloadUrl(), Runloop.BadRequestError, 400, /deleted/);
  await o.delete();
  assert.deepEqual((await objects.list({ search: o.id })).objects, []);
});

await step('refusals', async () => {
  await refused(objects.retrieve('obj_000000000000000000000'), Runloop.NotFoundError, 404, /^404 there is no object/);
  await refused(objects.create({ name: 'x', content_type: 'text/csv' }), Runloop.BadRequestError, 400, /^400 content_type/);
  const stranger = new RunloopSDK({ bearerToken: 'not-a-key' });
  await refused(stranger.api.objects.list(), Runloop.AuthenticationError, 401, /^401 the API key/);
});

await step('many calls at once', async () => {
  const all = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
    const o = await sdk.storageObject.uploadFromText(`content ${i}`, `many-${i}`);
    return o.downloadAsText();
  }));
  assert.deepEqual(all, Array.from({ length: 40 }, (_, i) => `content ${i}`));
});

await fs.rm(tmp, { recursive: true });
console.log('done');
process.exit(0); // the client keeps its connections
