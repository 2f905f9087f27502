import { Agent, type Dispatcher, fetch, Pool, ProxyAgent, type RequestInit, type Response } from 'undici'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import { secureContextFor } from './certificates.ts'
import { proxyFor } from './proxy.ts'
import type { Endpoint } from './settings.ts'

/**
 * HTTP for one registry, with the proxies of the environment. The registry's certificates count also where it leads
 * on to: to its token server, and to where its blobs are.
 */
export class Http implements AsyncDisposable {
  private agent: Promise<Dispatcher> | undefined

  constructor(
    private readonly endpoint: Endpoint,
    private readonly signal?: AbortSignal,
  ) {}

  /** Follows redirects, which take no authorization along to other hosts. Throws `REGISTRY_UNREACHABLE`. */
  async fetch(url: string, init: RequestInit = {}): Promise<Response> {
    this.agent ??= makeAgent(this.endpoint)
    const dispatcher = await this.agent
    try {
      return await fetch(url, { ...init, dispatcher, signal: init.signal ?? this.signal })
    } catch (error) {
      init.signal?.throwIfAborted()
      this.signal?.throwIfAborted()
      throw unreachable(url, error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const agent = await this.agent?.catch(() => undefined)
    await agent?.destroy().catch(() => {})
  }
}

async function makeAgent({ host, insecure }: Endpoint): Promise<Dispatcher> {
  const tls = { timeout: 20_000, rejectUnauthorized: !insecure, secureContext: await secureContextFor(host) }
  // The second limit is for what passes between two pieces of a body.
  const limits = { headersTimeout: 60_000, bodyTimeout: 60_000 }
  return new Agent({
    ...limits,
    factory: (origin, options) => {
      const proxy = proxyFor(new URL(origin))
      if (proxy === undefined) return new Pool(origin, { ...options, connect: tls })
      // Many proxies let tunnels go to port 443 only: what is no TLS is asked of the proxy itself.
      return new ProxyAgent({ ...limits, uri: proxy, requestTls: tls, proxyTunnel: false })
    },
  })
}

function unreachable(url: string, error: unknown): NestvmError {
  const host = new URL(url).host
  const why = firstCause(error)
  const certs = `~/.config/containers/certs.d/${host}`
  return new NestvmError('REGISTRY_UNREACHABLE', `the registry at ${host} cannot be reached: ${why}`, {
    // A server that misses the client's certificate closes the connection after what TLS 1.3 takes for a success.
    hint: /certificate|other side closed/i.test(why)
      ? `put its authority's certificate in ${certs}/ca.crt, and your own, where it wants one, in client.cert and client.key`
      : 'check the network, HTTPS_PROXY and NO_PROXY; mirrors and insecure registries are set in registries.conf',
    details: { host },
    cause: error,
  })
}

function firstCause(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.cause instanceof Error) return firstCause(error.cause)
  // Where a name has several addresses, the error of all of them has a code but no message.
  return error.message || errorCode(error) || error.name
}
