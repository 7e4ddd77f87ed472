// An OpenID Connect provider: the certified one of the package `oidc-provider`, with its own pages, on a port of its own.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import Oidc from 'oidc-provider';

export class Provider {
  id = 'offshoot';
  secret = randomBytes(16).toString('hex');

  /** Starts one that knows these people, by their logins, and sends browsers back to `redirect` only. */
  static async start(people, redirect) {
    const provider = new Provider();
    provider.http = createServer((...args) => provider.answer(...args)).listen(0, '127.0.0.1');
    await once(provider.http, 'listening');
    // Another site than the console's for the browser, which is at 127.0.0.1.
    provider.issuer = `http://localhost:${provider.http.address().port}`;
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const oidc = new Oidc(provider.issuer, {
      clients: [{ client_id: provider.id, client_secret: provider.secret, redirect_uris: [redirect] }],
      jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: 'one' }] },
      cookies: { keys: [randomBytes(16).toString('hex')] },
      pkce: { methods: ['S256'], required: () => true },
      scopes: ['openid', 'profile', 'groups'],
      claims: { profile: ['preferred_username'], groups: ['groups'] },
      ttl: { AccessToken: 600, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
      findAccount: (_, login) => people[login] && { accountId: login, claims: () => ({ sub: `of-${login}`, ...people[login] }) },
    });
    provider.answer = oidc.callback();
    return provider;
  }

  async end() {
    this.http.close();
    this.http.closeAllConnections();
    await once(this.http, 'close');
  }
}
