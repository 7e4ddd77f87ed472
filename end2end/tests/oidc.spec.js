// Sign-in by an OpenID Connect provider: a real one, with its own pages.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Provider } from '../support/provider.js';
import { expect, live, open, test as base } from '../support/test.js';

const h1 = (page) => page.getByRole('heading', { level: 1 });

const test = base.extend({
  /** The provider of `fresh`, which people with the group `crew` are operators of. */
  provider: async ({ fresh }, use) => {
    const people = {
      eve: { preferred_username: 'Eve', groups: ['crew'] },
      vera: { preferred_username: 'vera', groups: ['guests'] },
      admin: { preferred_username: 'admin', groups: ['crew'] },
    };
    const provider = await Provider.start(people, `${fresh.url}/sign-in/oidc/callback`);
    const secret = join(fresh.dir, 'secret');
    writeFileSync(secret, `${provider.secret}\n`);
    fresh.settings = Object.entries({
      'public-url': fresh.url,
      'oidc-issuer': provider.issuer,
      'oidc-client-id': provider.id,
      'oidc-client-secret-file': secret,
      'oidc-scope': 'openid,profile,groups',
      'oidc-role': 'crew=operator',
      'oidc-label': 'Sign in with the harbour',
    }).map(([name, value]) => `--${name}=${value}`);
    // Signed in first: the link is good for the first start only.
    await fresh.signIn();
    await fresh.stop();
    await fresh.startAgain();
    try {
      await use(provider);
    } finally {
      await provider.end();
    }
  },

  /** A browser that nobody is signed in with. */
  stranger: async ({ fresh, another }, use) => {
    await use(async (options = {}) => {
      const context = await another({ storageState: undefined, ...options }, fresh);
      // The provider's pages ask for letters from elsewhere.
      await context.route(
        (url) => !['127.0.0.1', 'localhost'].includes(url.hostname),
        (route) => route.fulfill({ contentType: 'text/css', body: '' }),
      );
      return context.newPage();
    });
  },
});

/** The provider's own page. */
async function atTheProvider(page, provider, login) {
  await expect(page).toHaveURL((url) => url.origin === provider.issuer);
  await page.getByPlaceholder('Enter any login').fill(login);
  await page.getByPlaceholder('and password').fill('any');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  await page.getByRole('button', { name: 'Continue' }).click();
}

test('somebody signs in at the provider, lands where they wanted to go, and may do what their group may', async ({
  fresh,
  provider,
  stranger,
  another,
}) => {
  await fresh.machine('web', false);
  const page = await stranger();
  await page.goto('/vms/web');
  await expect(h1(page)).toHaveText('Sign in');
  await page.getByRole('link', { name: 'Sign in with the harbour' }).click();
  await atTheProvider(page, provider, 'eve');
  await expect(h1(page)).toHaveText('web');
  await live(page);
  expect(new URL(page.url()).pathname).toBe('/vms/web');
  await page.getByRole('main').getByRole('button', { name: 'Start' }).click();
  await expect(page.getByText('It is being started.')).toBeVisible();
  await expect(page.getByRole('main').getByRole('button', { name: 'Shut down' })).toBeEnabled();
  // An operator manages nobody.
  await expect(page.getByRole('link', { name: 'Users' })).toBeHidden();

  const { grants, oidcSubject, hasPassword } = await fresh.call('GET', '/api/v1/users/eve');
  expect(grants.map((g) => g.role)).toEqual(['operator']);
  expect([oidcSubject, hasPassword]).toEqual(['of-eve', false]);
  const admin = await (await another({}, fresh)).newPage();
  await open(admin, '/users', 'Users');
  const eve = admin.getByRole('listitem').filter({ has: admin.getByRole('link', { name: 'eve', exact: true }) });
  await expect(eve).toContainText('Single sign-on');
  await admin.getByRole('link', { name: 'eve', exact: true }).click();
  await expect(admin.getByText('of-eve')).toBeVisible();

  // Out, and in again: the provider still knows the browser.
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(h1(page)).toHaveText('Sign in');
  await page.getByRole('link', { name: 'Sign in with the harbour' }).click();
  await expect(h1(page)).toHaveText('Overview');
});

test('without WASM too; who has no role is told so, and nobody becomes another by a name', async ({
  fresh,
  provider,
  stranger,
  another,
  complaints,
}) => {
  complaints.expected(/401 \(Unauthorized\)|403 \(Forbidden\)/);
  const vera = await stranger({ javaScriptEnabled: false });
  await vera.goto('/login');
  await vera.getByRole('link', { name: 'Sign in with the harbour' }).click();
  await atTheProvider(vera, provider, 'vera');
  await expect(h1(vera)).toHaveText('You cannot sign in here yet');
  await expect(vera.getByText('none of your groups gives you a role here')).toBeVisible();
  await vera.getByRole('link', { name: 'Sign in with a password' }).click();
  await expect(h1(vera)).toHaveText('Sign in');

  const other = await stranger();
  await other.goto('/login');
  await other.getByRole('link', { name: 'Sign in with the harbour' }).click();
  await atTheProvider(other, provider, 'admin');
  await expect(other.getByText('there is a user admin here already')).toBeVisible();
  await expect(other.getByText('offshoot user link-oidc admin of-admin')).toBeVisible();
  const { events } = await fresh.call('GET', '/api/v1/audit?filter=path=/sign-in/oidc/callback');
  expect(events.map((e) => e.result)).toEqual(['PERMISSION_DENIED', 'PERMISSION_DENIED']);

  // An administrator says that they are the same.
  const admin = await (await another({}, fresh)).newPage();
  await open(admin, '/users/admin', 'admin');
  await admin.getByLabel('Subject').fill('of-admin');
  await admin.getByRole('button', { name: 'Link to single sign-on' }).click();
  // All sessions of the user end with that.
  const subject = async () => (await fresh.call('GET', '/api/v1/users/admin')).oidcSubject;
  await expect.poll(subject).toBe('of-admin');
  await other.goto('/sign-in/oidc?next=/users');
  await expect(h1(other)).toHaveText('Users');
});

test('who turns back at the provider, or finds none, signs in by a password', async ({ fresh, provider, stranger, complaints }) => {
  complaints.expected(/403 \(Forbidden\)|502 \(Bad Gateway\)/);
  await fresh.call('PUT', '/api/v1/users/admin/password', { password: 'correct horse' });
  const page = await stranger();
  await page.goto('/login');
  await page.getByRole('link', { name: 'Sign in with the harbour' }).click();
  await page.getByRole('link', { name: 'Cancel' }).click();
  await expect(h1(page)).toHaveText('The provider did not sign you in');
  await expect(page.getByText('access_denied')).toBeVisible();

  await fresh.stop();
  await fresh.startAgain();
  const answer = provider.answer;
  provider.answer = (request, response) => response.writeHead(503).end();
  await page.getByRole('link', { name: 'Begin again' }).click();
  await expect(h1(page)).toHaveText('The provider does not answer');
  provider.answer = answer;
  await page.getByRole('link', { name: 'Sign in with a password' }).click();
  await page.getByLabel('Name', { exact: true }).fill('admin');
  await page.getByLabel('Password', { exact: true }).fill('correct horse');
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(h1(page)).toHaveText('Overview');
});
