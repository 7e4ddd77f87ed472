// Machines are edited, and hosts, storages and networks come, change and go.

import { expect, live, open, test } from '../support/test.js';

test('a machine is edited, and what waits for its next start is shown', async ({ page, server }) => {
  await server.machine('edited');
  await open(page, '/vms/edited/edit', 'Edit edited');
  const hardware = page.locator('form').filter({ has: page.getByRole('button', { name: 'Change it' }) });
  await hardware.getByLabel('Processors').fill('4');
  await hardware.getByLabel('Memory, in MiB').fill('256');
  await hardware.getByLabel('Firmware').selectOption('EFI');
  await hardware.getByLabel('New empty disks, in GiB').fill('2');
  await hardware.getByLabel('Port forwards to NIC 0').fill('2299:22');
  await hardware.getByRole('button', { name: 'Change it' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Edit edited');
  await expect(page).toHaveURL(/\/jobs\//);
  await expect.poll(async () => (await server.call('GET', '/api/v1/vms/edited')).disks.length).toBe(2);
  await open(page, '/vms/edited', 'edited');
  await expect(page.getByText('4 processors')).toBeVisible();
  await expect(page.getByText('EFI firmware')).toBeVisible();
  await expect(page.getByText('2299:22')).toBeVisible();

  await open(page, '/vms/edited/edit', 'Edit edited');
  const seen = page.locator('form').filter({ has: page.getByRole('button', { name: 'Save' }) });
  await seen.getByLabel('Name').fill('renamed');
  await seen.getByLabel('Start with the host').fill('3');
  await seen.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('It is saved.')).toBeVisible();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('renamed');
  await expect(page.getByText('in turn 3')).toBeVisible();
});

test('networks come, are refused with their reason, and go', async ({ page, server, complaints }) => {
  complaints.expected(/400 \(Bad Request\)/);
  await open(page, '/networks', 'Networks');
  await page.getByLabel('Name', { exact: true }).fill('lan');
  await page.getByLabel('Kind').selectOption('BRIDGE');
  await page.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByText('names a bridge of the host').first()).toBeVisible();
  await page.getByLabel('Bridge of the host').last().fill('br0');
  await page.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByText('It is added.')).toBeVisible();
  await expect(page.getByText('bridged · br0')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Remove user' })).toBeDisabled();
  await page.getByRole('button', { name: 'Remove lan' }).click();
  await expect(page.getByText('bridged · br0')).toBeHidden();
});

test('a host is kept free for work on it', async ({ page, server }) => {
  await open(page, '/hosts', 'Hosts');
  await page.getByRole('button', { name: 'Begin maintenance host-1' }).click();
  await expect(page.getByText('In maintenance')).toBeVisible();
  expect((await server.ask('POST', '/api/v1/vms', { name: 'late', disks: [{ sizeGib: 1 }] })).status).toBe(409);
  await page.getByRole('button', { name: 'End maintenance host-1' }).click();
  await expect(page.getByText('Takes machines')).toBeVisible();
  await live(page);
});

test('a storage is added, made the default, and removed', async ({ page, server }) => {
  await open(page, '/storages', 'Storages');
  await page.getByLabel('Name', { exact: true }).fill('fast');
  await page.getByLabel('Directory').fill(`${server.dir}/fast`);
  await page.getByRole('button', { name: 'Add it' }).click();
  await expect(page.getByText(`${server.dir}/fast`)).toBeVisible();
  await page.getByRole('button', { name: 'Make it the default fast' }).click();
  await expect(page.getByRole('button', { name: 'Remove fast' })).toBeDisabled();
  await page.getByRole('button', { name: 'Make it the default local' }).click();
  await page.getByRole('button', { name: 'Remove fast' }).click();
  await expect(page.getByText(`${server.dir}/fast`)).toBeHidden();
});
