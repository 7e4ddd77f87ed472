// Snapshots of a machine: taken with memory, gone back to, deleted.

import { expect, live, open, state, test } from '../support/test.js';

const tree = (page) => page.getByRole('list', { name: 'Snapshots' }).getByRole('listitem');

/** Opens the menu of a snapshot, and goes to what is in it. */
async function choose(page, snapshot, what) {
  const row = tree(page).filter({ hasText: snapshot });
  await row.getByLabel(`More for ${snapshot}`).click();
  await row.getByRole('link', { name: what }).click();
}

test('a snapshot with memory is taken, gone back to, and deleted', async ({ page, server }) => {
  await server.machine('snap');
  await open(page, '/vms/snap', 'snap');
  await page.getByRole('link', { name: 'Snapshot…' }).click();
  const take = page.getByRole('dialog', { name: 'Snapshot of snap' });
  await take.getByLabel('Name', { exact: true }).fill('kept');
  await take.getByLabel('Keep its memory too').check();
  await take.getByRole('button', { name: 'Take snapshot' }).click();
  await expect(take).toBeHidden();
  await expect(tree(page).filter({ hasText: 'kept' })).toContainText('with memory');

  await choose(page, 'first', 'Revert…');
  const revert = page.getByRole('dialog', { name: 'Revert snap' });
  await expect(revert).toContainText('snap goes back to snapshot first');
  await expect(revert.getByLabel('Go on where its guest was')).toHaveCount(0);
  await revert.getByRole('link', { name: 'Never mind' }).click();
  await expect(revert).toBeHidden();

  await choose(page, 'kept', 'Revert…');
  await expect(revert).toContainText('snap goes back to snapshot kept');
  await revert.getByLabel('Its name').fill('before');
  await expect(revert.getByLabel('Go on where its guest was')).toBeChecked();
  await revert.getByRole('button', { name: 'Revert' }).click();
  await expect(revert).toBeHidden();
  await page.getByRole('link', { name: 'See the job' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Revert snap to kept');
  await expect(state(page)).toHaveText('Succeeded');
  const steps = page.getByRole('region', { name: 'Steps' }).getByRole('listitem');
  await expect(steps.filter({ hasText: 'Reverting' })).toContainText('done');

  await open(page, '/vms/snap', 'snap');
  await expect(tree(page)).toHaveText([/first/, /kept/, /before/, /Now/i]);
  await choose(page, 'kept', 'Delete…');
  const gone = page.getByRole('dialog', { name: 'Delete a snapshot of snap' });
  await expect(gone).toContainText('its other snapshots and its clones lose nothing');
  await gone.getByRole('button', { name: 'Delete kept' }).click();
  await expect(gone).toBeHidden();
  await expect(tree(page).filter({ hasText: 'kept' })).toHaveCount(0);
  await expect(tree(page).filter({ hasText: 'before' })).toHaveCount(1);
});

test('a snapshot that is gone is not gone back to', async ({ page, server }) => {
  await server.machine('snap-gone');
  await page.goto('/vms/snap-gone?do=revert&snapshot=00000000-0000-7000-8000-000000000000');
  await live(page);
  const dialog = page.getByRole('dialog', { name: 'Revert snap-gone' });
  await expect(dialog).toContainText('There is no such snapshot any more.');
  await dialog.getByRole('link', { name: 'Close' }).click();
  await expect(dialog).toBeHidden();
  await expect(page).toHaveURL(/\/vms\/snap-gone$/);
});
