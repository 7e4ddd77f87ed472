import { existsSync } from 'node:fs';
import { defineConfig } from '@playwright/test';

// The distribution's browser where there is one; else Playwright's own.
const browser = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync);
// Chromium's sandbox refuses to run as root.
const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : [];

export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results',
  fullyParallel: true,
  workers: Number(process.env.E2E_WORKERS ?? 2),
  forbidOnly: true,
  // Where nothing works, every test would wait for its time.
  maxFailures: 12,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  reporter: [['list'], ['./support/failures.js']],
  use: {
    viewport: { width: 1280, height: 860 },
    locale: 'en-GB',
    timezoneId: 'UTC',
    // A click that never succeeds says so long before the test's time is up.
    actionTimeout: 20_000,
    trace: 'retain-on-failure',
    launchOptions: {
      executablePath: browser,
      args: [
        ...sandbox,
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
  projects: [
    // Guests take their time to boot: they begin first.
    { name: 'qemu', testMatch: /real[^/]*\.spec\.js/, timeout: 180_000, use: { real: true } },
    { name: 'sim', testIgnore: /real[^/]*\.spec\.js/ },
  ],
});
