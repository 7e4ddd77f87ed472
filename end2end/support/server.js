// A server of our own: the release program on a directory and a port of its own, and nothing left of it afterwards.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, request } from '@playwright/test';

const root = resolve(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '../..');
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const program = join(target, 'release/offshoot');
const site = process.env.E2E_SITE ?? join(target, 'site');

/** Polls until the answer is right; quick at first. */
export const eventually = (ask, message) => expect.poll(ask, { message, timeout: 60_000, intervals: [30, 60, 120, 250] });

// What the person has set for a server of theirs is not for ours.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('OFFSHOOT_')));

/** The pids of a directory's guests, as far as they still run. */
function guests(dir) {
  const pids = [];
  for (const machine of readdirSync(join(dir, 'run'), { withFileTypes: true })) {
    try {
      const pid = Number.parseInt(readFileSync(join(dir, 'run', machine.name, 'process'), 'utf8'), 10);
      // The pid may have become another's.
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(machine.name)) pids.push(pid);
    } catch {
      // No record, or no such process: it is off.
    }
  }
  return pids;
}

export class Server {
  /** Further arguments of the program, from its next start on. */
  settings = [];

  /** Starts one; `real` has guests under QEMU, else they are simulated. `settings` are further flags of the program. */
  static async start(real = false, settings = []) {
    const server = new Server();
    server.real = real;
    server.settings = settings;
    server.dir = mkdtempSync(join(process.env.E2E_DIR ?? tmpdir(), 'offshoot-'));
    server.data = join(server.dir, 'data');
    mkdirSync(server.data);
    server.image = process.env.E2E_IMAGE;
    if (!real) {
      // What the simulation takes for an image: its size, and what it occupies.
      server.image = join(server.dir, 'image.qcow2');
      writeFileSync(server.image, '1073741824 196608\n');
    }
    await server.run('127.0.0.1:0');
    return server;
  }

  /** Runs the program; on its first start it prints a one-time link, which also tells the port. */
  async run(listen) {
    const args = ['serve', '--data-dir', this.data, '--listen', listen, '--site-dir', site, '--image', `demo=${this.image}`, ...this.settings];
    this.process = spawn(program, this.real ? args : [...args, '--sim'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.process.stderr.pipe(createWriteStream(join(this.dir, 'log'), { flags: 'a' }));
    this.ended = once(this.process, 'exit');
    if (!this.url) {
      for await (const line of createInterface({ input: this.process.stdout })) {
        if (!line.startsWith('http://')) continue;
        this.link = new URL(line);
        this.url = this.link.origin;
        break;
      }
      if (!this.url) throw new Error(`the server did not start:\n${readFileSync(join(this.dir, 'log'), 'utf8')}`);
    }
    this.process.stdout.resume();
    const ready = () => fetch(`${this.url}/readyz`).then((r) => r.ok, () => false);
    await eventually(ready, 'the server is ready').toBe(true);
  }

  /** Signs in by the one-time link, for a browser and for `call`. */
  async signIn() {
    const http = await request.newContext({ baseURL: this.url, extraHTTPHeaders: { origin: this.url } });
    const answer = await http.post(this.link.pathname, { maxRedirects: 0 });
    expect(answer.status(), 'the one-time link lets in').toBe(303);
    const made = await http.post('/api/v1/tokens', { data: { name: 'tests' } });
    this.token = (await made.json()).secret;
    this.state = await http.storageState();
    await http.dispose();
    return this;
  }

  /** Stops the program as an operator would; its guests go on. */
  async stop(signal = 'SIGTERM') {
    this.process.kill(signal);
    await this.ended;
  }

  async startAgain() {
    await this.run(new URL(this.url).host);
  }

  /** Stops everything and removes all of it. */
  async end() {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      // One that was halted would not hear the other.
      this.process.kill('SIGCONT');
      await this.stop();
    }
    const pids = this.real ? guests(this.data) : [];
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await eventually(() => guests(this.data).length, 'guests have ended').toBe(0);
    rmSync(this.dir, { recursive: true });
  }

  /** Calls the API as a program does; answers status and body. */
  async ask(method, path, body) {
    const answer = await fetch(this.url + path, {
      method,
      headers: { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    // What is gone has nothing to say.
    return { status: answer.status, body: answer.status === 204 ? undefined : await answer.json() };
  }

  /** Like `ask`, for what must go well. */
  async call(method, path, body) {
    const answer = await this.ask(method, path, body);
    expect(answer.status, `${method} ${path}: ${JSON.stringify(answer.body)}`).toBeLessThan(300);
    return answer.body;
  }

  /** Waits for a job's state; answers the job. */
  async until(job, state) {
    const id = job.offshoot?.id ?? job.id;
    let now;
    const look = async () => (now = await this.call('GET', `/api/v1/jobs/${id}`)).state;
    await eventually(look, `job ${id}`).toBe(state);
    return now;
  }

  /** Waits until a job is at work on this step. */
  async untilAt(job, step) {
    const id = job.offshoot?.id ?? job.id;
    const look = async () => {
      const { steps } = await this.call('GET', `/api/v1/jobs/${id}`);
      return steps.find((s) => s.name === step)?.state;
    };
    await eventually(look, `step ${step} of job ${id}`).toBe('RUNNING');
    return id;
  }

  /** Makes a machine; one that runs has a snapshot. */
  async machine(name, start = true) {
    const made = await this.call('POST', '/api/v1/vms', {
      name,
      cpus: 1,
      memoryMib: 128,
      firmware: 'BIOS',
      disks: [{ image: 'demo' }],
      start,
    });
    await this.until(made, 'SUCCEEDED');
    if (start) await this.snapshot(name, 'first');
    return name;
  }

  async snapshot(vm, name) {
    await this.until(await this.call('POST', `/api/v1/vms/${vm}/snapshots`, { name, quiesce: false }), 'SUCCEEDED');
  }

  /** Asks for a clone; answers the job. */
  clone(vm, name, more = {}) {
    return this.call('POST', `/api/v1/vms/${vm}/cloneJobs`, { mode: 'LINKED', target: { name, start: true }, ...more });
  }

  release(name) {
    return this.call('POST', `/api/v1/sim/${name}/release`, {});
  }
}
