// The screen and the serial line of a machine in the browser, where no guest is needed: the simulated serial line echoes, and the
// simulated screen turns lighter with each key.

import { expect, holdWasm, live, open, test } from '../support/test.js';

const linked = (page) => expect(page.locator('offshoot-viewer')).toHaveAttribute('data-state', 'open', { timeout: 20_000 });
const terminal = (page) => page.getByRole('textbox', { name: /^Serial line of/ });
const rows = (page) => page.locator('.xterm-rows');
// Reading pixels again and again is what a test does, and what the browser warns of.
const read = /willReadFrequently/;
const grey = (page) =>
  page.locator('offshoot-viewer canvas').evaluate((canvas) => canvas.getContext('2d').getImageData(5, 5, 1, 1).data[0]);

test('what is typed into the serial line is seen by all who look, and the log comes first', async ({ page, server, another }) => {
  await server.machine('serial-1');
  await open(page, '/vms/serial-1', 'serial-1');
  await page.getByRole('link', { name: 'Open the console' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Console of serial-1');
  await page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: 'Serial line' }).click();
  await expect(page).toHaveURL(/view=serial$/);
  await linked(page);
  await expect(rows(page)).toContainText('Linux version 0.0.0-sim');
  await terminal(page).focus();
  // Neither the list of keys nor the palette opens: all keys are the guest's.
  await page.keyboard.type('is this on?');
  await page.keyboard.press('Enter');
  await expect(rows(page)).toContainText('is this on?');
  await expect(page.locator('dialog:popover-open, :popover-open')).toHaveCount(0);

  const other = await (await another()).newPage();
  await open(other, '/vms/serial-1/console?view=serial');
  await linked(other);
  await expect(rows(other)).toContainText('is this on?');
  expect((await rows(other).textContent()).split('is this on?').length, 'it is there once').toBe(2);
  await other.getByRole('button', { name: 'Paste…' }).click();
  await other.getByLabel('Text to be sent to the guest').fill('pasted by\nthe other');
  await other.getByRole('button', { name: 'Type it' }).click();
  for (const one of [page, other]) await expect(rows(one)).toContainText('the other');
  await expect(terminal(other)).toBeFocused();

  // The keyboard comes back by the keys that the page names.
  await expect(page.getByText('Ctrl and Alt pressed together and let go give it back')).toBeVisible();
  await page.keyboard.down('Control');
  await page.keyboard.down('Alt');
  await page.keyboard.up('Alt');
  await page.keyboard.up('Control');
  await expect(terminal(page)).not.toBeFocused();
  await expect(page.getByRole('button', { name: 'Paste…' })).toBeFocused();
});

test('the screen hears keys, typed, pasted and sent by a button', async ({ page, server, complaints }) => {
  complaints.expected(read);
  await server.machine('screen-1');
  await open(page, '/vms/screen-1/console', 'Console of screen-1');
  await linked(page);
  await expect.poll(() => grey(page)).toBe(0x40);
  const canvas = page.getByRole('application', { name: /^Screen of screen-1/ });
  await canvas.focus();
  await page.keyboard.press('a');
  await expect.poll(() => grey(page)).toBe(0x50);
  await page.getByRole('button', { name: 'Ctrl-Alt-Del' }).click();
  await expect.poll(() => grey(page)).toBe(0x80);
  await expect(canvas).toBeFocused();
  await page.getByRole('button', { name: 'Paste…' }).click();
  // A capital is two keys, and what a US keyboard lacks is said.
  await page.getByLabel(/Text to be typed/).fill('aBé');
  await page.getByRole('button', { name: 'Type it' }).click();
  await expect(page.getByText('Characters left out, which a US keyboard does not have: é')).toBeVisible();
  await expect.poll(() => grey(page)).toBe(0xb0);
  await page.getByRole('button', { name: 'Fit' }).click();
  await expect(page.getByRole('button', { name: 'Fit' })).toHaveAttribute('aria-pressed', 'false');
  await expect.poll(() => canvas.evaluate((c) => c.getBoundingClientRect().width)).toBe(64);
});

test('a machine that goes off says so and is started from here', async ({ page, server }) => {
  await server.machine('off-1');
  await open(page, '/vms/off-1/console?view=serial', 'Console of off-1');
  await linked(page);
  await server.until(await server.call('POST', '/api/v1/vms/off-1/stop', { mode: 'POWER_OFF' }), 'SUCCEEDED');
  await expect(page.getByText('The machine is off.')).toBeVisible();
  await page.getByRole('main').getByRole('button', { name: 'Start' }).click();
  await linked(page);
  await expect(rows(page)).toContainText('login:');
});

test('a lost link is said and comes back by itself', async ({ page, fresh, another, complaints }) => {
  complaints.expected(/WebSocket|ERR_|Failed to load|EventSource|net::/);
  await fresh.signIn();
  await fresh.machine('lost-1');
  const far = await (await another({}, fresh)).newPage();
  await open(far, '/vms/lost-1/console?view=serial');
  await linked(far);
  await fresh.stop();
  await expect(far.locator('offshoot-viewer')).toHaveAttribute('data-state', 'lost');
  await expect(far.getByText('The link is lost. It is tried again by itself.')).toBeVisible();
  await fresh.startAgain();
  await linked(far);
  await expect(rows(far)).toContainText('login:');
  expect((await rows(far).textContent()).split('login:').length, 'nothing comes twice').toBe(2);
});

test('before WASM comes the console works, and without scripts there are the picture and the log', async ({ page, server, another }) => {
  await server.machine('plain-1');
  const release = await holdWasm(page);
  await page.goto('/vms/plain-1/console?view=serial');
  await linked(page);
  await terminal(page).focus();
  await page.keyboard.type('before WASM');
  await expect(rows(page)).toContainText('before WASM');
  release();
  await live(page);
  await page.keyboard.type(' and after');
  await expect(rows(page)).toContainText('before WASM and after');

  const plain = await (await another({ javaScriptEnabled: false })).newPage();
  await plain.goto('/vms/plain-1/console');
  await expect(plain.getByRole('img', { name: 'Screen of plain-1' })).toBeVisible();
  await expect(plain.getByText('a picture; it is live with scripts')).toBeVisible();
  const log = await plain.getByRole('link', { name: 'Log as text' }).getAttribute('href');
  expect(await (await page.request.get(log)).text()).toContain('Linux version');
});

test('other pages load nothing of it', async ({ page, server }) => {
  await server.machine('light-1');
  const loaded = [];
  page.on('request', (request) => loaded.push(request.url()));
  await open(page, '/vms/light-1', 'light-1');
  expect(loaded.filter((url) => /viewer|novnc|xterm/.test(url))).toEqual([]);
  await page.goto('/vms/light-1/console');
  await live(page);
  await linked(page);
  expect(loaded.filter((url) => /novnc/.test(url)).length).toBe(1);
  expect(loaded.filter((url) => /xterm/.test(url))).toEqual([]);
});
