// Notices: a channel is added, tried, told of a job that failed, and goes.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { accessible } from '../support/look.js';
import { expect, live, open, test as base } from '../support/test.js';

const test = base.extend({
  /** The other side of a webhook: all that it was posted, and what it answers. */
  receiver: async ({}, use) => {
    const posts = [];
    const receiver = { posts, status: 204 };
    const http = createServer((request, answer) => {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      request.on('end', () => {
        posts.push({ headers: request.headers, body: Buffer.concat(parts).toString() });
        answer.writeHead(receiver.status).end();
      });
    });
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    receiver.url = `http://127.0.0.1:${http.address().port}/hook`;
    await use(receiver);
    http.closeAllConnections();
    http.close();
  },
});

const signature = (secret, { headers, body }) => {
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  return `v1,${createHmac('sha256', key).update(signed).digest('base64')}`;
};

test.describe('where private addresses may be posted to', () => {
  test.use({ settings: ['--notice-urls-private'] });

  test('a channel is added, tried, told of a failure, and removed', async ({ fresh, another, receiver, complaints }) => {
    // The feed may tell of the removal before its own answer comes.
    complaints.expected(/404 \(Not Found\)/);
    await fresh.signIn();
    await fresh.machine('src');
    const page = await (await another({}, fresh)).newPage();
    await open(page, '/notices', 'Notices');
    await expect(page.getByText('Nobody is told.')).toBeVisible();
    const form = page.locator('form').filter({ has: page.getByRole('button', { name: 'Add it' }) });
    await form.getByLabel('Name', { exact: true }).fill('ops');
    await form.getByLabel('Address').fill(receiver.url);
    await form.getByLabel('a job is held up').check();
    await form.getByRole('button', { name: 'Add it' }).click();
    await expect(page.getByText('It is shown this once')).toBeVisible();
    const secret = await page.locator('.secret code').textContent();
    const row = page.getByRole('listitem').filter({ hasText: 'ops' });
    await expect(row).toContainText('a job fails, a job is held up');
    await expect(row).toContainText('Nothing told yet');

    // With the keyboard alone.
    await page.getByRole('button', { name: 'Send a test ops' }).focus();
    await page.keyboard.press('Enter');
    await expect(page.getByText('The test is on its way.')).toBeVisible();
    const went = page.getByRole('region', { name: 'What went through ops' });
    await expect(went.getByRole('row').filter({ hasText: 'a test' })).toContainText('Delivered');
    expect(JSON.parse(receiver.posts[0].body).type).toBe('TEST');
    expect(receiver.posts[0].headers['webhook-signature']).toBe(signature(secret, receiver.posts[0]));

    // What is not taken says why, and is shown as it changes.
    receiver.status = 503;
    const failed = await fresh.until(await fresh.clone('src', 'fail-at-preparing-vm-disks-told'), 'FAILED');
    const told = went.getByRole('row').filter({ hasText: 'a job fails' });
    await expect(told).toContainText('503 Service Unavailable');
    await expect(told).toContainText('Waits');
    await accessible(page, 'what waits');
    receiver.status = 204;
    await expect(told).toContainText('Delivered', { timeout: 30_000 });
    const { data } = JSON.parse(receiver.posts.at(-1).body);
    expect(data.job.id).toBe(failed.id);
    expect(data.url).toBe(`${fresh.url}/jobs/${failed.id}`);
    await told.getByRole('link', { name: 'a job fails' }).click();
    await expect(page).toHaveURL(new RegExp(`/jobs/${failed.id}$`));

    await open(page, '/notices?of=ops', 'Notices');
    const change = page.getByRole('region', { name: 'Change ops' });
    await expect(change.getByLabel('Address')).toHaveValue(receiver.url);
    await change.getByLabel('a job is held up').uncheck();
    await change.getByLabel('a job cannot be undone').check();
    await change.getByRole('button', { name: 'Save' }).click();
    await expect(row).toContainText('a job fails, a job cannot be undone');
    await page.getByRole('button', { name: 'New secret ops' }).click();
    await expect(page.locator('.secret code')).not.toHaveText(secret);
    await page.getByRole('button', { name: 'Switch off ops' }).click();
    await expect(row).toContainText('Switched off');
    await expect(page.getByRole('button', { name: 'Send a test ops' })).toHaveAccessibleDescription(/is switched off/);
    await page.getByRole('button', { name: 'Remove ops' }).click();
    await expect(page.getByText('Nobody is told.')).toBeVisible();
  });
});

test('what is wrong stands where it was typed, without WASM too', async ({ fresh, another, complaints }) => {
  complaints.expected(/400 \(Bad Request\)/);
  await fresh.signIn();
  for (const javaScriptEnabled of [false, true]) {
    const page = await (await another({ javaScriptEnabled }, fresh)).newPage();
    await page.goto('/notices');
    if (javaScriptEnabled) await live(page);
    const form = page.locator('form').filter({ has: page.getByRole('button', { name: 'Add it' }) });
    await form.getByLabel('Name', { exact: true }).fill('ops');
    await form.getByLabel('Address').fill('http://127.0.0.1/hook');
    await form.getByRole('button', { name: 'Add it' }).click();
    await expect(form.getByLabel('Address')).toHaveAccessibleDescription(/no public address: notice_urls_private/);
    await expect(form.getByLabel('Address')).toHaveValue('http://127.0.0.1/hook');
    await form.getByLabel('Kind').selectOption({ label: 'mail' });
    await form.getByLabel('Mail to').fill('ops@example.org');
    await form.getByRole('button', { name: 'Add it' }).click();
    await expect(page.getByText('set smtp_url and mail_from').first()).toBeVisible();
  }
});
