import type { Response } from 'undici'
import * as z from 'zod'
import type { Machine } from '../../machine/machine.ts'
import { NestvmError } from '../../store/error.ts'
import type { RegistryReference } from '../reference.ts'
import { parseChallenges } from './challenge.ts'
import { type Credentials, findCredentials } from './credentials.ts'
import type { Http } from './http.ts'
import type { Endpoint } from './settings.ts'

const tokenSchema = z
  .object({ token: z.string().optional(), access_token: z.string().optional() })
  .transform(({ token, access_token }) => token || access_token)

/** What requests to one repository carry, once the registry has asked for it (distribution's token specification). */
export class Authorization {
  header: string | undefined
  private renewed = 0

  constructor(
    private readonly http: Http,
    private readonly endpoint: Endpoint,
    private readonly reference: RegistryReference,
    private readonly context: { machine: Machine; signal?: AbortSignal },
  ) {}

  /** After a 401: whether to try again. Tokens run out during long pulls, so this may come more than once. */
  async renew(response: Response): Promise<boolean> {
    const challenges = parseChallenges(response.headers.get('www-authenticate') ?? '')
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
    if (challenges.length === 0 || ++this.renewed > 100) return false
    const credentials = await this.credentials()
    const before = this.header
    if (bearer) this.header = `Bearer ${await this.token(bearer.parameters, credentials)}`
    else if (challenges.some(({ scheme }) => scheme === 'basic')) this.header = basic(credentials)
    return this.header !== undefined && this.header !== before
  }

  /** Those of the endpoint: a mirror does not get the registry's password. */
  private credentials(): Promise<Credentials | undefined> {
    const { host, repository } = this.endpoint
    const registry = host === 'registry-1.docker.io' ? 'docker.io' : host
    return findCredentials({ registry, repository }, this.context.machine, this.context.signal)
  }

  private async token(parameters: Record<string, string>, credentials: Credentials | undefined): Promise<string> {
    const { realm = '', service, scope = `repository:${this.endpoint.repository}:pull` } = parameters
    const url = this.checkedRealm(realm)
    const refresh = credentials && 'identityToken' in credentials ? credentials.identityToken : undefined
    const query = new URLSearchParams({ ...(service ? { service } : {}), scope })
    let request: Promise<Response>
    if (refresh !== undefined) {
      const form = { grant_type: 'refresh_token', client_id: 'nestvm', refresh_token: refresh }
      const body = new URLSearchParams([...query, ...Object.entries(form)])
      request = this.http.fetch(url.href, { method: 'POST', body, redirect: 'error' })
    } else {
      for (const [key, value] of query) url.searchParams.set(key, value)
      const authorization = basic(credentials)
      request = this.http.fetch(url.href, { headers: authorization ? { authorization } : {} })
    }
    const response = await request
    const answer: unknown = await response.json().catch(() => undefined)
    const token = tokenSchema.safeParse(answer).data
    if (response.ok && token) return token
    throw this.denied(response.status, credentials !== undefined)
  }

  /** A password is not sent in the clear, wherever a registry says that it should go. */
  private checkedRealm(realm: string): URL {
    const url = URL.canParse(realm) ? new URL(realm) : undefined
    if (url?.protocol === 'https:' || (url?.protocol === 'http:' && this.endpoint.insecure)) return url
    throw new NestvmError(
      'REGISTRY_FAILED',
      `${this.endpoint.host} asks to log in at ${JSON.stringify(realm)}, which is not safe`,
    )
  }

  private denied(status: number, tried: boolean): NestvmError {
    const { registry } = this.reference
    const passing = status === 429 || status >= 500
    const why = passing
      ? 'is not served now'
      : tried
        ? 'was refused with the credentials that are kept for it'
        : 'asks to log in'
    return new NestvmError(
      passing ? 'REGISTRY_BUSY' : 'IMAGE_DENIED',
      `a token for ${this.endpoint.host} ${why} (HTTP status ${status})`,
      {
        hint: `podman login ${registry}, or: docker login ${registry}`,
        details: { registry, status },
      },
    )
  }
}

function basic(credentials: Credentials | undefined): string | undefined {
  if (credentials === undefined || 'identityToken' in credentials) return undefined
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`
}
