// The keyboard alone.

import { expect, live, open, test } from '../support/test.js';

/** What has the focus shows that it has. */
async function visible(page) {
  const [what, shown] = await page.evaluate(() => {
    // A card shows the focus of what is in it.
    const all = [document.activeElement, document.activeElement.closest('label')].filter(Boolean);
    const shown = all.some((e) => {
      const style = getComputedStyle(e);
      return style.outlineStyle !== 'none' && Number.parseFloat(style.outlineWidth) >= 2;
    });
    return [document.activeElement.outerHTML.slice(0, 120), shown];
  });
  expect(shown, `focus is visible on ${what}`).toBe(true);
}

test('the palette goes anywhere', async ({ page, server }) => {
  await server.machine('keys-src');
  await open(page, '/', 'Overview');
  await page.keyboard.press('Control+k');
  const palette = page.getByRole('dialog', { name: 'Search or run a command' });
  await expect(palette).toBeVisible();
  await expect(page.getByRole('combobox')).toBeFocused();
  await page.keyboard.press('Escape');
  await expect(palette).toBeHidden();

  await page.keyboard.press('Control+k');
  await page.keyboard.type('clone keys');
  const option = palette.getByRole('option', { name: /Clone keys-src/ });
  await expect(option).toBeVisible();
  await expect(option).toHaveAttribute('aria-selected', 'true');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clone keys-src');
  // The heading of the new page has the focus, and is said.
  await expect(page.getByRole('heading', { level: 1 })).toBeFocused();
  await expect(page.getByRole('status').filter({ hasText: 'Clone keys-src' })).toHaveCount(1);

  // What was typed is not there the next time, and Esc closes whatever is.
  await page.keyboard.press('Control+k');
  await expect(palette.getByRole('combobox')).toHaveValue('');
  await page.keyboard.type('nonsense');
  await expect(palette).toContainText('Nothing fits.');
  await page.keyboard.press('Escape');
  await expect(palette).toBeHidden();
  await page.keyboard.press('Control+k');
  await page.keyboard.type('jobs');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Jobs');
});

test('keys search, list the keys, and close', async ({ page }) => {
  await open(page, '/vms', 'Virtual machines');
  await page.keyboard.press('/');
  await expect(page.getByRole('searchbox', { name: 'Filter' })).toBeFocused();
  // In a field a key is a letter.
  await page.keyboard.type('?');
  await expect(page.getByRole('dialog', { name: 'Keys' })).toBeHidden();
  await page.getByRole('searchbox', { name: 'Filter' }).fill('');
  await page.getByRole('heading', { level: 1 }).focus();
  await page.keyboard.press('?');
  const keys = page.getByRole('dialog', { name: 'Keys' });
  await expect(keys).toBeVisible();
  await expect(keys).toContainText('Esc');
  await page.keyboard.press('Escape');
  await expect(keys).toBeHidden();
});

test('a dialog takes the focus, keeps it, and gives it back', async ({ page, server }) => {
  await server.machine('dialog-src');
  await open(page, '/vms/dialog-src', 'dialog-src');
  const opener = page.getByRole('link', { name: 'Snapshot…' });
  await opener.focus();
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog', { name: 'Snapshot of dialog-src' });
  await expect(dialog).toBeVisible();
  for (let n = 0; n < 8; n += 1) {
    await page.keyboard.press('Tab');
    const inside = await dialog.evaluate((d) => d.contains(document.activeElement) || document.activeElement === document.body);
    expect(inside, 'the focus stays in the dialog').toBe(true);
  }
  await page.keyboard.press('Escape');
  await expect(dialog).toBeHidden();
  await expect(page).toHaveURL(/\/vms\/dialog-src$/);
  await expect(opener).toBeFocused();
  // And by keyboard all the way: open, type, send.
  await page.keyboard.press('Enter');
  await expect(dialog).toBeVisible();
  await dialog.getByLabel('Name', { exact: true }).focus();
  await page.keyboard.type('by-keys');
  await page.keyboard.press('Enter');
  await expect(dialog).toBeHidden();
  await expect(page.getByRole('list', { name: 'Snapshots' })).toContainText('by-keys');
  // Back does not open it again.
  await page.goBack();
  await expect(dialog).toBeHidden();
});

test('a dialog opens over a page whose address has the id', async ({ page, server }) => {
  await server.machine('by-id');
  const { id } = await server.call('GET', '/api/v1/vms/by-id');
  await open(page, `/vms/${id}`, 'by-id');
  await page.getByRole('link', { name: 'Snapshot…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Snapshot of by-id' });
  await expect(dialog).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(dialog).toBeHidden();
  // What is said of one machine is not said of the next.
  await server.machine('by-name');
  await open(page, `/vms/by-id/clone?source=${(await server.call('GET', '/api/v1/vms/by-id')).latestSnapshot}`, 'Clone by-id');
  await expect(page.getByLabel('From', { exact: true })).not.toHaveValue('');
  await page.keyboard.press('Control+k');
  await page.keyboard.type('clone by-name');
  await page.getByRole('option', { name: 'Clone by-name…' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clone by-name');
  await expect(page.getByLabel('From', { exact: true })).toHaveValue('');
});

test('a menu opens, closes, and gives the focus back', async ({ page, server }) => {
  await server.machine('menu-src');
  await open(page, '/vms?q=menu-src', 'Virtual machines');
  const summary = page.getByRole('row', { name: /menu-src/ }).getByLabel('More for menu-src');
  await summary.focus();
  await page.keyboard.press('Enter');
  await expect(page.getByRole('button', { name: 'Copy id' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('button', { name: 'Copy id' })).toBeHidden();
  await expect(summary).toBeFocused();
});

for (const path of ['/', '/vms', '/vms/tab-src', '/vms/tab-src/clone', '/jobs', '/settings']) {
  test(`the focus is seen wherever Tab leads on ${path}`, async ({ page, server }) => {
    if ((await server.ask('GET', '/api/v1/vms/tab-src')).status === 404) await server.machine('tab-src');
    await open(page, path);
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('Tab');
    await expect(page.getByRole('link', { name: 'Skip to the content' })).toBeFocused();
    const start = await page.evaluate(() => document.activeElement.outerHTML);
    for (let n = 0; n < 60; n += 1) {
      await visible(page);
      await page.keyboard.press('Tab');
      const now = await page.evaluate(() => (document.activeElement === document.body ? '' : document.activeElement.outerHTML));
      if (!now || now === start) return;
    }
  });
}
