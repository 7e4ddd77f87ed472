// What is not allowed: disabled with the reason, and refused with the same reason however it is asked for.

import { expect, live, open, test } from '../support/test.js';

test('an action that is not allowed is disabled with its reason, and refused in HTML and JSON alike', async ({ page, server, context, complaints }) => {
  complaints.expected(/409 \(Conflict\)/);
  await server.machine('off', false);
  await open(page, '/vms/off', 'off');
  const button = page.getByRole('button', { name: 'Shut down' });
  await expect(button).toBeDisabled();
  await expect(button).toHaveAccessibleDescription('off is not running');
  // It is there to be found and read, also by keyboard; a click does nothing.
  await button.focus();
  await expect(button).toBeFocused();
  await expect(page.getByRole('tooltip', { name: 'off is not running', exact: true }).first()).toBeVisible();
  await button.click({ force: true });
  await expect(page.getByText('asked to shut down')).toBeHidden();

  const json = await server.ask('POST', '/api/v1/vms/off/stop', { mode: 'SHUTDOWN' });
  expect(json.status).toBe(409);
  expect(json.body.error).toMatchObject({ code: 409, status: 'FAILED_PRECONDITION', message: 'off is not running' });

  const html = await context.request.post('/do/vms/off/shutdown', {
    headers: { origin: server.url, accept: 'text/html' },
    form: { back: '/vms/off' },
  });
  const text = await html.text();
  expect(text).toContain('<h1');
  expect(text).toContain('ff is not running');
  expect((await server.call('GET', '/api/v1/vms/off')).state).toBe('STOPPED');
});

test('a clone without a snapshot is refused with what to do', async ({ page, server }) => {
  await server.machine('bare', false);
  const json = await server.ask('POST', '/api/v1/vms/bare/cloneJobs', { mode: 'LINKED', target: { name: 'x' } });
  expect(json.body.error.status).toBe('FAILED_PRECONDITION');
  await open(page, '/vms/bare/clone', 'Clone bare');
  const button = page.getByRole('button', { name: 'Clone bare' });
  await expect(button).toBeDisabled();
  await expect(button).toHaveAccessibleDescription(/bare has no snapshot.*take a snapshot first/);
  // The way out is on the same page.
  await page.getByLabel('From', { exact: true }).selectOption({ label: 'Snapshot now, and clone from that' });
  await expect(button).toBeEnabled();
  await page.getByLabel('Name', { exact: true }).fill('bare-copy');
  await button.click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Clone bare to bare-copy');
});

test('what changes elsewhere takes a button away while one looks', async ({ page, server }) => {
  await server.machine('shifty');
  await open(page, '/vms/shifty', 'shifty');
  const button = page.getByRole('button', { name: 'Pause' });
  await expect(button).toBeEnabled();
  await server.until(await server.call('POST', '/api/v1/vms/shifty/stop', { mode: 'POWER_OFF' }), 'SUCCEEDED');
  await expect(button).toBeDisabled();
  await expect(button).toHaveAccessibleDescription('shifty is not running');
});

test('another site may not act, and nobody without a session', async ({ server, context, playwright }) => {
  const post = (headers) => context.request.post('/do/vms/none/start', { headers, form: {}, maxRedirects: 0 });
  expect((await post({ origin: 'http://evil.example' })).status()).toBe(403);
  expect((await post({ origin: server.url, 'sec-fetch-site': 'cross-site' })).status()).toBe(403);
  const nobody = await playwright.request.newContext({
    baseURL: server.url,
    storageState: { cookies: [], origins: [] },
    extraHTTPHeaders: { origin: server.url },
  });
  const answer = await nobody.post('/do/vms/none/start', { form: {}, maxRedirects: 0, headers: { accept: 'text/html' } });
  expect(answer.status()).toBe(303);
  expect(answer.headers().location).toBe('/login');
  expect((await nobody.get('/api/v1/vms')).status()).toBe(401);
  await nobody.dispose();
});
