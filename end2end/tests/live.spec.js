// What changes is seen, by everybody, whatever happens to the page, the link or the server.

import { expect, live, open, state, test } from '../support/test.js';

const lost = (page) => expect(page.getByRole('navigation', { name: 'Main' }).getByText('Link lost')).toBeVisible({ timeout: 20_000 });

test('what one does, another sees at once', async ({ page, server, another }) => {
  await server.machine('live-src');
  const other = await (await another()).newPage();
  await open(other, '/vms', 'Virtual machines');
  await open(page, '/vms/live-src', 'live-src');
  const row = other.getByRole('row', { name: /live-src/ });
  await expect(row).toContainText('Running');
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect(row).toContainText('Paused');
  await expect(page.getByRole('button', { name: 'Resume' })).toBeVisible();
  await page.getByRole('button', { name: 'Power off' }).click();
  await expect(row).toContainText('Stopped');
  const nic = page.getByText(/52:54:00/).locator('..');
  await nic.getByRole('button', { name: /^Disconnect 52:54/ }).click();
  await expect(nic).toContainText('not connected');
  await nic.getByRole('button', { name: /^Connect 52:54/ }).click();
  await expect(nic).not.toContainText('not connected');

  // A new machine comes into the list, and goes.
  await server.machine('live-new', false);
  await expect(other.getByRole('row', { name: /live-new/ })).toBeVisible();
  await server.call('DELETE', '/api/v1/vms/live-new');
  await expect(other.getByRole('row', { name: /live-new/ })).toHaveCount(0);

  // And a snapshot taken elsewhere stands in the tree.
  await server.snapshot('live-src', 'second');
  await expect(page.getByRole('list', { name: 'Snapshots' })).toContainText('second');
});

test('reloaded in the middle, a job goes on where it is', async ({ page, server }) => {
  await server.machine('reload-src');
  const name = 'wait-at-preparing-vm-disks-reload';
  const id = await server.untilAt(await server.clone('reload-src', name), 'preparing-vm-disks');
  await open(page, `/jobs/${id}`, `Clone reload-src to ${name}`);
  await expect(state(page)).toHaveText('Preparing VM disks');
  await page.reload();
  await expect(state(page)).toHaveText('Preparing VM disks');
  await server.release(name);
  // Whether the page lives already or not: it shows the end.
  await expect(state(page)).toHaveText('Succeeded');
  await expect(page.getByRole('region', { name: 'Log' })).toContainText('kernel has started');
});

test('the server is restarted in the middle: the page says so, and recovers by itself', async ({ fresh, another, complaints }) => {
  complaints.expected(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|503 /);
  await fresh.signIn();
  await fresh.machine('web-1');
  const name = 'wait-at-instantiating-restart';
  const id = await fresh.untilAt(await fresh.clone('web-1', name), 'instantiating');
  const context = await another({}, fresh);
  const [page, list] = [await context.newPage(), await context.newPage()];
  await open(list, '/vms', 'Virtual machines');
  await open(page, `/jobs/${id}`, `Clone web-1 to ${name}`);
  await fresh.stop();
  for (const tab of [page, list]) await lost(tab);
  // The last good data stay.
  await expect(state(page)).toHaveText('Instantiating');
  await expect(list.getByRole('row', { name: /web-1/ }).first()).toContainText('Running');
  // Also when they have been asked for again, in vain.
  for (const _ of [1, 2]) await page.waitForEvent('requestfailed', (r) => r.url().includes('/log'));
  await expect(state(page)).toHaveText('Instantiating');

  await fresh.startAgain();
  for (const tab of [page, list]) await live(tab);
  await fresh.untilAt({ id }, 'instantiating');
  await fresh.release(name);
  await expect(state(page)).toHaveText('Succeeded');
  await expect(list.getByRole('row', { name: new RegExp(name) })).toContainText('Running');
});

test('a server that falls silent is noticed, also on a small screen', async ({ fresh, another }) => {
  await fresh.signIn();
  const page = await (await another({ viewport: { width: 390, height: 844 } }, fresh)).newPage();
  await open(page, '/vms', 'Virtual machines');
  fresh.process.kill('SIGSTOP');
  await lost(page);
  await expect(page.getByText('Link lost')).toBeInViewport({ ratio: 1 });
  fresh.process.kill('SIGCONT');
  await live(page);
  await fresh.machine('after');
  await expect(page.getByRole('row', { name: /after/ })).toBeVisible();
});

test('eight tabs live, and go on when the one that listens is closed', async ({ context, server }) => {
  await server.machine('tabs-src');
  const name = 'wait-at-preparing-vm-disks-tabs';
  const id = await server.untilAt(await server.clone('tabs-src', name), 'preparing-vm-disks');
  const tabs = await Promise.all(Array.from({ length: 8 }, () => context.newPage()));
  await Promise.all(tabs.map((tab) => open(tab, `/jobs/${id}`)));
  for (const tab of tabs) await expect(state(tab)).toHaveText('Preparing VM disks');
  await tabs.shift().close();
  await server.release(name);
  for (const tab of tabs) await expect(state(tab)).toHaveText('Succeeded');
  // Each in turn is the one that listens.
  await tabs[0].goto('/vms');
  for (const n of [1, 2, 3]) {
    await tabs.pop().close();
    await server.machine(`tabs-${n}`, false);
    await expect(tabs[0].getByRole('row', { name: new RegExp(`tabs-${n}`) })).toBeVisible();
  }
});
