// Targets: a directory is added, looked at, cleaned up, changed, detached, and attached again with its copies.

import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accessible } from '../support/look.js';
import { expect, live, open, state, test } from '../support/test.js';

const passphrase = 'correct horse battery';

/** The dialog that adds a directory, filled in. */
async function adding(page, name, path, words = [passphrase, passphrase]) {
  const dialog = page.getByRole('dialog', { name: 'Add a target' });
  await dialog.getByLabel('Name', { exact: true }).fill(name);
  await dialog.getByLabel('Directory', { exact: true }).fill(path);
  await dialog.getByLabel('Passphrase', { exact: true }).fill(words[0]);
  await dialog.getByLabel('Once more').fill(words[1]);
  return dialog;
}

const facts = (page) => page.getByRole('region', { name: 'Target', exact: true });

test('a directory becomes a target, is verified and cleaned up, and says so', async ({ page, server }) => {
  const path = join(server.dir, 'far');
  mkdirSync(path);
  await open(page, '/targets', 'Targets');
  await page.getByRole('link', { name: 'Add a target…' }).first().click();
  const dialog = await adding(page, 'far', path);
  await expect(dialog).toContainText('Write the passphrase down');
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('far');
  await expect(page.getByRole('main').getByRole('status').first()).toHaveText('Can be reached');
  await expect(facts(page)).toContainText(path);
  await expect(facts(page)).toContainText('A second write of a name is');
  await expect(facts(page)).toContainText('Never verified');
  await expect(page.getByText('Nothing was copied there yet.')).toBeVisible();

  await page.getByRole('button', { name: 'Check again' }).click();
  await expect(page.getByText('It was tried again.')).toBeVisible();

  await page.getByRole('link', { name: 'Verify…' }).click();
  const verify = page.getByRole('dialog', { name: 'Verify far' });
  await verify.getByLabel('Percent that are read').fill('50');
  await verify.getByRole('button', { name: 'Verify' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Verify far');
  await expect(state(page)).toHaveText('Succeeded');
  await expect(page.getByRole('region', { name: 'Verified' })).toContainText('All as it was written');

  await open(page, '/targets/far', 'far');
  await expect(facts(page)).toContainText('a sample of 50 %');
  await page.getByRole('link', { name: 'Clean up…' }).click();
  await page.getByRole('dialog', { name: 'Clean up far' }).getByRole('button', { name: 'Clean up' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clean up far');
  await expect(state(page)).toHaveText('Succeeded');
  await expect(page.getByRole('region', { name: 'Cleaned up' })).toContainText('Freed');
});

test('a slip in the passphrase, a short one and a wrong place are refused beside the field', async ({ page, server, complaints }) => {
  complaints.expected(/400 \(Bad Request\)/);
  const path = join(server.dir, 'slips');
  mkdirSync(path);
  await open(page, '/targets?do=add', 'Targets');
  let dialog = await adding(page, 'slips', path, [passphrase, 'correct horse batery']);
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(dialog.getByLabel('Once more')).toHaveAccessibleDescription(/the two passwords differ/i);
  await expect(dialog.getByLabel('Once more')).toBeFocused();
  dialog = await adding(page, 'slips', path, ['short', 'short']);
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(dialog.getByLabel('Passphrase', { exact: true })).toHaveAccessibleDescription(/12 characters at least/);
  dialog = await adding(page, 'slips', 'relative/path');
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(dialog.getByLabel('Directory', { exact: true })).toHaveAccessibleDescription(/no absolute path/);
  await expect(dialog.getByLabel('Directory', { exact: true })).toHaveValue('relative/path');
  expect(readdirSync(path), 'nothing was made').toEqual([]);
});

test('each kind of target has its own fields, by the keyboard too', async ({ page }) => {
  await open(page, '/targets?do=add', 'Targets');
  const dialog = page.getByRole('dialog', { name: 'Add a target' });
  await dialog.getByRole('link', { name: 'S3 bucket' }).focus();
  await page.keyboard.press('Enter');
  await expect(dialog.getByLabel('Its bucket')).toBeVisible();
  await expect(dialog.getByRole('link', { name: 'S3 bucket' })).toHaveAttribute('aria-current', 'true');
  await expect(dialog.getByLabel('Secret key')).toHaveAttribute('type', 'password');
  await accessible(page, 'S3');
  await dialog.getByRole('link', { name: 'Another server' }).click();
  await expect(dialog.getByLabel('Token of that server')).toBeVisible();
  await accessible(page, 'another server');
  await page.keyboard.press('Escape');
  await expect(dialog).toBeHidden();
  await expect(page).toHaveURL(/\/targets$/);
});

test('a target is renamed, limited, detached, and attached again', async ({ page, server, complaints }) => {
  // The feed may tell of the detaching before its own answer comes.
  complaints.expected(/404 \(Not Found\)/);
  const path = join(server.dir, 'moving');
  mkdirSync(path);
  await server.call('POST', '/api/v1/targets', { name: 'moving', local: { path }, passphrase });
  await server.machine('kept-1');
  await server.until(await server.call('POST', '/api/v1/vms/kept-1/copyTasks', { target: 'moving' }), 'SUCCEEDED');
  await open(page, '/targets/moving', 'moving');
  await page.getByRole('link', { name: 'Edit…' }).click();
  const edit = page.getByRole('dialog', { name: 'Edit moving' });
  await edit.getByLabel('Name', { exact: true }).fill('moved');
  await edit.getByLabel('Most MiB a second').fill('64');
  await edit.getByLabel('Copies at once').fill('3');
  await edit.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('moved');
  await expect(facts(page)).toContainText('3 at once · 64 MiB a second at most');

  await page.getByRole('link', { name: 'Detach…' }).click();
  const detach = page.getByRole('dialog', { name: 'Detach moved' });
  await expect(detach).toContainText(`All that is at ${path} stays`);
  await detach.getByRole('button', { name: 'Detach' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Targets');
  await expect(page.getByRole('link', { name: 'moved' })).toHaveCount(0);
  expect(readdirSync(path).length, 'what is there stays').toBeGreaterThan(0);

  await page.getByRole('link', { name: 'Add a target…' }).first().click();
  const dialog = await adding(page, 'again', path, [passphrase, '']);
  await dialog.getByLabel('Take the one that is there').check();
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('again');
  const copies = page.getByRole('region', { name: 'Copies' });
  await expect(copies.getByRole('row').filter({ hasText: 'kept-1' })).toContainText('Not booted yet');
});

test('a target that cannot be reached says why and since when, and is back when it is', async ({ page, server }) => {
  const path = join(server.dir, 'flaky');
  mkdirSync(path);
  await server.call('POST', '/api/v1/targets', { name: 'flaky', local: { path }, passphrase });
  const kept = readdirSync(path);
  rmSync(path, { recursive: true });
  writeFileSync(path, 'a file where the directory was');
  await open(page, '/targets/flaky', 'flaky');
  await page.getByRole('button', { name: 'Check again' }).click();
  await expect(page.getByRole('main').getByRole('status').first()).toHaveText('out of reach');
  await expect(page.getByRole('alert')).toContainText('since');
  await expect(page.getByRole('link', { name: 'Verify…' })).toBeDisabled();
  await open(page, '/targets', 'Targets');
  const row = page.getByRole('listitem').filter({ hasText: 'flaky' });
  await expect(row).toContainText('out of reach');
  expect(kept.length).toBeGreaterThan(0);
});

test('who may only look sees why nothing can be changed', async ({ page, server, another }) => {
  const path = join(server.dir, 'seen');
  mkdirSync(path);
  await server.call('POST', '/api/v1/targets', { name: 'seen', local: { path }, passphrase });
  await server.call('POST', '/api/v1/users', { name: 'tess', password: 'correct horse', role: 'viewer' });
  const theirs = await (await another({ storageState: undefined })).newPage();
  await theirs.goto('/login?next=%2Ftargets');
  await theirs.getByLabel('Name', { exact: true }).fill('tess');
  await theirs.getByLabel('Password').fill('correct horse');
  await theirs.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(theirs.getByRole('heading', { level: 1 })).toHaveText('Targets');
  await live(theirs);
  const add = theirs.getByRole('link', { name: 'Add a target…' }).first();
  await expect(add).toBeDisabled();
  await expect(add).toHaveAccessibleDescription(/target\.manage/);
  await expect(theirs.getByRole('button', { name: 'Check again seen' })).toHaveAccessibleDescription(/target\.manage/);
});

test('a target is added without JavaScript', async ({ server, another }) => {
  const path = join(server.dir, 'plain');
  mkdirSync(path);
  const page = await (await another({ javaScriptEnabled: false })).newPage();
  await page.goto('/targets');
  await page.getByRole('link', { name: 'Add a target…' }).first().click();
  const dialog = await adding(page, 'plain', path);
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('plain');
  await expect(page.getByText('It is added.')).toBeVisible();
});
