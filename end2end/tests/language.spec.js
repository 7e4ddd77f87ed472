// The console in another language: what the server draws and what the browser makes of it say the same.

import { accessible, fitsThumb } from '../support/look.js';
import { expect, holdWasm, open, test } from '../support/test.js';

// What moves is at its end at once: a colour half-way is not the page's.
test.use({ contextOptions: { reducedMotion: 'reduce' } });

const h1 = (page) => page.getByRole('heading', { level: 1 });

/** The page lives, in this language. */
async function speaks(page, language) {
  await expect(page.locator('html')).toHaveAttribute('lang', language);
  // Eight tabs may come alive at once, on two processors.
  await expect(page.locator('html')).toHaveAttribute('data-live', '', { timeout: 30_000 });
}

const german = (context, url) => context.addCookies([{ name: 'offshoot_language', value: 'de', url }]);

test('German is chosen in the settings, stays, and is left again', async ({ page, server }) => {
  await server.machine('sprache');
  const loaded = new Set();
  page.on('request', (request) => {
    const [file] = request.url().match(/words-\w+\.txt$/) ?? [];
    if (file) loaded.add(file);
  });
  await open(page, '/settings', 'Settings');
  await page.getByRole('button', { name: 'Deutsch' }).click();
  await expect(h1(page)).toHaveText('Einstellungen');
  await speaks(page, 'de');
  await expect(page).toHaveTitle('Einstellungen · Offshoot');
  await expect(page.getByRole('button', { name: 'Deutsch' })).toHaveAttribute('aria-current', 'true');
  expect([...loaded], 'a page loads the words of its language').toEqual(['words-en.txt', 'words-de.txt']);

  // A page that the browser draws.
  const rail = page.getByRole('navigation', { name: 'Hauptnavigation' });
  await rail.getByRole('link', { name: 'VMs' }).click();
  await expect(h1(page)).toHaveText('VMs');
  await expect(page.getByRole('row', { name: /sprache/ })).toContainText('Läuft');
  await page.getByRole('row', { name: /sprache/ }).getByRole('link', { name: 'sprache', exact: true }).click();
  await expect(h1(page)).toHaveText('sprache');
  // What a form says comes from the server.
  await page.getByRole('button', { name: 'Pausieren' }).click();
  await expect(page.getByText('Sie wird pausiert.')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Fortsetzen' })).toBeVisible();

  await page.reload();
  await speaks(page, 'de');
  await expect(page.getByRole('button', { name: 'Fortsetzen' })).toBeVisible();

  await rail.getByRole('link', { name: 'Einstellungen' }).click();
  await page.getByRole('button', { name: 'English' }).click();
  await expect(h1(page)).toHaveText('Settings');
  await speaks(page, 'en');
});

test('what comes alive says what the server has said', async ({ page, context, server }) => {
  await german(context, server.url);
  for (const path of ['/vms/new', '/networks', '/targets', '/migrations', '/migrations/new', '/roles']) {
    const release = await holdWasm(page);
    await page.goto(path);
    const drawn = await page.getByRole('main').textContent();
    release();
    await speaks(page, 'de');
    expect(await page.getByRole('main').textContent(), path).toBe(drawn);
  }
});

test('German pages are accessible, and usable from 390 px', async ({ page, context, server }) => {
  await server.machine('zugang');
  await german(context, server.url);
  for (const path of ['/', '/vms', '/vms/zugang', '/vms/new', '/copies', '/targets', '/targets?do=add', '/policies/new', '/migrations', '/migrations?do=add-source', '/migrations/new', '/jobs', '/settings']) {
    await page.setViewportSize({ width: 1280, height: 860 });
    await page.goto(path);
    await speaks(page, 'de');
    await accessible(page, path);
    await page.setViewportSize({ width: 390, height: 844 });
    await fitsThumb(page, path);
  }
});

test('the sign-in asks the browser, until a person has chosen', async ({ another }) => {
  const context = await another({ storageState: undefined, locale: 'de-AT' });
  const page = await context.newPage();
  await page.goto('/login?next=%2Fjobs');
  await expect(h1(page)).toHaveText('Anmelden');
  await speaks(page, 'de');
  await accessible(page, 'sign-in');
  await page.getByRole('button', { name: 'English' }).click();
  await expect(h1(page)).toHaveText('Sign in');
  await speaks(page, 'en');
  expect(new URL(page.url()).searchParams.get('next'), 'the way goes on').toBe('/jobs');
  await page.reload();
  await expect(h1(page)).toHaveText('Sign in');
});

test('a language is chosen without JavaScript', async ({ another }) => {
  const page = await (await another({ javaScriptEnabled: false })).newPage();
  await page.goto('/settings');
  await page.getByRole('button', { name: 'Deutsch' }).click();
  await expect(h1(page)).toHaveText('Einstellungen');
  await page.goto('/vms');
  await expect(h1(page)).toHaveText('VMs');
});

test('a page whose words cannot be loaded stays as the server has drawn it, and works', async ({ page, context, server, complaints }) => {
  complaints.expected(/404 \(Not Found\)/);
  await german(context, server.url);
  await page.route(/words-de\.txt$/, (route) => route.fulfill({ status: 404, body: '{}' }));
  const answered = page.waitForResponse(/words-de\.txt$/);
  await page.goto('/');
  await answered;
  await page.getByRole('navigation', { name: 'Hauptnavigation' }).getByRole('link', { name: /^Jobs/ }).click();
  await expect(h1(page)).toHaveText('Jobs');
  await expect(page.locator('html')).toHaveAttribute('lang', 'de');
  await expect(page.locator('html')).not.toHaveAttribute('data-live');
});
