// People: who is let in, what they may do, and what is written down of it.

import { createHmac } from 'node:crypto';
import { expect, holdWasm, live, open, test } from '../support/test.js';

/** The code of an authenticator app (RFC 6238) in so many half minutes. */
function code(secret, later = 0) {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret.replace(/=+$/, '')].map((c) => letters.indexOf(c).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + later));
  const mac = createHmac('sha1', key).update(counter).digest();
  const at = mac.at(-1) & 15;
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

async function signIn(page, name, password) {
  await page.goto('/login');
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

test('a colleague is let in, with a role on one machine, and sees no more', async ({ fresh, another, complaints }) => {
  // Her session is ended while her page lives.
  complaints.expected(/401 \(Unauthorized\)/);
  await fresh.signIn();
  await fresh.machine('hers');
  await fresh.machine('others');
  const admin = await (await another({}, fresh)).newPage();
  await open(admin, '/users', 'Users');
  await admin.getByLabel('Name', { exact: true }).fill('eve');
  await admin.getByLabel('Role', { exact: true }).selectOption({ label: 'None' });
  await admin.getByLabel('Password', { exact: true }).fill('correct horse');
  await admin.getByLabel('The same again').fill('correct horse');
  await admin.getByRole('button', { name: 'Add' }).click();
  await expect(admin.getByRole('heading', { level: 1 })).toHaveText('eve');
  await admin.getByLabel('Role', { exact: true }).selectOption('operator');
  await admin.getByLabel('Given on').selectOption('hers');
  await admin.getByRole('button', { name: 'Give the role' }).click();
  await expect(admin.getByRole('listitem').filter({ hasText: 'operator on hers' })).toBeVisible();

  const eve = await (await another({ storageState: undefined }, fresh)).newPage();
  await signIn(eve, 'eve', 'correct horse');
  await expect(eve.getByRole('heading', { level: 1 })).toHaveText('Overview');
  await open(eve, '/vms', 'Virtual machines');
  await expect(eve.getByRole('link', { name: 'hers', exact: true })).toBeVisible();
  await expect(eve.getByText('others')).toBeHidden();
  await expect(eve.getByRole('link', { name: 'Users' })).toBeHidden();
  // What she may not do is there, with the reason.
  await expect(eve.getByRole('link', { name: 'New machine' }).first()).toHaveAccessibleDescription('you lack the privilege vm.create');
  await open(eve, '/vms/hers', 'hers');
  await expect(eve.getByRole('link', { name: 'Clone…', exact: true })).toHaveAccessibleDescription('you lack the privilege clone.create');
  await eve.getByRole('button', { name: 'Pause' }).click();
  await expect(eve.getByText('It is being paused.')).toBeVisible();
  // The sessions of others are seen and ended by who manages users.
  await admin.reload();
  await live(admin);
  await admin.getByRole('button', { name: /^End/ }).click();
  await expect(admin.getByText('Not signed in anywhere.')).toBeVisible();
});

test('two-factor is set up, asked for without WASM too, and a recovery code helps', async ({ fresh, another }) => {
  await fresh.signIn();
  await fresh.call('PUT', '/api/v1/users/admin/password', { password: 'correct horse' });
  const context = await another({ storageState: undefined }, fresh);
  const page = await context.newPage();
  await signIn(page, 'admin', 'correct horse');
  await open(page, '/settings', 'Settings');
  await page.getByRole('button', { name: 'Set up two-factor' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Set up two-factor sign-in');
  await expect(page.getByRole('img', { name: 'The picture for the authenticator app' })).toBeVisible();
  const secret = await page.locator('.secret code').textContent();
  await page.getByLabel('Code').fill('000000');
  await page.getByRole('button', { name: 'Turn it on' }).click();
  await expect(page.getByLabel('Code')).toHaveAccessibleDescription(/It is wrong, or was used already/);
  await page.getByLabel('Code').fill(code(secret, -1));
  await page.getByRole('button', { name: 'Turn it on' }).click();
  await expect(page.getByText('Keep these recovery codes')).toBeVisible();
  const [recovery] = (await page.locator('.secret code').first().textContent()).split(' ');

  const plain = await another({ storageState: undefined, javaScriptEnabled: false }, fresh);
  const second = await plain.newPage();
  await signIn(second, 'admin', 'correct horse');
  await second.getByLabel('Code').fill('1');
  await second.getByRole('button', { name: 'Sign in' }).click();
  await expect(second.getByRole('alert')).toContainText('The code is wrong');
  await second.getByLabel('Code').fill(code(secret));
  await second.getByRole('button', { name: 'Sign in' }).click();
  await expect(second.getByRole('heading', { level: 1 })).toHaveText('Overview');

  const third = await (await another({ storageState: undefined }, fresh)).newPage();
  await signIn(third, 'admin', 'correct horse');
  await third.getByLabel('Code').fill(recovery.toUpperCase());
  await third.getByRole('button', { name: 'Sign in' }).click();
  await expect(third.getByRole('heading', { level: 1 })).toHaveText('Overview');
});

test('a role of one’s own, as a plain page and alive; the audit has it, and can be taken along', async ({ fresh, another }) => {
  await fresh.signIn();
  const page = await (await another({}, fresh)).newPage();
  const release = await holdWasm(page);
  await page.goto('/roles');
  await page.getByLabel('Name', { exact: true }).fill('restarter');
  await page.getByRole('checkbox', { name: 'vm.read' }).check();
  await page.getByRole('button', { name: 'Add' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('restarter');
  release();
  await live(page);
  await page.getByRole('checkbox', { name: 'vm.power' }).check();
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('The role was changed.')).toBeVisible();
  expect((await fresh.call('GET', '/api/v1/roles/restarter')).privileges).toEqual(['vm.read', 'vm.power']);

  await open(page, '/audit?q=roles', 'Audit');
  await expect(page.getByRole('row').filter({ hasText: 'PATCH /api/v1/roles/restarter' })).toContainText('admin');
  const download = page.waitForEvent('download');
  await page.getByRole('link', { name: 'Export CSV' }).click();
  expect((await download).suggestedFilename()).toBe('audit.csv');
});

test('a token is confined to a role and a last day', async ({ fresh, another }) => {
  await fresh.signIn();
  const page = await (await another({}, fresh)).newPage();
  await open(page, '/settings', 'Settings');
  await page.getByLabel('Name of the new token').fill('ci');
  await page.getByLabel('Role', { exact: true }).selectOption('viewer');
  await page.getByLabel('Last day').fill('2999-12-31');
  await page.getByRole('button', { name: 'Make token' }).click();
  const row = page.getByRole('listitem').filter({ hasText: /^ci\b/ });
  await expect(row).toContainText('viewer');
  await expect(row).toContainText('2999-12-31');
});
