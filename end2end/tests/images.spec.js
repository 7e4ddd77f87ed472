// Images: a real upload, halted and broken off; by address and by path; renamed, deleted, made of snapshots, exported.

import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, holdWasm, open, state, test } from '../support/test.js';

/** A raw disk with a boot sector. */
function disk(mib) {
  const bytes = Buffer.alloc(mib << 20, 0x5a);
  bytes.set([0x55, 0xaa], 510);
  return bytes;
}

/** The dialog that uploads, filled in; with these bytes, or a file. */
async function upload(page, name, bytes) {
  await open(page, '/images?do=upload', 'Images');
  const dialog = page.getByRole('dialog', { name: 'Upload' });
  await dialog.getByLabel('Name', { exact: true }).fill(name);
  const file = typeof bytes === 'string' ? bytes : { name: 'disk.img', mimeType: 'application/octet-stream', buffer: bytes };
  await dialog.getByLabel('File', { exact: true }).setInputFiles(file);
  return dialog;
}

const list = (page) => page.getByRole('region', { name: 'Images', exact: true });

test('a file is uploaded, paused, gone on with over a break, and becomes an image', async ({ page, server, complaints }) => {
  complaints.expected(/Failed to load resource/);
  const dialog = await upload(page, 'uploaded', disk(8));
  // The first part is held; then one breaks.
  let arrived;
  const first = new Promise((resolve) => (arrived = resolve));
  let release;
  const held = new Promise((resolve) => (release = resolve));
  let parts = 0;
  await page.route(/\/content\?offset=/, async (route) => {
    parts += 1;
    if (parts === 1) {
      arrived();
      await held;
    }
    await (parts === 3 ? route.abort('connectionreset') : route.continue());
  });
  await dialog.getByRole('button', { name: 'Upload' }).click();
  await first;
  await dialog.getByRole('button', { name: 'Pause' }).click();
  release();
  await expect(dialog.getByRole('status')).toContainText('Paused at 1 MiB of 8 MiB');
  const { uploads } = await server.call('GET', '/api/v1/uploads');
  expect(uploads.map((u) => u.receivedBytes)).toEqual([1 << 20]);

  await dialog.getByRole('button', { name: 'Go on' }).click();
  await expect(dialog.getByRole('status')).toContainText('It has arrived');
  expect(parts, 'one broke off and was sent again').toBeGreaterThan(3);
  await dialog.getByRole('link', { name: 'See the job' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Import image uploaded');
  await expect(state(page)).toHaveText('Succeeded');
  const image = await server.call('GET', '/api/v1/images/uploaded');
  expect(image.virtualBytes).toBe(8 << 20);
});

test('an upload that was left is gone on with, or discarded', async ({ page, server }) => {
  const bytes = disk(2);
  const file = join(server.dir, 'left.img');
  writeFileSync(file, bytes);
  const fingerprint = `left.img ${Math.floor(statSync(file).mtimeMs)}`;
  const begun = await server.call('POST', '/api/v1/uploads', { name: 'left', sizeBytes: bytes.length, fingerprint });
  await fetch(`${server.url}/api/v1/uploads/${begun.id}/content?offset=0`, {
    method: 'PATCH',
    headers: { authorization: `Bearer ${server.token}` },
    body: bytes.subarray(0, 1 << 20),
  });
  await server.call('POST', '/api/v1/uploads', { name: 'unwanted', sizeBytes: 10 });
  await open(page, '/images', 'Images');
  const unfinished = page.getByRole('region', { name: 'Unfinished uploads' });
  await expect(unfinished.getByRole('listitem').filter({ hasText: 'left' })).toContainText('1.00 / 2.00 MiB');
  await unfinished.getByRole('button', { name: 'Discard unwanted' }).click();
  await expect(unfinished.getByText('unwanted')).toHaveCount(0);

  const dialog = await upload(page, 'left', file);
  const offsets = [];
  page.on('request', (r) => r.method() === 'PATCH' && offsets.push(new URL(r.url()).searchParams.get('offset')));
  await dialog.getByRole('button', { name: 'Upload' }).click();
  await expect(dialog.getByRole('status')).toContainText('It has arrived');
  expect(offsets[0]).toBe(String(1 << 20));
  await dialog.getByRole('link', { name: 'Close' }).click();
  await expect(list(page).getByRole('listitem').filter({ hasText: 'left' })).toContainText('2 MiB');
});

test('what is no image is refused, with the reason, and leaves nothing', async ({ page, server }) => {
  const dialog = await upload(page, 'text', Buffer.from('hello, world'));
  await dialog.getByRole('button', { name: 'Upload' }).click();
  await dialog.getByRole('link', { name: 'See the job' }).click();
  await expect(state(page)).toHaveText('Failed');
  await expect(page.getByRole('main')).toContainText('its format is not known');
  const { uploads } = await server.call('GET', '/api/v1/uploads?filter=name=text');
  expect(uploads).toEqual([]);
});

test('an address and a path are refused where they may not be, beside the field', async ({ page, server }) => {
  await open(page, '/images?do=path', 'Images');
  let dialog = page.getByRole('dialog', { name: 'From the host' });
  await dialog.getByLabel('Name', { exact: true }).fill('passwd');
  await dialog.getByLabel('Path on the host').fill('/etc/passwd');
  await dialog.getByRole('button', { name: 'Import' }).click();
  await expect(dialog.getByRole('alert')).toContainText('image_roots');

  await open(page, '/images?do=url', 'Images');
  dialog = page.getByRole('dialog', { name: 'From the web' });
  await dialog.getByLabel('Name', { exact: true }).fill('own');
  await dialog.getByLabel('Address', { exact: true }).fill(`${server.url}/healthz`);
  await dialog.getByRole('button', { name: 'Fetch' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Import image own');
  await expect(state(page)).toHaveText('Failed');
  await expect(page.getByRole('main')).toContainText('no public address');
});

test('a snapshot becomes an image, which makes machines, and is renamed and deleted', async ({ page, server }) => {
  await server.machine('source-1');
  await open(page, '/vms/source-1?do=image', 'source-1');
  let dialog = page.getByRole('dialog', { name: 'Make an image of a snapshot of source-1' });
  await dialog.getByLabel('Name', { exact: true }).fill('golden');
  await dialog.getByRole('button', { name: 'Make an image' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Make image golden of source-1');
  await expect(state(page)).toHaveText('Succeeded');

  await open(page, '/vms/new', 'New machine');
  await expect(page.getByLabel('Image', { exact: true }).getByRole('option', { name: /^golden / })).toHaveCount(1);

  await open(page, '/images', 'Images');
  const row = list(page).getByRole('listitem').filter({ hasText: 'golden' });
  await row.getByRole('link', { name: 'Rename…' }).click();
  dialog = page.getByRole('dialog', { name: 'Rename' });
  await dialog.getByLabel('Name', { exact: true }).fill('golden-2');
  await dialog.getByRole('button', { name: 'Rename' }).click();
  await expect(dialog).toBeHidden();
  await expect(list(page).getByText('golden-2')).toBeVisible();
  await row.getByRole('link', { name: 'Delete…' }).click();
  dialog = page.getByRole('dialog', { name: 'Delete image' });
  await expect(dialog).toContainText('Delete image golden-2');
  await dialog.getByRole('button', { name: 'Delete image' }).click();
  await expect(dialog).toBeHidden();
  await expect(list(page).getByText('golden-2')).toHaveCount(0);
});

test('a disk is exported and downloaded', async ({ page, server }) => {
  await server.machine('source-2');
  await open(page, '/vms/source-2?do=export', 'source-2');
  const dialog = page.getByRole('dialog', { name: 'Export a disk of source-2' });
  await dialog.getByLabel('Format').selectOption('RAW');
  await dialog.getByRole('button', { name: 'Export' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Export disk 0 of source-2');
  await expect(state(page)).toHaveText('Succeeded');

  await open(page, '/images', 'Images');
  const exported = page.getByRole('region', { name: 'Exported disks' });
  const coming = page.waitForEvent('download');
  await exported.getByRole('link', { name: 'Download source-2-first-0.img' }).click();
  const download = await coming;
  expect(download.suggestedFilename()).toBe('source-2-first-0.img');
  expect(readFileSync(await download.path()).length).toBeGreaterThan(0);
  await exported.getByRole('button', { name: 'Remove source-2-first-0.img' }).click();
  await expect(exported.getByText('source-2-first-0.img')).toHaveCount(0);
});

test('before the page is alive the upload says that it waits for it', async ({ page }) => {
  const release = await holdWasm(page);
  await page.goto('/images?do=upload');
  const dialog = page.getByRole('dialog', { name: 'Upload' });
  const button = dialog.getByRole('button', { name: 'Upload' });
  await expect(dialog.getByText('Uploading needs JavaScript')).toBeVisible();
  await expect(button).toHaveAttribute('aria-disabled', 'true');
  release();
  await expect(button).not.toHaveAttribute('aria-disabled');
  await expect(dialog.getByText('Uploading needs JavaScript')).toHaveCount(0);
});
