// The whole way once, with guests that really run.

import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/server.js';
import { expect, open, state, test } from '../support/test.js';

/** The picture has come: the browser could decode it. */
const drawn = (picture) =>
  eventually(() => picture.evaluate((img) => img.complete && img.naturalWidth), 'the picture is drawn').toBeGreaterThan(300);

test('a machine boots, a snapshot is taken, its clone boots and proves it', async ({ page, server }) => {
  await open(page, '/vms/new', 'New machine');
  await page.getByLabel('Name', { exact: true }).fill('web-1');
  await page.getByLabel('Memory, in MiB').fill('128');
  await page.getByRole('button', { name: 'Make machine' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Make web-1');
  await expect(state(page)).toHaveText('Succeeded', { timeout: 60_000 });

  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Virtual machines' }).click();
  await page.getByRole('main').getByRole('link', { name: 'web-1', exact: true }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('web-1');
  await expect(page.getByText('Running').first()).toBeVisible();
  const screen = page.getByRole('img', { name: 'Screen of web-1' });
  await drawn(screen);
  // The guest counts on its screen, and the console shows it as it goes: one picture after the other.
  const seen = new Set();
  const pictures = async () => {
    seen.add((await screen.screenshot()).toString('base64'));
    return seen.size;
  };
  await eventually(pictures, 'the picture is a live one').toBeGreaterThan(2);
  await expect(page.getByRole('region', { name: 'Screen' })).toContainText('live');
  await drawn(screen);

  await page.getByRole('link', { name: 'Snapshot…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Snapshot of web-1' });
  await dialog.getByLabel('Name', { exact: true }).fill('before-upgrade');
  await dialog.getByRole('button', { name: 'Take snapshot' }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByText('The snapshot is being taken.')).toBeVisible();
  const tree = page.getByRole('list', { name: 'Snapshots' });
  // Taken once the guest agent has frozen the file systems, which needs the guest to be up.
  await expect(tree.getByRole('listitem').filter({ hasText: 'before-upgrade' })).toContainText(/frozen|no agent/, { timeout: 30_000 });

  await page.getByRole('link', { name: 'Clone…', exact: true }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clone web-1');
  await expect(page.getByLabel('From', { exact: true })).toContainText('Latest snapshot (before-upgrade)');
  await page.getByLabel('Name', { exact: true }).fill('web-1-test');
  await page.getByRole('button', { name: 'Clone web-1' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clone web-1 to web-1-test');
  await expect(state(page)).toHaveText('Succeeded', { timeout: 90_000 });
  const proof = page.getByRole('region', { name: 'Proof' });
  await expect(proof).toContainText('Agent answered');
  await expect(proof).toContainText(/Booted in \d+(\.\d+)? s/);
  await drawn(proof.getByRole('img', { name: 'Screen of web-1-test' }));
  await page.screenshot({ path: 'artifacts/real-clone-job.png', fullPage: true });

  // What the server knows says the same.
  const { jobs } = await server.call('GET', '/api/v1/jobs?filter=kind%3DCLONE_VM');
  expect(jobs).toHaveLength(1);
  expect(jobs[0].outcome.proof.strength).toBe('AGENT');

  // The clone knows where it comes from, and the source what came of it; both run.
  await page.getByRole('region', { name: 'Target' }).getByRole('link', { name: 'web-1-test' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('web-1-test');
  await drawn(page.getByRole('img', { name: 'Screen of web-1-test' }));
  await page.screenshot({ path: 'artifacts/real-clone.png', fullPage: true });
  const lineage = page.getByRole('group', { name: /^web-1-test comes from .*web-1/ });
  await lineage.getByRole('link', { name: 'web-1' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('web-1');
  await expect(page.getByRole('group', { name: /of it came web-1-test/ })).toBeVisible();
  await expect(page.getByText('Running').first()).toBeVisible();
  await page.screenshot({ path: 'artifacts/real-vm.png', fullPage: true });

  // Power off the clone; its screen goes, its page says why.
  await page.goto('/vms/web-1-test');
  await page.getByRole('button', { name: 'Power off' }).click();
  await expect(page.getByText('There is nothing to see while the machine is off.')).toBeVisible();
});

/** Nonce and number of each whole tick that a machine's serial port has. */
async function ticks(server, name) {
  const { id } = await server.call('GET', `/api/v1/vms/${name}`);
  const log = readFileSync(join(server.data, 'run', id, 'serial.log'), 'latin1');
  return [...log.matchAll(/nonce=(\w{16}) tick=(\d+) host=(\S+)\r/g)].map(([, nonce, tick, host]) => ({ nonce, tick: +tick, host }));
}

test('a running machine is forked, and both go on from the same number', async ({ page, server, another }) => {
  await server.machine('counter');
  await eventually(async () => (await ticks(server, 'counter')).length, 'the guest counts').toBeGreaterThan(5);
  await open(page, '/vms/counter', 'counter');
  await page.getByRole('link', { name: 'Instant clone…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Instant clone of counter' });
  await dialog.getByLabel('Names').fill('counter-a, counter-b');
  await dialog.getByText('More', { exact: true }).click();
  await dialog.getByLabel('Keep as a fork point').check();
  await dialog.getByLabel('Name of the fork point').fill('counting');
  await dialog.getByRole('button', { name: 'Fork' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Fork counter 2 times');
  await expect(state(page)).toHaveText('Succeeded', { timeout: 60_000 });
  const clones = page.getByRole('region', { name: 'Clones' });
  for (const name of ['counter-a', 'counter-b']) {
    await expect(clones.getByRole('row', { name: new RegExp(name) })).toContainText('by its hook');
  }
  await drawn(page.getByRole('region', { name: 'Proof' }).getByRole('img'));
  await page.screenshot({ path: 'artifacts/real-fork-job.png', fullPage: true });

  // The same boot, the same moment; each with a name of its own from then on.
  const [source, a, b] = [await ticks(server, 'counter'), await ticks(server, 'counter-a'), await ticks(server, 'counter-b')];
  expect(a[0].nonce).toBe(source[0].nonce);
  expect([b[0].nonce, b[0].tick]).toEqual([a[0].nonce, a[0].tick]);
  expect(a.at(-1).host).toBe('counter-a');
  expect(b.at(-1).host).toBe('counter-b');
  for (const all of [source, a, b]) {
    expect(all.every((t, n) => n === 0 || t.tick === all[n - 1].tick + 1), 'no tick is missing').toBe(true);
  }

  // Both screens count on, side by side.
  const other = await (await another()).newPage();
  await open(other, '/vms/counter', 'counter');
  await clones.getByRole('link', { name: 'counter-a' }).click();
  for (const [tab, name] of [[page, 'counter-a'], [other, 'counter']]) {
    const screen = tab.getByRole('img', { name: `Screen of ${name}` });
    await drawn(screen);
    const seen = new Set();
    const pictures = async () => {
      seen.add((await screen.screenshot()).toString('base64'));
      return seen.size;
    };
    await eventually(pictures, `${name} goes on`).toBeGreaterThan(2);
  }
  const family = other.getByRole('region', { name: 'Memory of its family' });
  await expect(family.getByRole('listitem').filter({ hasText: 'counter-a' })).toContainText(/own · \d+(\.\d+)? MiB shared/);
  await other.screenshot({ path: 'artifacts/real-family.png', fullPage: true });

  // The instant that was kept is forked once more; then it cannot be deleted, for three stand on it.
  const points = other.getByRole('region', { name: 'Fork points' });
  await expect(points).toContainText('2 stand on it');
  await points.getByRole('button', { name: 'Fork counting' }).click();
  await expect(state(other)).toHaveText('Succeeded', { timeout: 60_000 });
  await other.goBack();
  await expect(points).toContainText('3 stand on it');
  await expect(points.getByRole('button', { name: 'Delete counting' })).toHaveAttribute('aria-disabled', 'true');
});

test('a copy is booted from where it is, and its files are fetched', async ({ page, server }) => {
  test.setTimeout(600_000);
  const path = join(server.dir, 'vault');
  mkdirSync(path);
  await server.call('POST', '/api/v1/targets', { name: 'vault', local: { path }, passphrase: 'correct horse battery' });
  await server.machine('kept');
  const task = await server.call('POST', '/api/v1/vms/kept/copyTasks', { target: 'vault', snapshot: 'first' });
  const { outcome } = await server.until(task, 'SUCCEEDED');
  await open(page, `/copies/${outcome.copy.copy}`, 'Copy of kept');
  await page.getByRole('link', { name: 'Boot to see…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Boot it' }).click();
  await expect(state(page)).toHaveText('Succeeded', { timeout: 180_000 });
  await page.goto(`/copies/${outcome.copy.copy}`);
  await expect(page.getByRole('main').getByRole('status').first()).toContainText(/Booted in \d/);
  await page.screenshot({ path: 'artifacts/real-copy.png', fullPage: true });

  await page.getByRole('link', { name: 'Browse files' }).click();
  const systems = page.getByRole('region', { name: 'File systems' });
  const boot = systems.getByRole('listitem').filter({ hasText: 'BOOT' });
  // A kernel is booted for it, which takes its time.
  await expect(boot).toContainText('vfat', { timeout: 240_000 });
  await boot.getByRole('link').click();
  await page.getByRole('link', { name: 'EFI/', exact: true }).click();
  await page.getByRole('link', { name: 'BOOT/', exact: true }).click();
  await page.screenshot({ path: 'artifacts/real-files.png', fullPage: true });
  const coming = page.waitForEvent('download');
  await page.getByRole('link', { name: 'Download syslinux.cfg' }).click();
  const fetched = readFileSync(await (await coming).path(), 'utf8');
  expect(fetched).toContain('root=LABEL=offshoot-root');
});
