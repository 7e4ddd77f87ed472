// The page before it lives, and without ever living.

import { expect, holdWasm, live, open, state, test } from '../support/test.js';

test('a click before the page lives does what the button says', async ({ page, server }) => {
  await server.machine('early');
  const release = await holdWasm(page);
  await page.goto('/vms/early');
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect(page.getByText('It is being paused.')).toBeVisible();
  await expect(page).toHaveURL(/\/vms\/early$/);
  // A dialog is a page of its own until then.
  await page.getByRole('link', { name: 'Snapshot…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Snapshot of early' });
  await dialog.getByLabel('Name', { exact: true }).fill('plain');
  await dialog.getByRole('button', { name: 'Take snapshot' }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByText('The snapshot is being taken.')).toBeVisible();
  // Then the page comes alive, whatever has happened meanwhile.
  release();
  await live(page);
  await expect(page.getByRole('list', { name: 'Snapshots' })).toContainText('plain');
  await expect(page.getByRole('button', { name: 'Resume' })).toBeVisible();
});

test('a link clicked while the page comes alive leads where it says', async ({ page, complaints }) => {
  // The page that is left cannot load the rest of itself.
  complaints.expected(/Failed to fetch|aborted|load callback|unreachable/);
  let release;
  const held = new Promise((resolve) => (release = resolve));
  // The frame is alive, the list in it is not yet.
  await page.route(/split_.*\.wasm$/, async (route) => {
    await held;
    await route.continue().catch(() => {});
  });
  const asked = page.waitForRequest(/split_.*\.wasm$/);
  await page.goto('/vms', { waitUntil: 'commit' });
  await asked;
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Overview' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Overview');
  release();
  await live(page);
});

test('a page that misses a part of itself is loaded again, once', async ({ page, complaints }) => {
  complaints.expected(/404|WebAssembly|load callback|unreachable/);
  let loads = 0;
  page.on('load', () => (loads += 1));
  // As from a server of another version.
  await page.route(/split_.*\.wasm$/, (route) => route.fulfill({ status: 404 }), { times: 1 });
  await page.goto('/vms');
  await live(page);
  expect(loads).toBe(2);

  await page.route(/split_.*\.wasm$/, (route) => route.fulfill({ status: 404 }));
  await page.goto('/jobs');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Jobs');
  expect(loads).toBeLessThanOrEqual(4);
});

test('what needs a living page is not offered before', async ({ page }) => {
  const release = await holdWasm(page);
  await page.goto('/vms');
  const search = page.getByRole('button', { name: /Search or run a command/ });
  await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
  await expect(search).toBeHidden();
  release();
  await live(page);
  await search.click();
  await expect(page.getByRole('dialog', { name: 'Search or run a command' })).toBeVisible();
});

test('a form sent before the page lives comes back with its error and what was typed', async ({ page, server, complaints }) => {
  complaints.expected(/409 \(Conflict\)/);
  await server.machine('early-form');
  const release = await holdWasm(page);
  await page.goto('/vms/new');
  await page.getByLabel('Name', { exact: true }).fill('early-form');
  await page.getByLabel('Processors').fill('3');
  await page.getByRole('button', { name: 'Make machine' }).click();
  await expect(page.getByRole('alert')).toContainText('early-form');
  await expect(page.getByLabel('Processors')).toHaveValue('3');
  release();
  await live(page);
  await expect(page.getByRole('alert')).toContainText('early-form');
  await expect(page.getByLabel('Processors')).toHaveValue('3');
});

test.describe('without JavaScript', () => {
  test.use({ javaScriptEnabled: false });

  test('every page has its content', async ({ page, server }) => {
    await server.machine('plain-src');
    const id = (await server.until(await server.clone('plain-src', 'plain-copy'), 'SUCCEEDED')).id;
    const main = page.getByRole('main');
    const pages = {
      '/': ['Overview', 'Clone plain-src to plain-copy'],
      '/vms': ['Virtual machines', 'plain-copy'],
      '/vms/new': ['New machine', 'Make machine'],
      '/vms/plain-src': ['plain-src', 'first'],
      '/vms/plain-src/clone': ['Clone plain-src', 'What will happen'],
      '/jobs': ['Jobs', 'Clone plain-src to plain-copy'],
      [`/jobs/${id}`]: ['Clone plain-src to plain-copy', 'Agent answered'],
      '/settings': ['Settings', 'tests'],
    };
    for (const [path, [heading, text]] of Object.entries(pages)) {
      await page.goto(path);
      await expect(main.getByRole('heading', { level: 1 })).toHaveText(heading);
      await expect(main).toContainText(text);
      await expect(main).not.toContainText('Loading');
    }
  });

  test('the whole way can be gone with forms alone', async ({ fresh, another }) => {
    await fresh.signIn();
    const page = await (await another({ javaScriptEnabled: false }, fresh)).newPage();
    await page.goto('/vms');
    await page.getByRole('main').getByRole('link', { name: 'New machine' }).first().click();
    await page.getByLabel('Name', { exact: true }).fill('forms');
    await page.getByRole('button', { name: 'Make machine' }).click();
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('Make forms');
    await fresh.until({ id: page.url().split('/').pop() }, 'SUCCEEDED');
    await page.goto('/vms/forms?do=snapshot');
    await page.getByLabel('Name', { exact: true }).fill('by-form');
    await page.getByRole('button', { name: 'Take snapshot' }).click();
    await expect(page.getByText('The snapshot is being taken.')).toBeVisible();
    await page.goto('/vms/forms/clone?source=now');
    await page.getByLabel('Name', { exact: true }).fill('forms-copy');
    await page.getByRole('button', { name: 'Clone forms' }).click();
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clone forms to forms-copy');
    await fresh.until({ id: page.url().split('/').pop() }, 'SUCCEEDED');
    await page.reload();
    await expect(state(page)).toHaveText('Succeeded');
    await page.goto('/vms?q=forms-copy&sort=name');
    await expect(page.getByRole('row')).toHaveCount(2);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('Sign in');
  });
});

test('a table is searched, ordered and acted upon from its address', async ({ page, server }) => {
  for (const name of ['table-a', 'table-b', 'table-c']) await server.machine(name);
  await open(page, '/vms?q=table-&sort=name%20desc', 'Virtual machines');
  const names = page.getByRole('row').getByRole('link', { name: /^table-/ });
  await expect(names).toHaveText(['table-c', 'table-b', 'table-a']);
  await page.getByRole('link', { name: 'Name', exact: true }).click();
  await expect(names.first()).toBeVisible();
  await expect(page).not.toHaveURL(/sort=/);
  await page.getByRole('searchbox', { name: 'Filter' }).fill('table-b');
  await expect(names).toHaveText(['table-b']);
  await expect(page).toHaveURL(/q=table-b/);
  await page.getByRole('searchbox', { name: 'Filter' }).fill('table-');
  await expect(names).toHaveCount(3);
  await page.getByRole('checkbox', { name: 'Select table-a' }).check();
  await page.getByRole('checkbox', { name: 'Select table-c' }).check();
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect(page.getByText('2 accepted.')).toBeVisible();
  for (const [name, word] of [['table-a', 'Paused'], ['table-b', 'Running'], ['table-c', 'Paused']]) {
    await expect(page.getByRole('row', { name: new RegExp(name) })).toContainText(word);
  }
});
