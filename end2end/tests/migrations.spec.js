// Migration: a source is added, a machine of it is carried over, uploaded in cycles, tried as a clone, cut over, finalized.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { accessible, fitsThumb } from '../support/look.js';
import { eventually } from '../support/server.js';
import { expect, live, open, state, test as base } from '../support/test.js';

const test = base.extend({
  /** A target, and this server as a source. */
  here: [
    async ({ server }, use) => {
      const path = join(server.dir, 'moved');
      mkdirSync(path);
      await server.call('POST', '/api/v1/targets', { name: 'moved', local: { path }, passphrase: 'correct horse battery' });
      await server.call('POST', '/api/v1/sources', { name: 'here', local: {} });
      await use('here');
    },
    { scope: 'worker', auto: true },
  ],
});

// What moves is at its end at once: a colour half-way is not the page's.
test.use({ contextOptions: { reducedMotion: 'reduce' } });

const h1 = (page) => page.getByRole('heading', { level: 1 });
const region = (page, name) => page.getByRole('region', { name, exact: true });
const cycles = (page) => region(page, 'Cycles').getByRole('row').filter({ hasText: /^Cycle \d/ });

/** Waits for the state of a migration; answers it. */
async function until(server, name, wanted) {
  let now;
  const look = async () => (now = await server.call('GET', `/api/v1/migratingVms/${name}`)).state;
  await eventually(look, `migration ${name}`).toBe(wanted);
  return now;
}

/** A machine that runs, and its migration, ready to be started. */
async function ready(server, vm, more = {}) {
  await server.machine(vm);
  const name = `${vm}-new`;
  const asked = { name, source: 'here', sourceVm: vm, target: 'moved', ...more };
  await server.call('POST', '/api/v1/migratingVms', asked);
  await until(server, name, 'READY');
  return name;
}

/** The same, uploaded once. */
async function active(server, vm, more) {
  const name = await ready(server, vm, more);
  await server.call('POST', `/api/v1/migratingVms/${name}/start`, {});
  await until(server, name, 'ACTIVE');
  return name;
}

test('a source is added, shows what it has, and one of its machines is carried over', async ({ page, server }) => {
  await server.machine('carry-1');
  await open(page, '/migrations', 'Migration');
  await page.getByRole('link', { name: 'Add a source…' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'Add a source' });
  await dialog.getByLabel('Name', { exact: true }).fill('again');
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(h1(page)).toHaveText('again');
  const row = page.getByRole('row').filter({ hasText: 'carry-1' });
  await expect(row).toContainText('Running');
  await expect(row).toContainText('128 MiB');
  await accessible(page, 'what it has');
  await row.getByRole('link', { name: 'Carry over…' }).click();

  await expect(h1(page)).toHaveText('Carry a machine over');
  await expect(page.getByLabel('Name', { exact: true })).toHaveValue('carry-1-new');
  await page.getByLabel('Name', { exact: true }).fill('carry');
  await page.getByLabel('Name of the new machine').fill('carry-1-moved');
  await page.getByLabel('Target', { exact: true }).selectOption('moved');
  await page.getByLabel('Rest between cycles, in seconds').fill('600');
  await page.getByLabel('Processors').fill('2');
  await page.getByLabel('Group').fill('wave-1');
  await accessible(page, 'the form');
  await page.getByRole('button', { name: 'Carry it over' }).click();
  await expect(h1(page)).toHaveText('carry');
  await expect(state(page)).toHaveText('Ready');
  const about = region(page, 'Migration');
  await expect(about).toContainText('carry-1 · again');
  await expect(about).toContainText('10 min');
  await expect(region(page, 'What it becomes')).toContainText('carry-1-moved');

  await open(page, '/sources/again', 'again');
  await expect(page.getByRole('row').filter({ hasText: 'carry-1' })).toContainText('is carried over');
  const remove = page.getByRole('button', { name: 'Remove source' });
  await expect(remove).toBeDisabled();
  await expect(remove).toHaveAccessibleDescription(/machines are carried over from it: 1/);
});

test('what is wrong stands where it was typed', async ({ page, server, complaints }) => {
  complaints.expected(/400 \(Bad Request\)/);
  await server.machine('wrong-1');
  const { id } = await server.call('GET', '/api/v1/vms/wrong-1');
  await open(page, `/migrations/new?source=here&vm=${id}`, 'Carry a machine over');
  const rest = page.getByLabel('Rest between cycles, in seconds');
  // The browser would not let it go: what it lets go is the server's to say.
  await rest.evaluate((field) => field.removeAttribute('min'));
  await rest.fill('1');
  await page.getByRole('button', { name: 'Carry it over' }).click();
  await expect(rest).toHaveAttribute('aria-invalid', 'true');
  await expect(rest).toBeFocused();
  await expect(rest).toHaveValue('1');
});

test('what was asked is changed, and what no field shows stays', async ({ page, server }) => {
  const name = await ready(server, 'edit-1', { targetDefaults: { cpus: 4, labels: { tier: 'gold' } } });
  await open(page, `/migrations/${name}`, name);
  await page.getByRole('link', { name: 'Edit…' }).click();
  await expect(page.getByLabel('Processors')).toHaveValue('4');
  await page.getByLabel('Processors').fill('2');
  await page.getByLabel('Network', { exact: true }).selectOption('isolated');
  await page.getByLabel('Group').fill('wave-2');
  await page.getByLabel('Rest between cycles, in seconds').fill('90');
  await accessible(page, 'the form');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(h1(page)).toHaveText(name);
  const now = await server.call('GET', `/api/v1/migratingVms/${name}`);
  expect([now.group, now.policy.idleSeconds, now.targetDefaults.cpus]).toEqual(['wave-2', 90, 2]);
  expect(now.targetDefaults.labels).toEqual({ tier: 'gold' });
  expect(now.targetDefaults.networkInterfaces).toHaveLength(1);
  await page.getByRole('link', { name: 'Edit…' }).click();
  await expect(page.getByLabel('Network', { exact: true })).toHaveValue('isolated');
});

test('what changes while a page is still loading is on it', async ({ page, server }) => {
  const name = await ready(server, 'late-1');
  await open(page, '/migrations', 'Migration');
  await page.evaluate(() => {
    globalThis.heard = new Promise((heard) => {
      const feed = new BroadcastChannel('offshoot-feed');
      feed.onmessage = ({ data }) => data.startsWith('migratingVm\n') && heard();
    });
  });
  const path = `/api/v1/migratingVms/${name}`;
  await page.route(`**${path}`, async (route) => {
    const before = await route.fetch();
    await server.call('PATCH', path, { group: 'of-late' });
    await page.evaluate(() => globalThis.heard);
    await route.fulfill({ response: before });
  }, { times: 1 });
  await page.getByRole('link', { name }).first().click();
  await expect(h1(page)).toHaveText(name);
  await expect(page.getByRole('main').getByText('of-late', { exact: true }).first()).toBeVisible();
});

test('a directory that may not be read is said where it was typed', async ({ page, complaints }) => {
  complaints.expected(/400 \(Bad Request\)/);
  await open(page, '/migrations?do=add-source', 'Migration');
  const dialog = page.getByRole('dialog', { name: 'Add a source' });
  await dialog.getByLabel('Name', { exact: true }).fill('exports');
  await dialog.getByLabel('Kind').selectOption('disks');
  await dialog.getByLabel('Directory').fill('/etc');
  await dialog.getByRole('button', { name: 'Add it' }).click();
  await expect(dialog.getByLabel('Directory')).toHaveAttribute('aria-invalid', 'true');
  await expect(dialog).toContainText('image_roots');
});

test('the board has each machine where it stands, and follows it', async ({ page, server }) => {
  const name = await ready(server, 'board-1', { group: 'board' });
  await ready(server, 'board-2', { group: 'other' });
  await open(page, '/migrations?group=board', 'Migration');
  await expect(page.getByRole('combobox', { name: 'Group' })).toHaveValue('board');
  const card = (column) => region(page, column).getByRole('listitem').filter({ hasText: name });
  await expect(card('Waiting')).toContainText('Ready');
  await expect(card('Waiting')).toContainText('board-1 at here → moved');
  await expect(card('Waiting')).toContainText('not uploaded yet');
  await expect(page.getByRole('link', { name: 'board-2-new' })).toHaveCount(0);
  await server.call('POST', `/api/v1/migratingVms/${name}/start`, {});
  await expect(card('Uploading')).toContainText('Kept up to date');
  await expect(card('Uploading')).toContainText('behind');
  await expect(card('Uploading')).toContainText('next cycle in');
  await expect(card('Waiting')).toHaveCount(0);
  await accessible(page, 'the board');
  await page.setViewportSize({ width: 390, height: 844 });
  await fitsThumb(page, 'the board');
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.getByRole('combobox', { name: 'Group' }).selectOption('');
  await expect(page.getByRole('link', { name: 'board-2-new' })).toBeVisible();
  await page.getByRole('searchbox', { name: 'Filter' }).fill('nothing-like-this');
  await expect(page.getByText('No machine fits the filter.')).toBeVisible();
});

test('a migration is started, its cycles are seen, and it is paused and resumed', async ({ page, server }) => {
  const vm = 'wait-at-copying-cycles';
  const name = await ready(server, vm);
  await open(page, `/migrations/${name}`, name);
  await expect(region(page, 'Cycles')).toContainText('There was no cycle yet');
  await expect(page.getByRole('link', { name: 'Cut over…' })).toHaveAccessibleDescription(/nothing of .* is uploaded yet/);
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByText('Its first upload begins.')).toBeVisible();
  await expect(state(page)).toHaveText('First upload');
  await expect(region(page, 'Cycles')).toContainText('Uploading');
  await expect(page.getByRole('button', { name: 'Start' })).toHaveAccessibleDescription(/is started already/);
  await server.release(vm);
  await expect(state(page)).toHaveText('Kept up to date');
  await expect(cycles(page)).toHaveCount(1);
  await expect(cycles(page).first()).toContainText('Succeeded');
  await expect(region(page, 'Cycles').getByRole('img')).toHaveAccessibleName(/cycle by cycle/);

  // With the keyboard alone.
  await page.getByRole('button', { name: 'Cycle now' }).focus();
  await page.keyboard.press('Enter');
  await expect(cycles(page)).toHaveCount(2);
  await expect(cycles(page).first()).toContainText('Cycle 2');
  await expect(cycles(page).first()).toContainText('Succeeded');
  await accessible(page, 'cycles');
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect(state(page)).toHaveText('Paused');
  await expect(page.getByRole('button', { name: 'Cycle now' })).toHaveAccessibleDescription(/resume it instead/);
  await page.getByRole('button', { name: 'Resume' }).click();
  await expect(state(page)).toHaveText('Kept up to date');

  await cycles(page).last().getByRole('link', { name: 'Cycle 1' }).click();
  await expect(h1(page)).toHaveText(`Copy ${vm} to moved`);
  await page.getByRole('link', { name: 'Cycle 1' }).click();
  await expect(h1(page)).toHaveText(name);
});

test('a cycle that fails says why on the board and on its page', async ({ page, server }) => {
  const name = await ready(server, 'fail-at-copying-cycles');
  await server.call('POST', `/api/v1/migratingVms/${name}/start`, {});
  await open(page, `/migrations/${name}`, name);
  await expect(region(page, 'What went wrong')).toContainText('failed in a row');
  await expect(region(page, 'What went wrong')).toContainText('The next cycle tries it again by itself.');
  await expect(cycles(page).first()).toContainText('Failed');
  await open(page, '/migrations', 'Migration');
  await expect(page.getByRole('listitem').filter({ hasText: name })).toContainText('failed in a row');
});

test('a test clone is made, looked at, and judged', async ({ page, server }) => {
  const name = await active(server, 'try-1');
  await open(page, `/migrations/${name}`, name);
  const clones = region(page, 'Test clones');
  await expect(clones).toContainText('No test clone yet.');
  await clones.getByRole('link', { name: 'Test clone…' }).click();
  const dialog = page.getByRole('dialog', { name: `Test clone of ${name}` });
  await expect(dialog.getByLabel('In the isolated network')).toBeChecked();
  await dialog.getByLabel('Name of the test clone').fill('try-1-clone');
  await dialog.getByLabel('Keep it for, in hours').fill('24');
  await accessible(page, 'the dialog');
  await dialog.getByRole('button', { name: 'Make test clone' }).click();
  await expect(page.getByText('The test clone is being made.')).toBeVisible();
  const row = clones.getByRole('listitem');
  await expect(row).toContainText('Succeeded');
  await expect(row).toContainText('kept until');
  await expect(row.getByRole('link', { name: 'Screen' })).toHaveAttribute('href', /\/console$/);
  await row.getByLabel('Note on try-1-clone').fill('it answers');
  await row.getByRole('button', { name: 'Did not pass' }).click();
  await expect(row).toContainText('it answers');
  await row.getByLabel('Note on try-1-clone').fill('it answers now');
  await row.getByRole('button', { name: 'Passed' }).click();
  await expect(row).toContainText('it answers now');
  await accessible(page, 'a test clone');
  await page.setViewportSize({ width: 390, height: 844 });
  for (const toast of await page.getByRole('button', { name: 'Dismiss' }).all()) await toast.click();
  await fitsThumb(page, 'a test clone');
  await row.getByRole('link', { name: 'try-1-clone' }).click();
  await expect(h1(page)).toHaveText('try-1-clone');
});

test('a machine is cut over after a rehearsal, and finalized', async ({ page, server, complaints }) => {
  // The feed may tell of the removal before its own answer comes.
  complaints.expected(/404 \(Not Found\)/);
  const name = await active(server, 'last-1');
  await open(page, `/migrations/${name}`, name);
  const cutover = region(page, 'Cutover');
  const steps = cutover.getByRole('list', { name: 'What will happen' }).getByRole('listitem');
  const starts = steps.filter({ hasText: 'last-1-new is started' });
  await expect(steps.filter({ hasText: 'last-1 is asked to shut down' })).toContainText('not measured yet');
  await expect(steps.filter({ hasText: 'is uploaded to moved' })).toContainText('about');
  await expect(steps.filter({ hasText: 'Point of no return' })).toContainText('nothing is taken back');
  await expect(steps.last()).toContainText('last-1 stays off');
  await expect(starts).toContainText('not measured yet');
  const clone = await server.call('POST', `/api/v1/migratingVms/${name}/cloneJobs`, { target: { name: 'last-1-try' } });
  await server.until(clone, 'SUCCEEDED');
  await expect(starts).toContainText('about');
  await expect(page.getByRole('link', { name: 'Finalize…' })).toHaveAccessibleDescription(/is not cut over yet/);

  await cutover.getByRole('link', { name: 'Cut over…' }).click();
  const dialog = page.getByRole('dialog', { name: `Cut ${name} over` });
  await expect(dialog).toContainText('last-1 is shut down now.');
  await expect(dialog.getByLabel('Name of the new machine')).toHaveValue(name);
  await expect(dialog.getByLabel('Power off after, in seconds')).toHaveValue('120');
  await dialog.getByLabel('Power off after, in seconds').fill('5');
  await accessible(page, 'the dialog');
  await dialog.getByRole('button', { name: 'Cut over now' }).click();
  await expect(page.getByText('It is being cut over.')).toBeVisible();
  await expect(state(page)).toHaveText('Cut over');
  await expect(cutover).toContainText(/It was off for .*\./);
  await expect(cutover.getByRole('link', { name })).toBeVisible();
  expect((await server.call('GET', '/api/v1/vms/last-1')).state).toBe('STOPPED');
  expect((await server.call('GET', '/api/v1/vms/last-1-new')).state).toBe('RUNNING');
  await open(page, '/migrations', 'Migration');
  await expect(region(page, 'Over').getByRole('listitem').filter({ hasText: name })).toContainText('See the machine');

  await open(page, `/migrations/${name}`, name);
  await cutover.getByRole('link', { name: 'See the job' }).click();
  await expect(h1(page)).toHaveText(`Cut ${name} over`);
  await expect(page.getByRole('list').filter({ hasText: 'Uploading what changed last' })).toContainText('Shutting the source down');
  await expect(region(page, 'Figures')).toContainText("off, from the source's end to the new machine");

  await open(page, `/migrations/${name}?do=finalize`, name);
  const finalize = page.getByRole('dialog', { name: `Finalize ${name}` });
  await expect(finalize).toContainText('its uploads at moved');
  await finalize.getByRole('button', { name: 'Finalize' }).click();
  await expect(state(page)).toHaveText('Finalized');
  await page.getByRole('link', { name: 'Delete…' }).click();
  await page.getByRole('dialog', { name: `Delete ${name}` }).getByRole('button', { name: 'Delete migration' }).click();
  await expect(h1(page)).toHaveText('Migration');
  await expect(page.getByRole('link', { name })).toHaveCount(0);
  expect((await server.call('GET', '/api/v1/vms/last-1-new')).state, 'the new machine stays').toBe('RUNNING');
});

test('a group is asked as one, and cut over wave by wave', async ({ page, server, complaints }) => {
  complaints.expected(/409|400|412/);
  const group = 'shop';
  const names = [];
  for (const [vm, wave] of [['shop-db', 1], ['shop-web', 2]]) {
    names.push(await ready(server, vm, { group, wave }));
  }
  await open(page, '/migrations', 'Migration');
  const groups = region(page, 'Groups');
  await expect(groups).toContainText('0 of 2 run where they were to go');
  await groups.getByRole('link', { name: group, exact: true }).click();
  await expect(h1(page)).toHaveText(group);
  const act = page.getByRole('form', { name: 'For all of them' });
  await act.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByText('It is asked of each of them.')).toBeVisible();
  for (const wave of [1, 2]) await expect(region(page, `Wave ${wave}`)).toContainText('Kept up to date');
  await accessible(page, 'a group');

  // What one of them refuses is said, and the other does it.
  await server.call('POST', `/api/v1/migratingVms/${names[0]}/pause`, {});
  await expect(region(page, 'Wave 1')).toContainText('Paused');
  await act.getByRole('button', { name: 'Pause' }).click();
  await expect(page.getByText(/1 of 2.*is paused already/)).toBeVisible();
  await expect(region(page, 'Wave 2')).toContainText('Paused');
  await act.getByLabel('Wave').selectOption('2');
  await act.getByRole('button', { name: 'Resume' }).click();
  await expect(region(page, 'Wave 2')).toContainText('Kept up to date');
  await expect(region(page, 'Wave 1')).toContainText('Paused');

  await page.getByRole('link', { name: 'Cut over…' }).click();
  const dialog = page.getByRole('dialog', { name: `Cut the group ${group} over` });
  await expect(dialog).toContainText('A wave in which one fails is the last');
  await accessible(page, 'the dialog');
  await dialog.getByRole('button', { name: 'Cut group over' }).click();
  await expect(region(page, 'Group')).toContainText('2 of 2 run where they were to go');
  await page.getByRole('link', { name: 'See the job that cuts it over' }).click();
  await expect(h1(page)).toHaveText(`Cut the group ${group} over`);
  await expect(page.getByRole('list').filter({ hasText: 'Cutting over, wave by wave' })).toBeVisible();
  expect((await server.call('GET', '/api/v1/vms/shop-db')).state).toBe('STOPPED');
  await open(page, `/migration-groups/${group}`, group);
  await page.setViewportSize({ width: 390, height: 844 });
  await fitsThumb(page, 'a group');
});

test('an upload is adapted after its cycle, again when asked, and as a step of the cutover', async ({ page, server }) => {
  const name = await ready(server, 'adapt-1');
  await open(page, `/migrations/${name}`, name);
  await expect(region(page, 'What it becomes')).toContainText('Skipped');
  await page.getByRole('link', { name: 'Edit…' }).click();
  await page.getByLabel('OS adaptation').selectOption({ label: 'After each cycle' });
  await page.getByLabel('Hostname').fill('shop.example.org');
  await page.getByLabel('cloud-init user-data').fill('#cloud-config\n{}\n');
  await accessible(page, 'the form');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(region(page, 'What it becomes')).toContainText('shop.example.org');
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(region(page, 'What it becomes')).toContainText('Adapted');
  const steps = region(page, 'Cutover').getByRole('list', { name: 'What will happen' });
  await expect(steps).toContainText('Its operating system is adapted, unless nothing has changed');
  const before = (await server.call('GET', `/api/v1/migratingVms/${name}`)).adaptation.job;
  await page.getByRole('button', { name: 'Adapt OS again' }).click();
  await expect(page.getByText('Its last upload is being adapted.')).toBeVisible();
  const again = async () => (await server.call('GET', `/api/v1/migratingVms/${name}`)).adaptation;
  await eventually(async () => (await again()).job !== before && (await again()).over, 'adapted again').toBe(true);
  await page.getByRole('button', { name: 'Check OS' }).click();
  await expect(page.getByText('It is looked whether its last upload can be adapted.')).toBeVisible();
  await open(page, '/jobs', 'Jobs');
  await page.getByRole('link', { name: `Check the OS of ${name}` }).click();
  await expect(state(page)).toHaveText('Succeeded');
  await open(page, `/migrations/${name}`, name);
  await page.getByRole('link', { name: 'Cut over…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cut over now' }).click();
  await expect(state(page)).toHaveText('Cut over');
  const { cutoverJobs } = await server.call('GET', `/api/v1/migratingVms/${name}/cutoverJobs`);
  expect(cutoverJobs[0].progressPercent).toBe(100);
  expect(cutoverJobs[0].steps.map((step) => step.name)).toContain('ADAPTING_OS');
});

test('who may only look sees why nothing can be changed', async ({ page, server, another }) => {
  const name = await active(server, 'seen-1');
  await server.call('POST', '/api/v1/roles', { name: 'onlooker', description: 'Looks at migrations', privileges: ['migration.read', 'event.read', 'self.manage'] });
  await server.call('POST', '/api/v1/users', { name: 'olga', password: 'correct horse', role: 'onlooker' });
  const theirs = await (await another({ storageState: undefined })).newPage();
  await theirs.goto('/login?next=%2Fmigrations');
  await theirs.getByLabel('Name', { exact: true }).fill('olga');
  await theirs.getByLabel('Password').fill('correct horse');
  await theirs.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(h1(theirs)).toHaveText('Migration');
  await live(theirs);
  await expect(theirs.getByRole('link', { name: 'Add a source…' })).toHaveAccessibleDescription(/migration\.manage/);
  await theirs.getByRole('link', { name }).click();
  await expect(h1(theirs)).toHaveText(name);
  for (const button of ['Pause', 'Cycle now']) {
    await expect(theirs.getByRole('button', { name: button })).toHaveAccessibleDescription(/migration\.manage/);
  }
  await expect(theirs.getByRole('link', { name: 'Cut over…' })).toBeDisabled();
});

test('a machine is carried over without JavaScript', async ({ server, another }) => {
  await server.machine('plain-1');
  const { id } = await server.call('GET', '/api/v1/vms/plain-1');
  const page = await (await another({ javaScriptEnabled: false })).newPage();
  await page.goto(`/migrations/new?source=here&vm=${id}`);
  await page.getByLabel('Target', { exact: true }).selectOption('moved');
  await page.getByRole('button', { name: 'Carry it over' }).click();
  await expect(h1(page)).toHaveText('plain-1-new');
  await expect(page.getByText('It is added.')).toBeVisible();
  await until(server, 'plain-1-new', 'READY');
  await page.reload();
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByText('Its first upload begins.')).toBeVisible();
  await until(server, 'plain-1-new', 'ACTIVE');
  await page.goto('/migrations/plain-1-new?do=cutover');
  await expect(page.getByRole('dialog', { name: 'Cut plain-1-new over' })).toContainText('plain-1 is shut down now.');
});
