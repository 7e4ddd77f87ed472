// Jobs that are cancelled, and jobs that fail.

import { expect, open, state, test } from '../support/test.js';

test('cancelled half-way, a clone is undone and says what was cleaned', async ({ page, server }) => {
  await server.machine('cancel-src');
  await open(page, '/vms/cancel-src/clone', 'Clone cancel-src');
  await page.getByLabel('Name', { exact: true }).fill('wait-at-preparing-vm-disks-cancel');
  await page.getByRole('button', { name: 'Clone cancel-src' }).click();
  await expect(state(page)).toHaveText('Preparing VM disks');
  const steps = page.getByRole('region', { name: 'Steps' }).getByRole('listitem');
  await expect(steps.filter({ hasText: 'Mint names and ids' })).toContainText('done');
  await expect(steps.filter({ hasText: 'Preparing VM disks' })).toContainText('running');
  await expect(steps.filter({ hasText: 'Instantiating' })).toContainText('waits');
  await expect(page.getByRole('region', { name: 'What cancel would undo' })).toContainText('The new disks');

  await page.getByRole('link', { name: 'Cancel…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel this job?' });
  await expect(dialog).toContainText('The new disks, as far as they are made.');
  await expect(dialog).toContainText('cancel-src and its earlier snapshots stay as they are.');
  // Asked once; a change of mind costs nothing.
  await dialog.getByRole('link', { name: 'Let it go on' }).click();
  await expect(dialog).toBeHidden();
  await expect(state(page)).toHaveText('Preparing VM disks');
  await page.getByRole('link', { name: 'Cancel…' }).click();
  await dialog.getByRole('button', { name: 'Cancel the job' }).click();
  await expect(dialog).toBeHidden();
  await expect(state(page)).toHaveText('Cancelled');
  await expect(page.getByRole('region', { name: 'What was cleaned up' })).toContainText('Nothing was left behind');
  await expect(steps.filter({ hasText: 'Mint names and ids' })).toContainText('undone');
  await expect(steps.filter({ hasText: 'Instantiating' })).toContainText('not reached');

  // Cancelling again is not offered, with the reason.
  const again = page.getByRole('link', { name: 'Cancel…' });
  await expect(again).toBeDisabled();
  await expect(again).toHaveAccessibleDescription(/is cancelled already/);

  // It is gone from the list, the source is not.
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Virtual machines' }).click();
  await expect(page.getByRole('row', { name: /cancel-src/ })).toHaveCount(1);
  await expect(page.getByRole('row', { name: /wait-at-preparing-vm-disks-cancel/ })).toHaveCount(0);
  expect((await server.ask('GET', '/api/v1/vms/wait-at-preparing-vm-disks-cancel')).status).toBe(404);
});

test('a step that fails tells what, why, and what to do; and can be tried again', async ({ page, server, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await server.machine('fail-src');
  await open(page, '/vms/fail-src/clone', 'Clone fail-src');
  await page.getByLabel('Name', { exact: true }).fill('fail-at-instantiating-a');
  await page.getByRole('button', { name: 'Clone fail-src' }).click();
  await expect(state(page)).toHaveText('Failed');
  const trouble = page.getByRole('region', { name: 'What went wrong' });
  await expect(trouble).toContainText('fail-at-instantiating-a');
  await expect(trouble).toContainText('instantiating');
  await expect(trouble).toContainText('try again');
  await trouble.getByText('Details').click();
  await expect(trouble.getByText('ABORTED')).toBeVisible();
  await trouble.getByRole('button', { name: /Copy .* id/ }).click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied).toMatch(/^[0-9a-f-]{32,36}$/);
  await expect(trouble).toContainText(copied);

  const steps = page.getByRole('region', { name: 'Steps' }).getByRole('listitem');
  await expect(steps.filter({ hasText: 'Instantiating' })).toContainText('failed');
  await expect(steps.filter({ hasText: 'Preparing VM disks' })).toContainText('undone');
  await expect(page.getByRole('region', { name: 'What was cleaned up' })).toContainText('Nothing was left behind');
  expect((await server.ask('GET', '/api/v1/vms/fail-at-instantiating-a')).status).toBe(404);

  const before = page.url();
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page.getByRole('link', { name: 'tries an earlier one again' })).toBeVisible();
  expect(page.url()).not.toBe(before);
  await expect(state(page)).toHaveText('Failed');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Overview' }).click();
  await expect(page.getByRole('region', { name: 'Trouble' })).toContainText('Clone fail-src to fail-at-instantiating-a');
});

test('a form that is refused keeps what was typed, names the field, and has the id of the request', async ({ page, server, context, complaints }) => {
  complaints.expected(/409 \(Conflict\)/);
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await server.machine('form-src');
  await open(page, '/vms/form-src/clone', 'Clone form-src');
  await page.getByLabel('Name', { exact: true }).fill('form-src');
  await page.getByLabel('Processors').fill('2');
  await page.getByRole('radio', { name: 'Full copy' }).check();
  await page.getByRole('button', { name: 'Clone form-src' }).click();
  const alert = page.getByRole('alert');
  await expect(alert).toContainText('form-src');
  await expect(alert).toContainText(/already|taken|exists/);
  await alert.getByText('Details').click();
  await alert.getByRole('button', { name: 'Copy request id' }).click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied).toMatch(/^[0-9a-f]{32}$/);
  await expect(page.getByLabel('Name', { exact: true })).toHaveValue('form-src');
  await expect(page.getByLabel('Processors')).toHaveValue('2');
  await expect(page.getByRole('radio', { name: 'Full copy' })).toBeChecked();
  // Under that id the log has the story.
  const { readFileSync } = await import('node:fs');
  expect(readFileSync(`${server.dir}/log`, 'utf8')).toContain(copied);
});

test('deleting names the loss and asks for the name', async ({ page, server }) => {
  await server.machine('delete-me', false);
  await open(page, '/vms/delete-me', 'delete-me');
  await page.getByLabel('More for delete-me').click();
  await page.getByRole('link', { name: 'Delete…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Delete delete-me?' });
  await expect(dialog).toContainText('cannot be brought back');
  await dialog.getByLabel('Type the machine').fill('delete-you');
  await dialog.getByRole('button', { name: 'Delete delete-me' }).click();
  await expect(dialog.getByLabel('Type the machine')).toHaveAccessibleDescription(/This is not delete-me/);
  await dialog.getByLabel('Type the machine').fill('delete-me');
  await dialog.getByRole('button', { name: 'Delete delete-me' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Delete delete-me');
  await expect(state(page)).toHaveText('Succeeded');
});
