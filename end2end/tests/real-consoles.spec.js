// The screen and the serial line of a guest that really runs.

import { expect, open, test } from '../support/test.js';

const linked = (page) => expect(page.locator('offshoot-viewer')).toHaveAttribute('data-state', 'open', { timeout: 20_000 });
const rows = (page) => page.locator('.xterm-rows');

/** How many pixels of the screen are lit, and a sum over all. */
const seen = (page) =>
  page.locator('offshoot-viewer canvas').evaluate((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let lit = 0;
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) {
      const value = data[at] + data[at + 1] + data[at + 2];
      if (value) lit += 1;
      sum = (sum * 31 + value) % 1_000_000_007;
    }
    return { lit, sum };
  });

test('the serial line echoes what is typed, and the screen is seen and hears keys', async ({ page, server, another, complaints }) => {
  complaints.expected(/willReadFrequently/);
  await server.machine('real-1');
  await open(page, '/vms/real-1/console?view=serial', 'Console of real-1');
  await linked(page);
  await expect(rows(page)).toContainText('offshoot-guest nonce=', { timeout: 60_000 });
  await page.getByRole('textbox', { name: /^Serial line of/ }).focus();
  await page.keyboard.press('Enter');
  await expect(rows(page)).toContainText('# ');
  await page.keyboard.type("killall -STOP ticker; clear; echo he''llo $((6 * 7))");
  await page.keyboard.press('Enter');
  await expect(rows(page)).toContainText('hello 42');

  const other = await (await another()).newPage();
  await open(other, '/vms/real-1/console?view=serial');
  await linked(other);
  await expect(rows(other)).toContainText('hello 42');
  await page.keyboard.type("echo to b''oth");
  await page.keyboard.press('Enter');
  for (const one of [page, other]) await expect(rows(one)).toContainText('to both');
  await page.screenshot({ path: 'artifacts/real-console.png' });

  for (const one of [page, other]) {
    await one.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: 'Screen' }).click();
    await linked(one);
    await expect.poll(() => seen(one).then(({ lit }) => lit), { timeout: 20_000 }).toBeGreaterThan(500);
  }
  // The second console has a shell; nothing is written to it by itself.
  const before = await seen(page);
  await page.getByRole('application').focus();
  await page.keyboard.press('Alt+F2');
  await expect.poll(() => seen(page).then(({ sum }) => sum)).not.toBe(before.sum);
  await expect.poll(async () => (await seen(page)).sum === (await seen(other)).sum, 'both see the same').toBe(true);
  const switched = await seen(page);
  await page.keyboard.press('Enter');
  await page.keyboard.type('echo typed on the screen');
  await expect.poll(() => seen(page).then(({ sum }) => sum)).not.toBe(switched.sum);
  await expect.poll(async () => (await seen(page)).sum === (await seen(other)).sum, 'both see the same').toBe(true);
});
