// What all tests share: a server for each worker, a browser that is signed in, and an eye on what the browser says.

import { test as base, expect } from '@playwright/test';
import { Server } from './server.js';

export { expect };

export const test = base.extend({
  /** Whether guests are real. */
  real: [false, { option: true, scope: 'worker' }],

  /** This worker's server. */
  server: [
    async ({ real }, use) => {
      const server = await Server.start(real);
      try {
        await use(await server.signIn());
      } finally {
        await server.end();
      }
    },
    { scope: 'worker', timeout: 60_000 },
  ],

  /** Further flags of a server for one test alone. */
  settings: [[], { option: true }],

  /** A server for this test alone, nobody signed in. */
  fresh: async ({ settings }, use) => {
    const server = await Server.start(false, settings);
    try {
      await use(server);
    } finally {
      await server.end();
    }
  },

  baseURL: ({ server }, use) => use(server.url),
  storageState: ({ server }, use) => use(server.state),

  /** What the browser complained of. A test that provokes something says so with `expected`. */
  complaints: async ({}, use) => {
    const all = [];
    // A page that is left, or slow, before its letters and code are used.
    const expected = [/was preloaded using link preload/];
    await use({
      watch(context) {
        context.on('console', (m) => {
          if (m.type() === 'error' || m.type() === 'warning') all.push(`${m.page()?.url()}: ${m.text()}`);
        });
        context.on('weberror', (e) => all.push(`${e.page()?.url()}: ${e.error()}`));
        return context;
      },
      expected: (pattern) => expected.push(pattern),
      now: () => all.filter((text) => !expected.some((pattern) => pattern.test(text))),
    });
    expect(all.filter((text) => !expected.some((pattern) => pattern.test(text))), 'the browser complains').toEqual([]);
  },

  context: ({ context, complaints }, use) => use(complaints.watch(context)),

  /** Opens a further browser, signed in to `at` unless told otherwise. */
  another: async ({ browser, server, complaints, viewport, locale, timezoneId }, use) => {
    const all = [];
    await use(async (options = {}, at = server) => {
      const context = await browser.newContext({
        baseURL: at.url,
        storageState: at.state,
        viewport,
        locale,
        timezoneId,
        ...options,
      });
      all.push(context);
      return complaints.watch(context);
    });
    await Promise.all(all.map((context) => context.close()));
  },
});

/** The page says that it is live. */
export function live(page) {
  const word = page.getByRole('navigation', { name: 'Main' }).getByText('Live', { exact: true });
  // Eight tabs may come alive at once, on two processors.
  return expect(word).toBeVisible({ timeout: 30_000 });
}

/** The page lives, and shows this. */
export async function open(page, path, heading) {
  await page.goto(path);
  if (heading) await expect(page.getByRole('heading', { level: 1 })).toHaveText(heading);
  await live(page);
}

/** A job's state, beside its title. */
export const state = (page) => page.getByRole('main').getByRole('status').first();

/** Holds the WASM back until it is released: the page stays the plain one of the server. */
export async function holdWasm(page) {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await page.route(/\.wasm$/, async (route) => {
    await held;
    await route.continue();
  });
  return release;
}
