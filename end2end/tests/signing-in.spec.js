import { expect, open, test } from '../support/test.js';

const h1 = (page) => page.getByRole('heading', { level: 1 });

test('the first start prints a link that signs in once; then a password does', async ({ fresh, another, complaints }) => {
  const page = await (await another({ storageState: undefined }, fresh)).newPage();
  // Nobody is let in without it, and the way leads back to where one wanted to go.
  await page.goto('/settings');
  await expect(h1(page)).toHaveText('Sign in');
  expect(new URL(page.url()).searchParams.get('next')).toBe('/settings');

  await page.goto(fresh.link.pathname);
  await expect(h1(page)).toHaveText('Overview');
  await page.getByRole('link', { name: 'Settings' }).click();
  await expect(page.getByText('You have no password yet')).toBeVisible();
  await page.getByLabel('New password').fill('correct horse');
  await page.getByLabel('The same again').fill('correct house');
  await page.getByRole('button', { name: 'Set password' }).click();
  await expect(page.getByLabel('The same again')).toHaveAccessibleDescription(/The two passwords differ/);
  await page.getByLabel('The same again').fill('correct horse');
  await page.getByRole('button', { name: 'Set password' }).click();
  await expect(page.getByText('The password is set.')).toBeVisible();
  await expect(page.getByText('You have no password yet')).toBeHidden();

  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(h1(page)).toHaveText('Sign in');
  complaints.expected(/410 \(Gone\)/);
  await page.goto(fresh.link.pathname);
  await expect(page.getByText('This link has been used')).toBeVisible();
  await page.getByRole('link', { name: 'Sign in with a password' }).click();

  await page.getByLabel('Name', { exact: true }).fill('admin');
  await page.getByLabel('Password', { exact: true }).fill('wrong horse');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByRole('alert')).toContainText(/name or the password/i);
  await expect(page.getByLabel('Name', { exact: true })).toHaveValue('admin');
  await page.getByLabel('Password', { exact: true }).fill('correct horse');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(h1(page)).toHaveText('Overview');
});

test('signing in leads to where one wanted to go, and a session ends everywhere', async ({ fresh, another, complaints }) => {
  // The second tab asks, and hears so, that its session has ended.
  complaints.expected(/401 \(Unauthorized\)/);
  await fresh.signIn();
  const context = await another({}, fresh);
  const page = await context.newPage();
  await open(page, '/settings', 'Settings');
  await page.getByLabel('New password').fill('correct horse');
  await page.getByLabel('The same again').fill('correct horse');
  await page.getByRole('button', { name: 'Set password' }).click();
  await expect(page.getByText('The password is set.')).toBeVisible();
  // A second tab of the same browser, whose session ends under its feet.
  const second = await context.newPage();
  await open(second, '/vms', 'Virtual machines');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(h1(page)).toHaveText('Sign in');
  await second.getByRole('link', { name: 'Jobs' }).click();
  // The page says so first, and then the browser goes.
  await expect(second).toHaveURL(/\/login/);
  await expect(h1(second)).toHaveText('Sign in');
  await second.getByLabel('Name', { exact: true }).fill('admin');
  await second.getByLabel('Password', { exact: true }).fill('correct horse');
  await second.getByRole('button', { name: 'Sign in' }).click();
  await expect(h1(second)).toHaveText('Jobs');
});
