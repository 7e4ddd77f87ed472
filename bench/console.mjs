// Loads the console in a real browser whose processor is four times slower, uses it, and prints what was measured as
// JSON. Started by the bench program, which runs the server:
//
//   node console.mjs <url> <one-time link> <token> <name of a machine that runs> <times>

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';

const { chromium } = createRequire(new URL('../end2end/package.json', import.meta.url))('@playwright/test');

const [url, link, token, machine, times] = process.argv.slice(2);
const pages = ['/', '/vms', `/vms/${machine}`, `/vms/${machine}/clone`, '/jobs'];
const slower = 4;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync),
  // Chromium's sandbox refuses to run as root.
  args: [
    ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

/** Runs in every page before its own scripts: notes what the browser measures. */
function watch() {
  const seen = { lcp: 0, cls: 0, tasks: [], inputs: new Map() };
  window.benchSeen = seen;
  const observe = (type, take, options = {}) =>
    new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type, buffered: true, ...options });
  observe('largest-contentful-paint', (e) => (seen.lcp = e.startTime));
  observe('layout-shift', (e) => (seen.cls += e.hadRecentInput ? 0 : e.value));
  observe('longtask', (e) => seen.tasks.push([e.startTime, e.duration]));
  const input = (e) => {
    if (e.interactionId) seen.inputs.set(e.interactionId, Math.max(e.duration, seen.inputs.get(e.interactionId) ?? 0));
  };
  observe('event', input, { durationThreshold: 16 });
}

let state;

/** A browser without a cache, signed in, slow from here on. */
async function fresh(rate = slower) {
  const context = await browser.newContext({ baseURL: url, storageState: state, viewport: { width: 1280, height: 860 } });
  await context.addInitScript(watch);
  const page = await context.newPage();
  // The renderer that the server's pages will have.
  await page.goto('/healthz');
  const session = await context.newCDPSession(page);
  await session.send('Emulation.setCPUThrottlingRate', { rate });
  return page;
}

const live = (page) => page.getByRole('navigation', { name: 'Main' }).getByText('Live', { exact: true }).waitFor();

/** Until the page has been at rest for a while. */
const rest = (page) =>
  page.evaluate(async () => {
    const pause = (ms) => new Promise((done) => setTimeout(done, ms));
    do await pause(700);
    while (window.benchSeen.tasks.some(([start, length]) => start + length > performance.now() - 600));
  });

async function load(path) {
  const page = await fresh();
  await page.goto(path);
  await live(page);
  await rest(page);
  const seen = await page.evaluate(() => {
    const { lcp, cls, tasks } = window.benchSeen;
    const [fcp] = performance.getEntriesByName('first-contentful-paint');
    const blocked = tasks.filter(([start]) => start >= fcp.startTime).map(([, length]) => Math.max(0, length - 50));
    return { lcp, cls, tbt: blocked.reduce((sum, ms) => sum + ms, 0) };
  });
  await page.context().close();
  return seen;
}

/** The worst of many interactions, as the browser measures them: from the input to the next picture. */
async function use() {
  const page = await fresh();
  await page.goto('/vms');
  await live(page);
  await rest(page);
  const row = page.getByRole('row').filter({ has: page.locator(`a[href="/vms/${machine}"]`) });
  const steps = [
    () => row.getByRole('checkbox').click(),
    () => row.locator('summary').click(),
    () => page.keyboard.press('Escape'),
    () => page.getByRole('columnheader', { name: 'State' }).getByRole('link').click(),
    () => page.getByRole('columnheader', { name: 'Name' }).getByRole('link').click(),
    () => page.getByRole('search').getByRole('searchbox').pressSequentially(machine, { delay: 120 }),
    () => page.getByRole('search').getByRole('searchbox').fill(''),
    () => page.keyboard.press('Control+k'),
    () => page.keyboard.type('vm', { delay: 120 }),
    () => page.keyboard.press('Escape'),
    () => row.locator(`a[href="/vms/${machine}"]`).first().click(),
    () => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Jobs' }).click(),
    () => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Overview' }).click(),
  ];
  await page.evaluate(() => (window.benchSame = true));
  for (const step of steps) {
    await step();
    await rest(page);
  }
  const seen = await page.evaluate(() => window.benchSame && [...window.benchSeen.inputs.values()]);
  if (!seen) throw new Error('the page was loaded again while it was used');
  await page.context().close();
  // The browser does not tell of those under 16 ms.
  return { worst: Math.max(16, ...seen), count: seen.length };
}

/** From before a request that changes a machine until the change is on the screen, in a list of machines. */
async function pixels(count) {
  const page = await fresh();
  await page.goto('/vms');
  await live(page);
  await rest(page);
  const taken = [];
  for (let n = 0; n < count; n++) {
    const [action, word] = n % 2 ? ['resume', 'running'] : ['pause', 'paused'];
    await page.evaluate(
      ([name, word]) => {
        window.benchShown = new Promise((done) => {
          const look = () => {
            const row = document.querySelector(`tbody a[href="/vms/${name}"]`)?.closest('tr');
            if (!row?.querySelector('.state')?.textContent.toLowerCase().includes(word)) return;
            observer.disconnect();
            // A frame begins, is drawn, and only then comes the message.
            requestAnimationFrame(() => {
              const { port1, port2 } = new MessageChannel();
              port1.onmessage = () => done(performance.timeOrigin + performance.now());
              port2.postMessage(0);
            });
          };
          const observer = new MutationObserver(look);
          observer.observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
          look();
        });
      },
      [machine, word],
    );
    const begin = performance.timeOrigin + performance.now();
    const answer = await fetch(`${url}/api/v1/vms/${machine}/${action}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: '{}',
    });
    if (answer.status !== 202) throw new Error(`${action}: ${answer.status} ${await answer.text()}`);
    taken.push((await page.evaluate(() => window.benchShown)) - begin);
    await page.waitForTimeout(300);
  }
  await page.context().close();
  return taken;
}

/** What the first page loads of JavaScript, WASM and words, in bytes as they are sent. */
async function firstLoad() {
  const page = await fresh(1);
  const encodings = new Map();
  page.on('response', (r) => encodings.set(r.url(), r.headers()['content-encoding']));
  await page.goto('/');
  await live(page);
  const files = await page.evaluate(() =>
    performance.getEntriesByType('resource').map((e) => [e.name, e.encodedBodySize]));
  const code = new Map(files.filter(([name]) => /\.(js|wasm|txt)$/.test(name)));
  for (const name of code.keys())
    if (encodings.get(name) !== 'br') throw new Error(`${name} is not sent with brotli`);
  if (![...code.keys()].some((name) => name.endsWith('.wasm'))) throw new Error('the page loads no WASM');
  await page.context().close();
  return [...code.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** How much slower the throttled processor really is. */
async function slowdown() {
  const spin = () => {
    const begin = performance.now();
    for (let n = 0, x = 0; n < 3e7; n++) x = (x * 31 + n) | 0;
    return performance.now() - begin;
  };
  // The fastest of some: what else the host does only ever adds.
  const measure = async (rate) => {
    const page = await fresh(rate);
    const taken = [];
    for (let n = 0; n < 12; n++) taken.push(await page.evaluate(spin));
    await page.context().close();
    return Math.min(...taken);
  };
  const free = await measure(1);
  return (await measure(slower)) / free;
}

try {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(link);
  await live(page);
  state = await context.storageState();
  await context.close();

  const taken = { slowdown: await slowdown(), firstLoadBytes: await firstLoad(), pages: {}, inp: [], pixels: [] };
  for (const path of pages) taken.pages[path] = [];
  for (let n = 0; n < times; n++) {
    for (const path of pages) taken.pages[path].push(await load(path));
    taken.inp.push(await use());
  }
  taken.pixels = await pixels(times * 10);
  process.stdout.write(JSON.stringify(taken));
} finally {
  await browser.close();
}
