// Policies: made, changed, looked at for what they would keep, run, switched off, removed.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { accessible, fitsThumb } from '../support/look.js';
import { expect, open, test as base } from '../support/test.js';

const test = base.extend({
  /** A target, and a machine with three copies there. */
  three: [
    async ({ server }, use) => {
      const path = join(server.dir, 'kept');
      mkdirSync(path);
      await server.call('POST', '/api/v1/targets', { name: 'kept', local: { path }, passphrase: 'correct horse battery' });
      await server.machine('three');
      for (const snapshot of ['first', 'second', 'third']) {
        if (snapshot !== 'first') await server.snapshot('three', snapshot);
        await server.until(await server.call('POST', '/api/v1/vms/three/copyTasks', { target: 'kept', snapshot }), 'SUCCEEDED');
      }
      await use('three');
    },
    { scope: 'worker', auto: true },
  ],
});

// What moves is at its end at once: a colour half-way is not the page's.
test.use({ contextOptions: { reducedMotion: 'reduce' } });

const h1 = (page) => page.getByRole('heading', { level: 1 });
const about = (page) => page.getByRole('region', { name: 'Policy', exact: true });
const preview = (page) => page.getByRole('region', { name: 'Preview' });

test('a policy is made in the editor, and its page says what it is', async ({ page, three }) => {
  await open(page, '/policies', 'Policies');
  await page.getByRole('link', { name: 'New policy' }).first().click();
  await expect(h1(page)).toHaveText('New policy');
  await page.getByLabel('Name', { exact: true }).fill('nightly');
  await page.getByLabel('Schedule', { exact: true }).fill('0 2 * * *');
  await page.getByLabel('Time zone').fill('Europe/Berlin');
  await page.getByLabel('Virtual machines').fill(three);
  await page.getByLabel('kept', { exact: true }).check();
  await page.getByLabel('Daily').fill('7');
  await page.getByLabel('Windows').fill('SAT SUN 22:00-06:00');
  await page.getByLabel('Boot every how manyth copy').fill('3');
  await accessible(page, 'the editor');
  await page.getByRole('button', { name: 'Add it' }).click();
  await expect(h1(page)).toHaveText('nightly');
  await expect(about(page)).toContainText('0 2 * * * · Europe/Berlin');
  await expect(about(page)).toContainText('Daily: 7');
  await expect(about(page)).toContainText('SAT SUN 22:00-06:00');
  await expect(about(page).getByRole('link', { name: three })).toBeVisible();
  await expect(about(page)).toContainText('Next');

  await page.getByRole('link', { name: 'Edit…' }).click();
  await expect(h1(page)).toHaveText('Edit nightly');
  await expect(page.getByLabel('Virtual machines')).toHaveValue(three);
  await expect(page.getByLabel('Windows')).toHaveValue('SAT SUN 22:00-06:00');
  await page.getByLabel('Windows').fill('');
  await page.getByLabel('Weekly').fill('4');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(h1(page)).toHaveText('nightly');
  await expect(about(page)).toContainText('Daily: 7 · Weekly: 4');
  await expect(about(page)).toContainText('always');

  await page.getByRole('button', { name: 'Switch off' }).click();
  await expect(page.getByRole('main').getByRole('status').first()).toHaveText('Switched off');
  await open(page, '/policies', 'Policies');
  await expect(page.getByRole('listitem').filter({ hasText: 'nightly' })).toContainText('Switched off');
});

test('the preview follows the numbers, says why each copy stays, and they can be taken', async ({ page, server, three }) => {
  const { id } = await server.call('POST', '/api/v1/policies', { name: 'trying', vms: [three], targets: ['kept'] });
  // Its own copies alone are its to keep or to let go.
  for (let n = 0; n < 3; n += 1) {
    const run = await server.call('POST', `/api/v1/policies/${id}/run`, {});
    await server.until(run.tasks[0], 'SUCCEEDED');
  }
  await open(page, '/policies/trying', 'trying');
  const copies = preview(page).getByRole('list', { name: 'three at kept' }).getByRole('listitem');
  await expect(copies).toHaveCount(3);
  await expect(preview(page).getByRole('status')).toHaveText('3 would stay, 0 would go');
  await expect(copies.first()).toContainText('all stay');

  await preview(page).getByLabel('The last').fill('1');
  await expect(preview(page).getByRole('status')).toHaveText('1 would stay, 2 would go');
  await expect(copies.first()).toContainText('one of the last');
  await expect(copies.last()).toContainText('Would go');
  expect((await server.call('GET', `/api/v1/policies/${id}`)).retention, 'looking changes nothing').toEqual({});
  await accessible(page, 'the preview');
  await page.setViewportSize({ width: 390, height: 844 });
  await fitsThumb(page, 'the preview');

  await preview(page).getByRole('button', { name: 'Take these numbers' }).click();
  await expect(page.getByText('It is saved.')).toBeVisible();
  await expect(page).toHaveURL(/\/policies\/trying$/);
  await expect.poll(async () => (await server.call('GET', `/api/v1/policies/${id}`)).retention).toEqual({ keepLast: 1 });
  await expect(preview(page).getByRole('button', { name: 'Take these numbers' })).toHaveCount(0);
  // The copies that are there are other tests' as well.
  await server.call('DELETE', `/api/v1/policies/${id}`);
});

test('what is wrong stands where it was typed', async ({ page, three, complaints }) => {
  complaints.expected(/400 \(Bad Request\)/);
  await open(page, '/policies/new', 'New policy');
  await page.getByLabel('Name', { exact: true }).fill('wrong');
  await page.getByLabel('Virtual machines').fill(three);
  await page.getByLabel('kept', { exact: true }).check();
  await page.getByLabel('Windows').fill('someday 22:00-06:00');
  await page.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByLabel('Windows')).toHaveAccessibleDescription(/someday 22:00-06:00 is no window/i);
  await expect(page.getByLabel('Windows')).toBeFocused();
  await page.getByLabel('Windows').fill('');
  await page.getByLabel('Schedule', { exact: true }).fill('every now and then');
  await page.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByLabel('Schedule', { exact: true })).toHaveAttribute('aria-invalid', 'true');
});

test('a policy is run, and removed while its copies stay', async ({ page, server, complaints }) => {
  // The feed may tell of the removal before its own answer comes.
  complaints.expected(/404 \(Not Found\)/);
  await server.machine('runs-1');
  await server.call('POST', '/api/v1/policies', { name: 'runs', vms: ['runs-1'], targets: ['kept'] });
  await open(page, '/policies/runs', 'runs');
  await expect(preview(page)).toContainText('There is no copy that it is about yet.');
  await page.getByRole('button', { name: 'Copy now' }).click();
  await expect(page.getByText('Its copies are being made.')).toBeVisible();
  await expect(preview(page).getByRole('list', { name: 'runs-1 at kept' }).getByRole('listitem')).toHaveCount(1);
  await page.getByRole('link', { name: 'Delete…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Delete runs' });
  await expect(dialog).toContainText('The copies that it made stay.');
  await dialog.getByRole('button', { name: 'Delete policy' }).click();
  await expect(h1(page)).toHaveText('Policies');
  await expect(page.getByRole('link', { name: 'runs', exact: true })).toHaveCount(0);
  const { id } = await server.call('GET', '/api/v1/vms/runs-1');
  expect((await server.call('GET', `/api/v1/copies?filter=vm=${id}`)).copies.length).toBe(1);
});
