// A certified OpenID provider on loopback, without a page: `node provider.mjs PORT REDIRECT_URI`.
// `login_hint` says who comes: `SUB,EMAIL,VERIFIED`, or `deny`. `/auto/…` stands for the person's click.
import { Provider } from 'oidc-provider';

const [port, redirectUri] = process.argv.slice(2);
const people = new Map();

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'bifrost',
      client_secret: 'not-a-secret-of-anything',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: [redirectUri],
    },
  ],
  pkce: { required: () => true },
  clockTolerance: 0,
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  features: { devInteractions: { enabled: false } },
  cookies: { keys: ['tests'] },
  ttl: { AuthorizationCode: 60, IdToken: 60, AccessToken: 60, Grant: 60, Session: 60, Interaction: 60 },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, name: 'Ada', ...people.get(sub) }) }),
  interactions: { url: (ctx, interaction) => `/auto/${interaction.uid}` },
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/auto/')) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  if (params.login_hint === 'deny') {
    return provider.interactionFinished(ctx.req, ctx.res, { error: 'access_denied' });
  }
  const [sub, email, verified] = params.login_hint.split(',');
  people.set(sub, { email, email_verified: verified === 'true' });
  const grant = new provider.Grant({ accountId: sub, clientId: params.client_id });
  grant.addOIDCScope('openid email profile');
  const consent = { grantId: await grant.save() };
  return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: sub }, consent });
});

provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
