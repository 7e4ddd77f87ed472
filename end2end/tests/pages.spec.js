// Every page: it comes alive from its address without a complaint, in both themes and on a small screen; axe finds
// nothing; and a picture of each is kept in artifacts/.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { accessible, fitsThumb } from '../support/look.js';
import { eventually } from '../support/server.js';
import { expect, holdWasm, live, state, test as base } from '../support/test.js';

const test = base.extend({
  /** What there is to see: machines in several states, and a job of each end. */
  house: [
    async ({ server }, use) => {
      await server.machine('web-1');
      await server.snapshot('web-1', 'before-upgrade');
      await server.machine('db-1', false);
      await server.machine('queue-1');
      await server.until(await server.call('POST', '/api/v1/vms/queue-1/pause', {}), 'SUCCEEDED');
      const done = await server.until(await server.clone('web-1', 'web-1-test'), 'SUCCEEDED');
      const fork = await server.call('POST', '/api/v1/vms/web-1/instantClones', { names: ['web-1-a', 'web-1-b'], keepPoint: true });
      await server.until(fork, 'SUCCEEDED');
      const full = await server.clone('web-1', 'web-1-full', { mode: 'FULL', snapshot: 'first' });
      await server.until(full, 'SUCCEEDED');
      const failed = await server.until(await server.clone('web-1', 'fail-at-preparing-vm-disks-house'), 'FAILED');
      const cancelled = await server.untilAt(await server.clone('web-1', 'wait-at-instantiating-house'), 'instantiating');
      await server.call('POST', `/api/v1/jobs/${cancelled}/cancel`, {});
      await server.until({ id: cancelled }, 'CANCELLED');
      const waiting = await server.untilAt(await server.clone('web-1', 'wait-at-preparing-vm-disks-house'), 'preparing-vm-disks');
      await server.call('POST', '/api/v1/users', { name: 'vera', password: 'correct horse', role: 'viewer' });
      await server.call('POST', '/api/v1/users/vera/grants', { role: 'operator', vm: 'web-1' });
      await server.call('POST', '/api/v1/roles', { name: 'auditor', description: 'Looks at the audit', privileges: ['audit.read'] });
      await server.call('POST', '/api/v1/me/twoFactor', {});
      await server.ask('POST', '/api/v1/vms/none/start', {});
      await server.call('POST', '/api/v1/uploads', { name: 'half', sizeBytes: 1 << 20 });
      // A name that is nobody's: the test is not taken.
      const hook = { name: 'ops', kind: 'WEBHOOK', url: 'https://hook.invalid/a-rather-long-address/of-a-receiver' };
      await server.call('POST', '/api/v1/noticeChannels', hook);
      await server.call('POST', '/api/v1/noticeChannels/ops/test', {});
      const exported = { format: 'QCOW2', snapshot: 'first' };
      await server.until(await server.call('POST', '/api/v1/vms/web-1/exports', exported), 'SUCCEEDED');
      const path = join(server.dir, 'house');
      mkdirSync(path);
      await server.call('POST', '/api/v1/targets', { name: 'vault-1', local: { path }, passphrase: 'correct horse battery' });
      const task = await server.call('POST', '/api/v1/vms/web-1/copyTasks', { target: 'vault-1', snapshot: 'first', boot: true });
      const copying = await server.until(task, 'SUCCEEDED');
      const copy = copying.outcome.copy.copy;
      const verified = await server.until(await server.call('POST', '/api/v1/targets/vault-1/verify', {}), 'SUCCEEDED');
      const policy = { name: 'nightly', schedule: { cron: '@daily' }, vms: ['web-1'], label: 'tier=gold', targets: ['vault-1'], retention: { daily: 7 } };
      await server.call('POST', '/api/v1/policies', policy);
      await server.call('POST', '/api/v1/sources', { name: 'here', local: {} });
      const moving = async (name, sourceVm, states) => {
        const asked = { name, source: 'here', sourceVm, target: 'vault-1', targetDefaults: { name: `${sourceVm}-moved` }, group: 'wave-1' };
        await server.call('POST', '/api/v1/migratingVms', asked);
        for (const [action, state] of states) {
          if (action) await server.call('POST', `/api/v1/migratingVms/${name}/${action}`, {});
          await eventually(async () => (await server.call('GET', `/api/v1/migratingVms/${name}`)).state, name).toBe(state);
        }
      };
      await server.machine('old-1');
      await moving('db-move', 'db-1', [[null, 'READY']]);
      await moving('web-move', 'web-1', [[null, 'READY'], ['start', 'ACTIVE']]);
      await moving('old-move', 'old-1', [[null, 'READY'], ['start', 'ACTIVE'], ['cutoverJobs', 'CUTOVER']]);
      await server.until(await server.call('POST', '/api/v1/migratingVms/web-move/cloneJobs', { target: { name: 'web-1-try' }, keepHours: 24 }), 'SUCCEEDED');
      const { cutoverJobs } = await server.call('GET', '/api/v1/migratingVms/old-move/cutoverJobs');
      const { id: snapshot } = await server.call('GET', '/api/v1/vms/web-1/snapshots/before-upgrade');
      await use({ fork: fork.id, done: done.id, failed: failed.id, cancelled, waiting, snapshot, copy, copied: task.id, verified: verified.id, cutover: cutoverJobs[0].id });
    },
    { scope: 'worker', timeout: 60_000 },
  ],
});

// What moves is at its end at once: a colour half-way is not the page's.
test.use({ contextOptions: { reducedMotion: 'reduce' } });

const pages = {
  overview: ['/', 'Overview'],
  machines: ['/vms', 'Virtual machines'],
  'machines-none': ['/vms?q=nothing-like-this', 'Virtual machines'],
  'new-machine': ['/vms/new', 'New machine'],
  machine: ['/vms/web-1', 'web-1'],
  'machine-off': ['/vms/db-1', 'db-1'],
  'machine-paused': ['/vms/queue-1', 'queue-1'],
  'machine-snapshot': ['/vms/web-1?do=snapshot', 'web-1'],
  'machine-revert': ['/vms/web-1?do=revert&snapshot={snapshot}', 'web-1'],
  'machine-delete-snapshot': ['/vms/web-1?do=delete-snapshot&snapshot={snapshot}', 'web-1'],
  'machine-fork': ['/vms/web-1?do=fork', 'web-1'],
  'machine-delete': ['/vms/db-1?do=delete', 'db-1'],
  'console-screen': ['/vms/web-1/console', 'Console of web-1'],
  'console-serial': ['/vms/web-1/console?view=serial', 'Console of web-1'],
  'console-paused': ['/vms/queue-1/console', 'Console of queue-1'],
  'console-off': ['/vms/db-1/console', 'Console of db-1'],
  'new-clone': ['/vms/web-1/clone', 'Clone web-1'],
  'new-clone-refused': ['/vms/db-1/clone', 'Clone db-1'],
  'fork-points': ['/fork-points', 'Fork points'],
  'machine-edit': ['/vms/web-1/edit', 'Edit web-1'],
  'machine-shutdown': ['/vms/web-1?do=shutdown', 'web-1'],
  hosts: ['/hosts', 'Hosts'],
  storages: ['/storages', 'Storages'],
  networks: ['/networks', 'Networks'],
  images: ['/images', 'Images'],
  'images-upload': ['/images?do=upload', 'Images'],
  'images-url': ['/images?do=url', 'Images'],
  'images-rename': ['/images?do=rename&image=demo', 'Images'],
  'images-delete': ['/images?do=delete&image=demo', 'Images'],
  'machine-image': ['/vms/web-1?do=image', 'web-1'],
  'machine-export': ['/vms/web-1?do=export', 'web-1'],
  'machine-copy': ['/vms/web-1?do=copy', 'web-1'],
  copies: ['/copies', 'Copies'],
  'copies-none': ['/copies?q=nothing-like-this', 'Copies'],
  copy: ['/copies/{copy}', 'Copy of web-1'],
  'copy-restore': ['/copies/{copy}?do=restore', 'Copy of web-1'],
  'copy-restore-over': ['/copies/{copy}?do=restore&way=over', 'Copy of web-1'],
  'copy-restore-disks': ['/copies/{copy}?do=restore&way=disks', 'Copy of web-1'],
  'copy-restore-file': ['/copies/{copy}?do=restore&way=file', 'Copy of web-1'],
  'copy-boot': ['/copies/{copy}?do=boot', 'Copy of web-1'],
  'copy-delete': ['/copies/{copy}?do=delete', 'Copy of web-1'],
  'copy-files': ['/copies/{copy}/files', 'Files of web-1'],
  targets: ['/targets', 'Targets'],
  'targets-add': ['/targets?do=add', 'Targets'],
  'targets-add-s3': ['/targets?do=add&way=s3', 'Targets'],
  'targets-add-remote': ['/targets?do=add&way=remote', 'Targets'],
  target: ['/targets/vault-1', 'vault-1'],
  'target-edit': ['/targets/vault-1?do=edit', 'vault-1'],
  'target-verify': ['/targets/vault-1?do=verify', 'vault-1'],
  'target-detach': ['/targets/vault-1?do=detach', 'vault-1'],
  policies: ['/policies', 'Policies'],
  'policy-new': ['/policies/new', 'New policy'],
  policy: ['/policies/nightly', 'nightly'],
  'policy-edit': ['/policies/nightly/edit', 'Edit nightly'],
  'policy-delete': ['/policies/nightly?do=delete', 'nightly'],
  migrations: ['/migrations', 'Migration'],
  'migrations-none': ['/migrations?group=nothing-like-this', 'Migration'],
  'migrations-add-source': ['/migrations?do=add-source', 'Migration'],
  'migration-new': ['/migrations/new', 'Carry a machine over'],
  'migration-ready': ['/migrations/db-move', 'db-move'],
  migration: ['/migrations/web-move', 'web-move'],
  'migration-clone': ['/migrations/web-move?do=clone', 'web-move'],
  'migration-cutover': ['/migrations/web-move?do=cutover', 'web-move'],
  'migration-over': ['/migrations/old-move', 'old-move'],
  'migration-finalize': ['/migrations/old-move?do=finalize', 'old-move'],
  'migration-delete': ['/migrations/old-move?do=delete', 'old-move'],
  'migration-edit': ['/migrations/web-move/edit', 'Edit web-move'],
  'migration-group': ['/migration-groups/wave-1', 'wave-1'],
  'migration-group-cutover': ['/migration-groups/wave-1?do=cutover', 'wave-1'],
  source: ['/sources/here', 'here'],
  jobs: ['/jobs', 'Jobs'],
  'job-cutover': ['/jobs/{cutover}', 'Cut old-move over'],
  'job-copy': ['/jobs/{copied}', 'Copy web-1 to vault-1'],
  'job-verify': ['/jobs/{verified}', 'Verify vault-1'],
  'job-running': ['/jobs/{waiting}', /^Clone web-1 to /],
  'job-cancel': ['/jobs/{waiting}?do=cancel', /^Clone web-1 to /],
  'job-failed': ['/jobs/{failed}', /^Clone web-1 to /],
  'job-cancelled': ['/jobs/{cancelled}', /^Clone web-1 to /],
  'job-done': ['/jobs/{done}', 'Clone web-1 to web-1-test'],
  'job-fork': ['/jobs/{fork}', 'Fork web-1 2 times'],
  settings: ['/settings', 'Settings'],
  'two-factor': ['/settings/two-factor', 'Set up two-factor sign-in'],
  users: ['/users', 'Users'],
  user: ['/users/vera', 'vera'],
  roles: ['/roles', 'Roles'],
  role: ['/roles/auditor', 'auditor'],
  'role-built-in': ['/roles/operator', 'operator'],
  audit: ['/audit', 'Audit'],
  notices: ['/notices', 'Notices'],
  'notices-of-one': ['/notices?of=ops', 'Notices'],
  'not-found': ['/nowhere', 'Not found', 404],
  'no-such-machine': ['/vms/nowhere', 'Not found', 404],
};

const theme = (context, url, value) => context.addCookies([{ name: 'theme', value, url }]);
const picture = (page, name) => page.screenshot({ path: `artifacts/${name}.png`, fullPage: true });

for (const [name, [path, heading, status = 200]] of Object.entries(pages)) {
  test(`${name}: alive, accessible in both themes, usable from 390 px`, async ({ page, context, server, house, complaints }) => {
    if (status === 404) complaints.expected(/404 \(Not Found\)/);
    const to = path.replace(/\{(\w+)\}/, (_, job) => house[job]);
    const dialog = page.getByRole('dialog');
    for (const colours of ['dark', 'light']) {
      await theme(context, server.url, colours);
      expect((await page.goto(to)).status()).toBe(status);
      await expect(page.getByRole('heading', { level: 1, includeHidden: true })).toHaveText(heading);
      await expect(page).toHaveTitle(/ · Offshoot$/);
      await expect(page.getByText('Live', { exact: true }).first()).toBeVisible();
      if (to.includes('?do=')) await expect(dialog).toBeVisible();
      await picture(page, `${name}-${colours}`);
      await accessible(page, colours);
    }
    await page.setViewportSize({ width: 390, height: 844 });
    await picture(page, `${name}-390`);
    await fitsThumb(page, name);
    await accessible(page, 'small');
  });
}

test('sign-in: accessible in both themes, usable from 390 px', async ({ another, server }) => {
  const context = await another({ storageState: undefined });
  const page = await context.newPage();
  for (const colours of ['dark', 'light']) {
    await theme(context, server.url, colours);
    await page.goto('/login');
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('Sign in');
    await accessible(page, colours);
    await picture(page, `sign-in-${colours}`);
  }
  await page.setViewportSize({ width: 390, height: 844 });
  await fitsThumb(page, 'sign-in');
  await picture(page, 'sign-in-390');
});

test('the palette and the keys are accessible in both themes', async ({ page, context, server, house }) => {
  for (const colours of ['dark', 'light']) {
    await theme(context, server.url, colours);
    await page.goto('/');
    await live(page);
    await page.keyboard.press('Control+k');
    await page.keyboard.type('web-1');
    await expect(page.getByRole('option', { name: 'Clone web-1…' })).toBeVisible();
    await accessible(page, `palette, ${colours}`);
    await picture(page, `palette-${colours}`);
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await expect(page.getByRole('dialog', { name: 'Keys' })).toBeVisible();
    await accessible(page, `keys, ${colours}`);
    await picture(page, `keys-${colours}`);
  }
});

test('the description of the API is readable', async ({ page }) => {
  await page.goto('/api/docs');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Offshoot API');
  await accessible(page, 'docs');
  await picture(page, 'api-docs');
  await page.setViewportSize({ width: 390, height: 844 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect(wide).toBeLessThanOrEqual(0);
});

test.describe('themes', () => {
  // A system that is light, and a person who wants it dark.
  test.use({ colorScheme: 'light' });

  const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

  test('the chosen theme is there from the first picture, without a flash', async ({ page, context, server }) => {
    await page.goto('/settings');
    await live(page);
    const light = await ground(page);
    await page.getByRole('button', { name: 'Dark' }).click();
    await expect.poll(() => ground(page)).not.toBe(light);
    const dark = await ground(page);

    // Every colour that the page ever had, from the first on.
    await page.addInitScript(() => {
      window.seen = new Set();
      const look = () => {
        if (document.body) window.seen.add(getComputedStyle(document.body).backgroundColor);
        requestAnimationFrame(look);
      };
      look();
    });
    const release = await holdWasm(page);
    await page.goto('/settings');
    await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
    expect(await ground(page)).toBe(dark);
    release();
    await live(page);
    await page.getByRole('link', { name: 'Jobs' }).click();
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('Jobs');
    expect(await page.evaluate(() => [...window.seen])).toEqual([dark]);

    // And back to what the system says.
    await page.goto('/settings');
    await live(page);
    await page.getByRole('button', { name: 'As the system' }).click();
    await expect.poll(() => ground(page)).toBe(light);
    await page.emulateMedia({ colorScheme: 'dark' });
    await expect.poll(() => ground(page)).toBe(dark);
  });
});

test('nothing moves when the page comes alive, and digits do not jump', async ({ page, house }) => {
  await page.addInitScript(() => {
    window.shift = 0;
    const add = (list) => list.getEntries().forEach((e) => (window.shift += e.value));
    new PerformanceObserver(add).observe({ type: 'layout-shift', buffered: true });
  });
  for (const path of ['/', '/vms', '/vms/web-1', `/jobs/${house.waiting}`, `/jobs/${house.done}`]) {
    await page.goto(path);
    await live(page);
    // The clock of the page goes on for a while.
    const since = await page.evaluate(() => performance.now());
    await page.waitForFunction((t) => performance.now() > t + 1500, since);
    expect(await page.evaluate(() => window.shift), path).toBeLessThanOrEqual(0.05);
  }
  await page.goto(`/jobs/${house.waiting}`);
  await live(page);
  await expect(state(page)).toHaveText('Preparing VM disks');
});
