// Copies of machines: made, watched, held, booted to see, kept from removal, brought back in each of four ways.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { accessible, fitsThumb } from '../support/look.js';
import { expect, live, open, state, test as base } from '../support/test.js';

const passphrase = 'correct horse battery';

const test = base.extend({
  /** A target for all tests of this worker. */
  far: [
    async ({ server }, use) => {
      const path = join(server.dir, 'copies');
      mkdirSync(path);
      await server.call('POST', '/api/v1/targets', { name: 'far', local: { path }, passphrase });
      await use('far');
    },
    { scope: 'worker', auto: true },
  ],
});

// What moves is at its end at once: a colour half-way is not the page's.
test.use({ contextOptions: { reducedMotion: 'reduce' } });

const h1 = (page) => page.getByRole('heading', { level: 1 });
const copies = (page) => page.getByRole('region', { name: 'Copies', exact: true });
const timeline = (page) => copies(page).getByRole('list', { name: 'far' }).getByRole('listitem');

/** A copy of a machine; answers it. */
async function copied(server, vm, more = {}) {
  const task = await server.call('POST', `/api/v1/vms/${vm}/copyTasks`, { target: 'far', ...more });
  const job = await server.until(task, 'SUCCEEDED');
  return server.call('GET', `/api/v1/copies/${job.outcome.copy.copy}`);
}

test('a machine is copied from its page, and stands in its timeline', async ({ page, server }) => {
  await server.machine('copied-1');
  await open(page, '/vms/copied-1', 'copied-1');
  await expect(copies(page)).toContainText('There is no copy of it yet.');
  await copies(page).getByRole('link', { name: 'Copy now…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Copy copied-1' });
  await expect(dialog.getByLabel('Target', { exact: true })).toHaveValue('far');
  await dialog.getByLabel('What is copied').selectOption({ label: 'first' });
  await dialog.getByRole('button', { name: 'Copy', exact: true }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByText('It is being copied.')).toBeVisible();
  await expect(timeline(page)).toHaveCount(1);
  await expect(timeline(page).first()).toContainText('first');
  await expect(timeline(page).first()).toContainText('Not booted yet');

  // A second one, of now: the newest comes first.
  await copies(page).getByRole('link', { name: 'Copy now…' }).click();
  await dialog.getByRole('button', { name: 'Copy', exact: true }).click();
  await expect(timeline(page)).toHaveCount(2);
  await expect(timeline(page).last()).toContainText('first');

  await open(page, '/copies?q=copied-1', 'Copies');
  await expect(page.getByRole('row').filter({ hasText: 'copied-1' })).toHaveCount(2);
  await page.getByRole('combobox', { name: 'Target' }).selectOption('far');
  await expect(page).toHaveURL(/target=far/);
  await expect(page.getByRole('row').filter({ hasText: 'copied-1' })).toHaveCount(2);
  await page.goto('/copies?q=nothing-like-this');
  await expect(page.getByText('No copy fits the filter.')).toBeVisible();
});

test('a copy at work is held, goes on, and is cancelled', async ({ page, server }) => {
  const vm = await server.machine('wait-at-copying-held');
  await open(page, `/vms/${vm}`, vm);
  const asked = await server.call('POST', `/api/v1/vms/${vm}/copyTasks`, { target: 'far', snapshot: 'first' });
  await server.untilAt(asked, 'copying');
  const work = copies(page).getByRole('list', { name: 'Copies being made' }).getByRole('listitem');
  await expect(work).toContainText('Copy to far');
  await expect(work).toContainText('Running');
  await work.getByRole('button', { name: 'Hold far' }).click();
  await expect(work).toContainText('On hold');
  await expect(page.getByText('It stands still.')).toBeVisible();
  // With the keyboard alone.
  await work.getByRole('button', { name: 'Go on far' }).focus();
  await page.keyboard.press('Enter');
  await expect(work).not.toContainText('On hold');
  await accessible(page, 'at work');
  for (const toast of await page.getByRole('button', { name: 'Dismiss' }).all()) await toast.click();
  await page.setViewportSize({ width: 390, height: 844 });
  await fitsThumb(page, 'at work');
  await page.setViewportSize({ width: 1280, height: 860 });

  await work.getByRole('link', { name: 'Cancel…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel this job?' });
  await dialog.getByRole('button', { name: 'Cancel the job' }).click();
  await expect(state(page)).toHaveText('Cancelled');
  await open(page, `/vms/${vm}`, vm);
  await expect(timeline(page)).toHaveCount(1);
  await expect(timeline(page).first()).toContainText('Cancelled');
  expect((await server.call('GET', `/api/v1/copies?filter=vm=${vm}`)).copies).toEqual([]);
});

test('a copy that fails stands in the timeline with its reason, and its job says what went wrong', async ({ page, server }) => {
  const vm = await server.machine('fail-at-copying-told');
  const task = await server.call('POST', `/api/v1/vms/${vm}/copyTasks`, { target: 'far', snapshot: 'first' });
  await server.until(task, 'FAILED');
  await open(page, `/vms/${vm}`, vm);
  await expect(timeline(page).first()).toContainText('Failed');
  await timeline(page).first().getByRole('link').click();
  await expect(h1(page)).toHaveText(`Copy ${vm} to far`);
  await expect(page.getByRole('region', { name: 'What went wrong' })).toBeVisible();
});

test('the job of a copy has its figures, its disks, and the way to the copy', async ({ page, server }) => {
  await server.machine('figures-1');
  const task = await server.call('POST', '/api/v1/vms/figures-1/copyTasks', { target: 'far', snapshot: 'first' });
  await server.until(task, 'SUCCEEDED');
  await open(page, `/jobs/${task.id}`, 'Copy figures-1 to far');
  const figures = page.getByRole('region', { name: 'Figures' });
  await expect(figures).toContainText('size of its disks');
  await expect(figures).toContainText('stored at the target');
  const copy = page.getByRole('region', { name: 'Copy', exact: true });
  await expect(copy.getByRole('listitem').filter({ hasText: 'disk0' })).toContainText('Succeeded');
  await copy.getByRole('link', { name: 'See the copy' }).click();
  await expect(h1(page)).toHaveText('Copy of figures-1');
});

test('a copy is booted to see, and says so wherever it stands', async ({ page, server }) => {
  await server.machine('booted-1');
  const copy = await copied(server, 'booted-1', { snapshot: 'first' });
  await open(page, `/copies/${copy.id}`, 'Copy of booted-1');
  await expect(page.getByRole('main').getByRole('status').first()).toContainText('Not booted yet');
  await page.getByRole('link', { name: 'Boot to see…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Boot the copy of booted-1' });
  await dialog.getByRole('button', { name: 'Boot it' }).click();
  await expect(h1(page)).toHaveText('Boot copy of booted-1');
  await expect(state(page)).toHaveText('Succeeded');
  await page.getByRole('link', { name: 'Copy of booted-1' }).click();
  await expect(page.getByRole('main').getByRole('status').first()).toContainText('Booted');
  await expect(page.getByRole('img', { name: 'Screen of booted-1' })).toBeVisible();
  await open(page, '/vms/booted-1', 'booted-1');
  await expect(timeline(page).first()).toContainText('Booted');
  await open(page, '/copies?q=booted-1', 'Copies');
  await expect(page.getByRole('row').filter({ hasText: 'booted-1' })).toContainText('Booted');
});

test('a copy whose boot is not proven says so', async ({ page, server }) => {
  const vm = await server.machine('not-booted');
  const copy = await copied(server, vm, { snapshot: 'first' });
  const job = await server.call('POST', `/api/v1/copies/${copy.id}/boot`, { bootPattern: 'never' });
  await server.until(job, 'FAILED');
  await open(page, `/copies/${copy.id}`, `Copy of ${vm}`);
  await expect(page.getByRole('main').getByRole('status').first()).toContainText('Displayed');
});

test('a legal hold keeps a copy from being removed until it is taken back', async ({ page, server, complaints }) => {
  // The feed may tell of the removal before its own answer comes.
  complaints.expected(/404 \(Not Found\)/);
  await server.machine('held-1');
  const copy = await copied(server, 'held-1', { snapshot: 'first' });
  await open(page, `/copies/${copy.id}`, 'Copy of held-1');
  await page.getByRole('button', { name: 'Put under legal hold' }).click();
  await expect(page.getByText('Nothing may remove this copy')).toBeVisible();
  const remove = page.getByRole('link', { name: 'Delete…' });
  await expect(remove).toBeDisabled();
  await expect(remove).toHaveAccessibleDescription(/is under legal hold/);
  expect((await server.ask('DELETE', `/api/v1/copies/${copy.id}`)).status).toBe(409);
  await open(page, '/copies?q=held-1', 'Copies');
  await expect(page.getByRole('row').filter({ hasText: 'held-1' })).toContainText('Legal hold');

  await open(page, `/copies/${copy.id}`, 'Copy of held-1');
  await page.getByRole('button', { name: 'Take it back' }).click();
  await expect(remove).toBeEnabled();
  await remove.click();
  const dialog = page.getByRole('dialog', { name: 'Delete this copy' });
  await expect(dialog).toContainText('The copy of held-1 at snapshot first is removed from far');
  await dialog.getByRole('button', { name: 'Delete copy' }).click();
  await expect(h1(page)).toHaveText('Copies');
  await expect(page.getByText('The copy is removed.')).toBeVisible();
  expect((await server.ask('GET', `/api/v1/copies/${copy.id}`)).status).toBe(404);
});

test.describe('a copy is brought back', () => {
  /** Its page with the dialog of a way. */
  async function restoring(page, copy, way, of) {
    await open(page, `/copies/${copy.id}`, `Copy of ${of}`);
    await page.getByRole('link', { name: 'Restore…' }).click();
    const dialog = page.getByRole('dialog', { name: `Restore ${of}` });
    await dialog.getByRole('link', { name: way }).click();
    await expect(dialog.getByRole('link', { name: way })).toHaveAttribute('aria-current', 'true');
    await accessible(page, way);
    return dialog;
  }

  test('as a new machine', async ({ page, server }) => {
    await server.machine('back-1');
    const copy = await copied(server, 'back-1', { snapshot: 'first' });
    const dialog = await restoring(page, copy, 'New machine', 'back-1');
    await expect(dialog.getByLabel('Name', { exact: true })).toHaveValue('back-1-restored');
    await dialog.getByRole('button', { name: 'Restore' }).click();
    await expect(h1(page)).toHaveText('Restore copy of back-1');
    await expect(state(page)).toHaveText('Succeeded');
    await expect(page.getByRole('link', { name: 'back-1-restored' }).first()).toBeVisible();
    const made = await server.call('GET', '/api/v1/vms/back-1-restored');
    expect(made.state).toBe('RUNNING');
    expect(made.networkInterfaces.every((nic) => !nic.connected), 'it is connected to nothing').toBe(true);
  });

  test('as a new machine that runs at once from the copy', async ({ page, server }) => {
    await server.machine('back-2');
    const copy = await copied(server, 'back-2', { snapshot: 'first' });
    const dialog = await restoring(page, copy, 'New machine', 'back-2');
    await dialog.getByLabel('Start it at once, from the copy').check();
    await dialog.getByRole('button', { name: 'Restore' }).click();
    await expect(h1(page)).toHaveText('Restore copy of back-2');
    await expect(page.getByText('Start it at once, from the copy')).toBeVisible();
    await expect(state(page)).toHaveText('Succeeded');
    expect((await server.call('GET', '/api/v1/vms/back-2-restored')).state).toBe('RUNNING');
  });

  test('over a machine, which has to be off and whose name is typed', async ({ page, server, complaints }) => {
    complaints.expected(/400 \(Bad Request\)/);
    await server.machine('back-3');
    const copy = await copied(server, 'back-3', { snapshot: 'first' });
    await server.until(await server.call('POST', '/api/v1/vms/back-3/stop', { mode: 'POWER_OFF' }), 'SUCCEEDED');
    const dialog = await restoring(page, copy, 'Over a machine', 'back-3');
    await expect(dialog).toContainText('What its disks have now is lost.');
    await dialog.getByLabel('Machine', { exact: true }).selectOption('back-3');
    await dialog.getByLabel(/Type the machine's name/).fill('back-4');
    await dialog.getByLabel('Leave it off').check();
    await dialog.getByRole('button', { name: 'Replace its disks' }).click();
    await expect(dialog.getByLabel(/Type the machine's name/)).toHaveAccessibleDescription(/this is not back-3/i);
    await dialog.getByLabel(/Type the machine's name/).fill('back-3');
    await dialog.getByRole('button', { name: 'Replace its disks' }).click();
    await expect(h1(page)).toHaveText('Restore copy of back-3');
    await expect(state(page)).toHaveText('Succeeded');
    expect((await server.call('GET', '/api/v1/vms/back-3')).state).toBe('STOPPED');
  });

  test('as more disks of a machine', async ({ page, server }) => {
    await server.machine('back-5', false);
    await server.machine('back-6');
    const copy = await copied(server, 'back-6', { snapshot: 'first' });
    const dialog = await restoring(page, copy, 'Disks only', 'back-6');
    await dialog.getByLabel('Machine', { exact: true }).selectOption('back-5');
    await expect(dialog.getByLabel(/^Disk 0/)).toBeChecked();
    await dialog.getByRole('button', { name: 'Restore' }).click();
    await expect(h1(page)).toHaveText('Restore copy of back-6');
    await expect(state(page)).toHaveText('Succeeded');
    expect((await server.call('GET', '/api/v1/vms/back-5')).disks.length).toBe(2);
  });

  test('as a file', async ({ page, server }) => {
    await server.machine('back-7');
    const copy = await copied(server, 'back-7', { snapshot: 'first' });
    const dialog = await restoring(page, copy, 'File', 'back-7');
    await dialog.getByLabel('Format').selectOption('RAW');
    await dialog.getByRole('button', { name: 'Write the file' }).click();
    await expect(h1(page)).toHaveText('Restore copy of back-7');
    await expect(state(page)).toHaveText('Succeeded');
    await expect(page.getByRole('link', { name: 'Download' })).toBeVisible();
  });
});

test('a copy without a file system that can be read says so', async ({ page, server }) => {
  await server.machine('files-1');
  const copy = await copied(server, 'files-1', { snapshot: 'first' });
  await open(page, `/copies/${copy.id}`, 'Copy of files-1');
  await page.getByRole('link', { name: 'Browse files' }).click();
  await expect(h1(page)).toHaveText('Files of files-1');
  await expect(page.getByText('No file system that can be read is in this copy.')).toBeVisible();
  await page.getByRole('navigation', { name: 'Breadcrumb' }).getByRole('link', { name: copy.id.slice(0, 8) }).click();
  await expect(h1(page)).toHaveText('Copy of files-1');
});

test('who may only look sees copies, and why nothing can be done with them', async ({ server, another }) => {
  await server.machine('seen-1');
  const copy = await copied(server, 'seen-1', { snapshot: 'first' });
  await server.call('POST', '/api/v1/users', { name: 'cora', password: 'correct horse', role: 'viewer' });
  const page = await (await another({ storageState: undefined })).newPage();
  await page.goto(`/login?next=%2Fcopies%2F${copy.id}`);
  await page.getByLabel('Name', { exact: true }).fill('cora');
  await page.getByLabel('Password').fill('correct horse');
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(h1(page)).toHaveText('Copy of seen-1');
  await live(page);
  for (const [name, privilege] of [['Restore…', 'copy.restore'], ['Browse files', 'copy.restore'], ['Boot to see…', 'copy.create'], ['Delete…', 'copy.delete']]) {
    await expect(page.getByRole('link', { name })).toHaveAccessibleDescription(new RegExp(privilege.replace('.', '\\.')));
  }
  await open(page, '/vms/seen-1', 'seen-1');
  await expect(copies(page).getByRole('link', { name: 'Copy now…' })).toHaveAccessibleDescription(/copy\.create/);
  await expect(timeline(page)).toHaveCount(1);
});

test('a machine is copied without JavaScript', async ({ server, another }) => {
  await server.machine('plain-1');
  const page = await (await another({ javaScriptEnabled: false })).newPage();
  await page.goto('/vms/plain-1?do=copy');
  const dialog = page.getByRole('dialog', { name: 'Copy plain-1' });
  await dialog.getByRole('button', { name: 'Copy', exact: true }).click();
  await expect(page.getByText('It is being copied.')).toBeVisible();
  await expect(async () => {
    await page.reload();
    await expect(timeline(page)).toHaveCount(1, { timeout: 1_000 });
  }).toPass();
});
