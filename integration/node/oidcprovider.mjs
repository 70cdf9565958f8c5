// An oidc-provider with rotating refresh tokens, for tests. Its own are the password grant, which it has to be taught, and
// /listener, which stands for a listener at the page of the device grant.
//
//	node oidcprovider.mjs <issuer> <life of access tokens> <life of device codes> <client id> <client secret>
//
// Lives are in seconds. It prints the port at which it listens, and ends with its standard input.

import { Provider, errors } from 'oidc-provider';

const [issuer, life, codeLife, clientId, clientSecret] = process.argv.slice(2);
const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';
const scope = 'openid offline_access';

const provider = new Provider(issuer, {
  clients: [{
    client_id: clientId,
    client_secret: clientSecret,
    grant_types: ['password', 'refresh_token', deviceGrant],
    response_types: [],
    redirect_uris: [],
  }],
  cookies: { keys: ['of a test'] },
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: false } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  ttl: { AccessToken: Number(life), DeviceCode: Number(codeLife), Grant: 86400, IdToken: 3600, RefreshToken: 86400 },
});
provider.proxy = true;

const grantTo = (accountId) => {
  const grant = new provider.Grant({ clientId, accountId });
  grant.addOIDCScope(scope);
  return grant.save();
};

provider.registerGrantType('password', async (ctx) => {
  const { client, params: { username: accountId, password } } = ctx.oidc;
  if (accountId !== 'testuser' || password !== '12345') {
    throw new errors.InvalidGrant('no such account, or another password');
  }
  const of = { accountId, client, grantId: await grantTo(accountId), gty: 'password', scope, expiresWithSession: false };
  const accessToken = new provider.AccessToken(of);
  const refreshToken = new provider.RefreshToken({ ...of, rotations: 0, iiat: Math.floor(Date.now() / 1000) });
  ctx.body = {
    access_token: await accessToken.save(),
    refresh_token: await refreshToken.save(),
    expires_in: accessToken.expiration,
    token_type: accessToken.tokenType,
  };
}, ['username', 'password']);

// What oidc-provider's own page does in the end.
const listener = async (userCode, allows) => {
  const code = await provider.DeviceCode.findByUserCode(userCode.replaceAll('-', ''));
  if (allows) {
    Object.assign(code, { accountId: 'testuser', grantId: await grantTo('testuser'), scope, authTime: Math.floor(Date.now() / 1000) });
  } else {
    Object.assign(code, { error: 'access_denied', errorDescription: 'denied by the listener' });
  }
  await code.save();
};

provider.use(async (ctx, next) => {
  switch (ctx.path) {
    case '/listener':
      await listener(ctx.query.user_code, ctx.query.allows === 'true');
      ctx.status = 204;
      return;
    case '/works':
      ctx.status = await provider.AccessToken.find(ctx.query.token) ? 204 : 404;
      return;
  }
  await next();
});

const server = provider.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
